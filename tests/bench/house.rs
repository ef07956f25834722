//! Our side of each pair: a fresh store with the benchmark's translator active, and the host's own loops run over it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tolk::config::HostConfig;
use tolk::endpoint::Endpoints;
use tolk::feed::SourceConfig;
use tolk::ingest::{Ended, Ingest};
use tolk::plugin::Digest;
use tolk::registry::{self, Registry};
use tolk::runtime::{Config as RuntimeConfig, Runtime};
use tolk::source::{self, Source};
use tolk::store::{self, Activation, Clock, Host, Owned, Store, Wanted};
use tolk::translate::engine::{Counts, Engine, Parts};
use tolk::translate::run::Feed;

use crate::report::{note, rate};

/// Longer than any run: leases are not what is measured.
const LEASE_MS: u64 = 3_600_000;

/// CPU time of this process so far, as the system counts it: by hundredths of a second.
fn process_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time are the 14th and 15th fields; two stand before the closing parenthesis.
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

/// The translator, and the engine it runs in.
pub struct Guest {
    pub component: Vec<u8>,
    pub runtime: Arc<Runtime>,
}

impl Guest {
    pub fn new(component: Vec<u8>) -> Self {
        Self { component, runtime: Runtime::new(&RuntimeConfig::default()).unwrap() }
    }
}

/// A host over a fresh store.
pub struct House {
    pub store: Arc<dyn Store>,
    pub registry: Arc<Registry>,
    pub feed: Arc<Feed>,
    runtime: Arc<Runtime>,
    host: Host,
    owned: Owned,
    secret: [u8; 32],
}

impl House {
    /// Makes the tables, activates the translator and takes every lane.
    pub async fn open(config: &store::Config, guest: &Guest) -> Self {
        let store = store::open(config, Clock::Database).await.unwrap();
        store.migrate().await.unwrap();
        let settings: tolk::feed::Config = serde_json::from_value(json!({
            "source": { "kind": "file", "path": "messages.jsonl" },
            "table": ["/table"],
            "key": ["/after/ITEM_ID"],
        }))
        .unwrap();
        let known = store.register(&[("shop".to_owned(), settings.lanes)], &["out".to_owned()]).await.unwrap();
        let feed = Feed { id: known[0].0, name: "shop".to_owned(), config: settings, zone: jiff::tz::TimeZone::UTC };
        registry::push(&*store, &guest.runtime, &guest.component, "bench").await.unwrap();
        let activation = Activation {
            id: 0,
            feed: "shop".to_owned(),
            table: "*".to_owned(),
            digest: Digest::of(&guest.component),
            config: String::new(),
            at_ms: 0,
            by: "bench".to_owned(),
            why: "to be measured".to_owned(),
        };
        registry::activate(&*store, &activation).await.unwrap();
        let registry = Arc::new(Registry::open(store.clone(), guest.runtime.clone(), BTreeMap::new()).await.unwrap());
        assert!(registry.snapshot().find("shop", "SHOP.ITEM").is_some(), "the translator is active");
        let (host, owned) = join(&*store, &feed).await;
        let secret = store.secret().await.unwrap();
        Self { store, registry, feed: Arc::new(feed), runtime: guest.runtime.clone(), host, owned, secret }
    }

    /// Leaves and joins as another host: each loop that settles has the batch numbers of a host of its own.
    pub async fn again(&mut self) {
        self.store.leave(&self.host).await.unwrap();
        (self.host, self.owned) = join(&*self.store, &self.feed).await;
    }

    /// Takes a source in, to its end.
    pub async fn ingest(&self, source: Box<dyn Source>) -> Duration {
        let ingest = self.ingesting(Arc::default());
        let started = Instant::now();
        let ended = tokio::spawn(async move { ingest.run(source, CancellationToken::new()).await }).await.unwrap().unwrap();
        let took = started.elapsed();
        assert_eq!(ended, Ended::SourceEnded);
        took
    }

    /// Takes a source in and translates it, side by side, until so many messages are settled.
    pub async fn flow(&self, source: Box<dyn Source>, count: usize) -> Duration {
        let appended = Arc::<Notify>::default();
        let ingest = self.ingesting(appended.clone());
        let translator = self.translator().await;
        let (started, used) = (Instant::now(), process_cpu());
        let ingesting = tokio::spawn(async move { ingest.run(source, CancellationToken::new()).await });
        let counts = tokio::spawn(translator.settle(appended, count)).await.unwrap();
        let took = started.elapsed();
        assert_eq!(ingesting.await.unwrap().unwrap(), Ended::SourceEnded);
        tell("flow", count, took, used, &counts);
        took
    }

    /// Translates what the store asks for, until so many messages are settled.
    pub async fn settle(&self, count: usize) -> Duration {
        let translator = self.translator().await;
        let (started, used) = (Instant::now(), process_cpu());
        let counts = tokio::spawn(translator.settle(Arc::default(), count)).await.unwrap();
        let took = started.elapsed();
        tell("replay", count, took, used, &counts);
        took
    }

    /// The host's own loop, which owns every lane.
    async fn translator(&self) -> Translator {
        let counts = Arc::<Counts>::default();
        let settings = HostConfig::default();
        let mut engine = Engine::new(Parts {
            store: self.store.clone(),
            runtime: self.runtime.clone(),
            registry: self.registry.clone(),
            caller: Arc::new(Endpoints::new(&BTreeMap::new()).unwrap()),
            feeds: vec![self.feed.clone()],
            host: self.host.clone(),
            secret: self.secret,
            settle_messages_max: settings.settle_messages_max,
            settle_every: Duration::from_millis(settings.settle_every_ms),
            memory_bytes_max: settings.memory_bytes_max,
            actions_every: Duration::from_millis(settings.poll_ms),
            pauses: Arc::default(),
            settled: watch::Sender::default(),
            counts: counts.clone(),
        });
        engine.own(&self.owned.lanes).await.unwrap();
        Translator { engine, counts, poll: Duration::from_millis(settings.poll_ms) }
    }

    fn ingesting(&self, appended: Arc<Notify>) -> Ingest {
        let epoch = self.owned.feeds.iter().find(|(feed, _)| *feed == self.feed.id).unwrap().1;
        Ingest {
            name: self.feed.name.clone(),
            feed: self.feed.id,
            epoch,
            config: self.feed.config.clone(),
            store: self.store.clone(),
            appended,
            count: Arc::default(),
        }
    }
}

/// Joins and takes every lane.
async fn join(store: &dyn Store, feed: &Feed) -> (Host, Owned) {
    let host = store.join("bench", LEASE_MS).await.unwrap();
    let owned = store.claim(&host, &Wanted { feeds: vec![feed.id], targets: Vec::new() }).await.unwrap();
    assert_eq!(owned.lanes.len(), usize::from(feed.config.lanes), "the host owns every lane");
    (host, owned)
}

/// The file as a source that ends.
pub fn file(path: &Path) -> Box<dyn Source> {
    let config = SourceConfig::File { path: path.to_owned(), follow: false };
    source::open("shop", &config, &BTreeMap::new()).unwrap()
}

struct Translator {
    engine: Engine,
    counts: Arc<Counts>,
    poll: Duration,
}

impl Translator {
    async fn settle(mut self, appended: Arc<Notify>, count: usize) -> Arc<Counts> {
        while self.counts.messages.load(Ordering::Relaxed) < count as u64 {
            self.engine.turn(&appended, self.poll).await;
            self.engine.report().await.unwrap();
        }
        self.counts
    }
}

fn tell(what: &str, count: usize, took: Duration, used: Duration, counts: &Counts) {
    let cpu_us = (process_cpu() - used).as_secs_f64() * 1e6 / count as f64;
    let settlements = counts.settlements.load(Ordering::Relaxed);
    note(&format!("  {what}: {:.0}/s, {cpu_us:.1} µs of the host's CPU a message, {settlements} settlements", rate(count, took)));
}
