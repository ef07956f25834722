//! Which translators are active, as one immutable snapshot at a time. Knows nothing of messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::plugin::{Digest, Limits, Write};
use crate::runtime::{self, Inspection, Runtime, Translator};
use crate::store::{self, Activation, Component, Store};

/// How often plugins that cannot be loaded here are tried again.
const RETRY_BROKEN: Duration = Duration::from_secs(30);

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
    /// Feeds and tables; `None`: an activation that cannot be loaded here, and no good one before it.
    active: BTreeMap<String, BTreeMap<String, Option<Arc<Active>>>>,
    broken: Vec<(Activation, String)>,
}

impl Snapshot {
    /// The plugin of a table: its own, else that of table `*`. A table whose own plugin cannot be loaded here keeps the one it had, and has
    /// none if it had none: that of `*` was not meant for it.
    pub fn find(&self, feed: &str, table: &str) -> Option<&Arc<Active>> {
        let tables = self.active.get(feed)?;
        tables.get(table).or_else(|| tables.get("*"))?.as_ref()
    }

    /// Activations that cannot be loaded here, and why.
    pub fn broken(&self) -> &[(Activation, String)] {
        &self.broken
    }

    fn of(&self, feed: &str, table: &str) -> Option<&Arc<Active>> {
        self.active.get(feed)?.get(table)?.as_ref()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Active>> {
        self.active.values().flat_map(BTreeMap::values).flatten()
    }
}

/// Keeps the snapshot in step with the store.
pub struct Registry {
    store: Arc<dyn Store>,
    runtime: Arc<Runtime>,
    limits: BTreeMap<String, Limits>,
    secret: [u8; 32],
    current: ArcSwap<Snapshot>,
    /// Activations that replays run with, by number.
    pinned: Mutex<BTreeMap<i64, Arc<Active>>>,
    /// When the store's list was last loaded; held while it is.
    loaded: Mutex<Instant>,
}

impl Registry {
    /// Loads what is active. `limits` are those of plugins by name; `default` holds for the rest.
    pub async fn open(store: Arc<dyn Store>, runtime: Arc<Runtime>, limits: BTreeMap<String, Limits>) -> Result<Self> {
        let secret = store.secret().await?;
        let current = ArcSwap::from_pointee(Snapshot::default());
        let registry = Self { store, runtime, limits, secret, current, pinned: Mutex::default(), loaded: Mutex::new(Instant::now()) };
        registry.load_all().await?;
        Ok(registry)
    }

    /// What is active now; hold one for a batch.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Looks whether something changed and loads what is new; true: there is a new snapshot. What cannot be loaded is tried again every
    /// `RETRY_BROKEN`.
    pub async fn refresh(&self) -> Result<bool> {
        let mut loaded = self.loaded.lock().await;
        let before = self.snapshot();
        let unchanged = self.store.revision().await? == before.revision;
        if unchanged && (before.broken.is_empty() || loaded.elapsed() < RETRY_BROKEN) {
            return Ok(false);
        }
        let changed = self.load_all().await;
        *loaded = Instant::now();
        changed
    }

    /// An activation of the history, active or not, for runs that were told to use it. `None`: there is no such one, or it cannot be loaded
    /// here; the log says why.
    pub async fn pinned(&self, activation: i64) -> Option<Arc<Active>> {
        let current = self.snapshot();
        if let Some(active) = current.all().find(|active| active.activation == activation) {
            return Some(active.clone());
        }
        let mut pinned = self.pinned.lock().await;
        if let Some(active) = pinned.get(&activation) {
            return Some(active.clone());
        }
        let loaded = async {
            let history = self.store.activations(None, None).await?;
            let Some(wanted) = history.into_iter().find(|known| known.id == activation) else { return Ok(None) };
            let translator = self.load(&wanted, &current, &Snapshot::default()).await?;
            Ok::<_, Error>(Some(Arc::new(active(&wanted, translator))))
        };
        match loaded.await {
            Ok(loaded) => {
                pinned.extend(loaded.iter().map(|active| (activation, active.clone())));
                loaded
            }
            Err(error) => {
                tracing::error!(activation, error = %crate::trouble::Chain(&error), "the plugin of a replay cannot be loaded");
                None
            }
        }
    }

    async fn load_all(&self) -> Result<bool> {
        let (revision, activations) = self.store.active().await?;
        let before = self.snapshot();
        let mut next = Snapshot { revision, ..Snapshot::default() };
        let mut woken = Vec::new();
        for activation in activations {
            let (feed, table) = (activation.feed.clone(), activation.table.clone());
            let had = before.of(&feed, &table);
            let active = match had.filter(|had| had.activation == activation.id) {
                Some(same) => Some(same.clone()),
                None => match self.load(&activation, &before, &next).await {
                    Ok(translator) => {
                        if before.broken.iter().any(|(broken, _)| broken.id == activation.id) {
                            woken.push((feed.clone(), table.clone(), activation.id));
                        }
                        Some(Arc::new(active(&activation, translator)))
                    }
                    Err(Error::Store(error)) => return Err(error.into()),
                    Err(Error::Runtime(error)) => {
                        next.broken.push((activation, error.to_string()));
                        had.cloned()
                    }
                },
            };
            next.active.entry(feed).or_default().insert(table, active);
        }
        let same = before.revision == next.revision && before.broken == next.broken;
        self.current.store(Arc::new(next));
        // Messages that came while the plugin could not be loaded wait to be told.
        for (feed, table, activation) in woken {
            wake(&*self.store, &feed, &table, &format!("activation {activation} is loaded")).await?;
        }
        Ok(!same)
    }

    /// The translator of an activation. One that runs the same component with the same config already is shared, and so are its instances.
    async fn load(&self, activation: &Activation, before: &Snapshot, next: &Snapshot) -> Result<Arc<Translator>> {
        let (digest, config) = (activation.digest, Digest::of(activation.config.as_bytes()));
        let same = |active: &&Arc<Active>| active.translator.digest() == digest && active.config_digest == config;
        if let Some(same) = next.all().chain(before.all()).find(same) {
            return Ok(same.translator.clone());
        }
        let components = self.store.components().await?;
        let name = components.iter().find(|component| component.digest == digest).map(|component| component.description.name.clone());
        let name = name.unwrap_or_default();
        let limits = self.limits.get(&name).or_else(|| self.limits.get("default")).cloned().unwrap_or_default();
        if let Some(artefact) = self.store.artefact(digest, &self.runtime.engine_key()).await? {
            match self.start(digest, artefact, limits.clone(), &activation.config).await {
                // An artefact that does not fit is made anew; what starts badly would do so again.
                Err(runtime::Error::Refused(reason)) => {
                    tracing::warn!(digest = digest.short(), reason, "a stored artefact is not usable: the component is compiled again");
                }
                result => return Ok(result?),
            }
        }
        let artefact = self.compile(digest).await?;
        Ok(self.start(digest, artefact, limits, &activation.config).await?)
    }

    /// Compiles a stored component for this host's engine: the first one of a new version of the host does it for all.
    async fn compile(&self, digest: Digest) -> Result<Bytes> {
        let bytes = self.store.component_bytes(digest).await?;
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == digest).ok_or_else(|| {
            let text = format!("component {} is not in the store, or its bytes are not what was pushed; push it again", digest.short());
            runtime::Error::Refused(text)
        })?;
        let artefact = self.runtime.compile(&bytes, &self.secret).await?;
        self.store.put_artefact(digest, &self.runtime.engine_key(), &artefact).await?;
        Ok(artefact.into())
    }

    async fn start(
        &self,
        digest: Digest,
        artefact: Bytes,
        limits: Limits,
        config: &str,
    ) -> std::result::Result<Arc<Translator>, runtime::Error> {
        let (runtime, secret, config) = (self.runtime.clone(), self.secret, config.to_owned());
        let loaded = tokio::task::spawn_blocking(move || runtime.load(digest, &artefact, &secret, limits, &config)).await;
        loaded.unwrap_or_else(|error| Err(runtime::Error::Engine(format!("load {}: {error}", digest.short()))))
    }
}

fn active(activation: &Activation, translator: Arc<Translator>) -> Active {
    Active {
        activation: activation.id,
        feed: activation.feed.clone(),
        table: activation.table.clone(),
        config_digest: Digest::of(activation.config.as_bytes()),
        translator,
    }
}

/// Validates a component, compiles it in a child process and stores both.
pub async fn push(store: &dyn Store, runtime: &Runtime, component: &[u8], by: &str) -> Result<Inspection> {
    let secret = store.secret().await?;
    let (inspection, artefact) = runtime.admit(component, &secret).await?;
    let digest = Digest::of(component);
    let row = Component {
        digest,
        size: i64::try_from(component.len()).unwrap_or(i64::MAX),
        description: inspection.description.clone(),
        imports: inspection.imports.clone(),
        pushed_ms: store.now_ms().await?,
        pushed_by: by.to_owned(),
    };
    store.put_component(&row, component).await?;
    store.put_artefact(digest, &runtime.engine_key(), &artefact).await?;
    Ok(inspection)
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
