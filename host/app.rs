//! The life of a host: opens what the config names, joins, owns, runs the three loops, and leaves. Composes; decides nothing about messages.

pub mod session;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::endpoint::{Caller, Endpoints};
use crate::message::FeedId;
use crate::registry::{self, Registry};
use crate::runtime::Runtime;
use crate::store::{self, Clock, Paused, Store};
use crate::translate::engine::Counts;
use crate::translate::run::Feed;
use crate::trouble::{Chain, Pause};

/// What a host has done so far: shared with whoever shows progress.
#[derive(Clone, Default)]
pub struct Progress {
    /// Messages taken in.
    pub ingested: Arc<AtomicU64>,
    /// What the translate loop did.
    pub translated: Arc<Counts>,
    /// Outputs published.
    pub published: Arc<AtomicU64>,
}

/// When a host ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Never: it runs until it is told to stop.
    Stopped,
    /// Once every source has ended and everything that can go on has gone on and is published.
    Done,
}

/// A host that is opened but not joined.
pub struct App {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) caller: Arc<dyn Caller>,
    pub(crate) feeds: Vec<Arc<Feed>>,
    pub(crate) secret: [u8; 32],
    pub(crate) progress: Progress,
    /// What is paused, read again and again while a session runs.
    pub(crate) pauses: Arc<ArcSwap<Vec<Paused>>>,
}

impl App {
    /// Opens everything a config names, waiting for a database that is away, and migrates its tables.
    pub async fn open(config: Config, progress: Progress, stop: &CancellationToken) -> anyhow::Result<Option<Self>> {
        let Some(store) = open_store(&config, stop).await? else { return Ok(None) };
        let runtime = Runtime::new(&config.runtime)?;
        let caller = Arc::new(Endpoints::new(&config.endpoints)?);
        let mut pause = Pause::default();
        loop {
            let opened = async {
                let registry = Arc::new(Registry::open(store.clone(), runtime.clone(), config.limits.clone()).await?);
                Self::assemble(config.clone(), store.clone(), runtime.clone(), registry, caller.clone(), progress.clone()).await
            };
            match opened.await {
                Ok(app) => return Ok(Some(app)),
                // The store may go away between any two of its verbs.
                Err(error) => match transient(&error) {
                    Some(reason) => pause.wait("store", reason, stop).await,
                    None => return Err(error),
                },
            }
            if stop.is_cancelled() {
                return Ok(None);
            }
        }
    }

    /// Puts a host together from parts that are open already.
    pub async fn assemble(
        config: Config,
        store: Arc<dyn Store>,
        runtime: Arc<Runtime>,
        registry: Arc<Registry>,
        caller: Arc<dyn Caller>,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let feeds = register(&config, &*store).await?;
        let secret = store.secret().await?;
        Ok(Self { config, store, runtime, registry, caller, feeds, secret, progress, pauses: Arc::default() })
    }

    /// Runs until told to stop, or until everything is done. A host whose lease ran out joins again.
    pub async fn run(&self, until: Until, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            match session::run(self, until, &stop).await? {
                session::Ended::Stopped | session::Ended::Done => break,
                session::Ended::LeaseLost => tracing::warn!("the lease had run out; joining again"),
            }
        }
        Ok(())
    }
}

/// The store's trouble in an error, where waiting for it can help.
fn transient(error: &anyhow::Error) -> Option<&store::Error> {
    let found = match error.downcast_ref::<registry::Error>() {
        Some(registry::Error::Store(error)) => Some(error),
        _ => error.downcast_ref::<store::Error>(),
    };
    found.filter(|error| error.is_transient())
}

/// Opens and migrates the store; waits while it is away. `None`: told to stop meanwhile.
async fn open_store(config: &Config, stop: &CancellationToken) -> anyhow::Result<Option<Arc<dyn Store>>> {
    let mut pause = Pause::default();
    loop {
        let opened = async {
            let store = store::open(&config.store, Clock::Database).await?;
            let applied = store.migrate().await?;
            Ok::<_, store::Error>((store, applied))
        };
        match opened.await {
            Ok((store, applied)) => {
                if !applied.is_empty() {
                    tracing::info!(migrations = applied.join(", "), "migrated the store");
                }
                return Ok(Some(store));
            }
            Err(error) if error.is_transient() => {
                pause.wait("store", &error, stop).await;
                if stop.is_cancelled() {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Registers feeds and targets; the store's number of lanes wins over the config's.
async fn register(config: &Config, store: &dyn Store) -> anyhow::Result<Vec<Arc<Feed>>> {
    let wanted: Vec<(String, u16)> = config.feeds.iter().map(|(name, feed)| (name.clone(), feed.lanes)).collect();
    let targets: Vec<String> = config.targets.keys().cloned().collect();
    let known: Vec<(FeedId, u16)> = store.register(&wanted, &targets).await?;
    let mut feeds = Vec::new();
    for ((name, feed), (id, lanes)) in config.feeds.iter().zip(known) {
        let mut feed = feed.clone();
        if feed.lanes != lanes {
            tracing::warn!(
                feed = name,
                lanes,
                config = feed.lanes,
                "the feed has had another number of lanes since its first start; it keeps it"
            );
            feed.lanes = lanes;
        }
        let zone = jiff::tz::TimeZone::get(&feed.time_zone).with_context(|| format!("find the time zone of feeds.{name}.time_zone"))?;
        feeds.push(Arc::new(Feed { id, name: name.clone(), config: feed, zone }));
    }
    Ok(feeds)
}

/// Waits for a future at most so long; says what did not come.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = Result<T, store::Error>>) -> Option<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::warn!(what, error = %Chain(&error), "the store did not answer");
            None
        }
        Err(_) => {
            tracing::warn!(what, "the store did not answer in time");
            None
        }
    }
}
