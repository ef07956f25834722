//! A host without its command line: a real store, the real engine and real components, driven step by step under a clock of the test's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;
use tolk::endpoint::{Called, Caller};
use tolk::feed;
use tolk::ingest::deliveries::Duty;
use tolk::ingest::route::Router;
use tolk::message::{Captured, FeedId, Status};
use tolk::plugin::{Call, Digest, Limits, Response};
use tolk::registry::{self, Registry};
use tolk::runtime::{self, Runtime};
use tolk::store::{
    self, Activation, Advance, Appended, Clock, Filter, Host, LaneLease, MessageStatus, OutputCursor, Paused, Store, Wanted,
};
use tolk::translate::engine::{Counts, Engine, Intake, Parts};
use tolk::translate::run::Feed;
use uuid::Uuid;

use super::guests;

/// The one engine of this test process.
pub static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| {
    let compiler = Some(env!("CARGO_BIN_EXE_tolk").into());
    Runtime::new(&runtime::Config { compiler, ..runtime::Config::default() }).expect("the engine starts")
});

/// The time at which a test host begins.
pub const START_MS: i64 = 1_900_000_000_000;

/// What the stubbed endpoint answers, by the call's `item`; what is missing is away.
#[derive(Default)]
pub struct Stub {
    /// Statuses by item.
    pub answers: Mutex<BTreeMap<String, Called>>,
    /// Calls so far.
    pub calls: Mutex<Vec<String>>,
}

#[async_trait]
impl Caller for Stub {
    async fn call(&self, call: &Call, _origin: Uuid) -> Called {
        let item = call.params.first().map(|(_, value)| value.clone()).unwrap_or_default();
        self.calls.lock().unwrap().push(item.clone());
        let away = || Called::Away { reason: "no stub".to_owned(), after_ms: 1_000 };
        self.answers.lock().unwrap().get(&item).cloned().unwrap_or_else(away)
    }
}

/// A response with a status and no body.
pub fn status(status: u16) -> Called {
    Called::Response(Response { status, headers: vec![], body: Bytes::new() })
}

/// A host in hand.
pub struct TestHost {
    pub store: Arc<dyn Store>,
    pub clock: Arc<AtomicI64>,
    pub stub: Arc<Stub>,
    pub counts: Arc<Counts>,
    pub engine: Engine,
    pub registry: Arc<Registry>,
    pub pauses: Arc<ArcSwap<Vec<Paused>>>,
    pub host: Host,
    feed: Arc<Feed>,
    feed_epoch: i64,
    router: Router,
    next_offset: i64,
    _folder: Option<tempfile::TempDir>,
}

impl TestHost {
    /// A host on a fresh SQLite file with the scripted plugin active for every table.
    pub async fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("t.db").display());
        let mut host = Self::on(&url, "tolk", settings).await;
        host._folder = Some(folder);
        host.activate("").await;
        host
    }

    /// A host on a store; migrates it.
    pub async fn on(url: &str, schema: &str, settings: &str) -> Self {
        let clock = Arc::new(AtomicI64::new(START_MS));
        let config: store::Config = toml::from_str(&format!("url = {url:?}\nschema = {schema:?}")).unwrap();
        let store = store::open(&config, Clock::Fixed(clock.clone())).await.unwrap();
        store.migrate().await.unwrap();
        let text = format!(
            "source = {{ kind = \"file\", path = \"none\" }}\ntable = [\"/table\"]\ntable_name = \"t\"\nkey = [\"/key\", \"key\"]\nlanes = 4\n{settings}"
        );
        let config: feed::Config = toml::from_str(&text).unwrap();
        let ids = store.register(&[("f".to_owned(), config.lanes)], &["out".to_owned()]).await.unwrap();
        let router = Router::new(&config, "topic");
        let zone = jiff::tz::TimeZone::get(&config.time_zone).unwrap();
        let feed = Arc::new(Feed { id: ids[0].0, name: "f".to_owned(), config, zone });
        let registry = Arc::new(Registry::open(store.clone(), RUNTIME.clone(), BTreeMap::<String, Limits>::new()).await.unwrap());
        let host = store.join("test", 60_000).await.unwrap();
        let (stub, counts, pauses) = (Arc::new(Stub::default()), Arc::new(Counts::default()), Arc::<ArcSwap<Vec<Paused>>>::default());
        let mut engine = engine(&store, &registry, stub.clone(), &counts, &pauses, &feed, &host).await;
        let (feed_epoch, lanes) = claim(&*store, &host, feed.id).await;
        engine.own(&lanes).await.unwrap();
        Self { store, clock, stub, counts, engine, registry, pauses, host, feed, feed_epoch, router, next_offset: 0, _folder: None }
    }

    /// Pushes the scripted plugin and makes it active for every table, with a config.
    pub async fn activate(&self, config: &str) -> Digest {
        let component = guests::component("tests/guests/scripted");
        let pushed = registry::push(&*self.store, &RUNTIME, &component, "test").await.unwrap();
        let digest: Digest = pushed.digest.parse().unwrap();
        let activation = Activation {
            id: 0,
            feed: "f".to_owned(),
            table: "*".to_owned(),
            digest,
            config: config.to_owned(),
            at_ms: 0,
            by: "test".to_owned(),
            why: String::new(),
        };
        registry::activate(&*self.store, &activation).await.unwrap();
        self.registry.refresh().await.unwrap();
        digest
    }

    /// Puts messages into the inbox, each a script for the plugin.
    pub async fn append(&mut self, scripts: &[Value]) {
        let payloads = scripts.iter().map(|script| Some(script.to_string())).collect();
        self.append_raw(payloads).await;
    }

    /// Puts payloads into the inbox as they stand.
    pub async fn append_raw(&mut self, payloads: Vec<Option<String>>) {
        let captured = payloads.into_iter().map(|payload| {
            self.next_offset += 1;
            Captured {
                offset: self.next_offset - 1,
                payload: payload.map(Bytes::from),
                key: Some(Bytes::from_static(b"k")),
                ..Captured::default()
            }
        });
        let rows: Vec<_> = captured.collect::<Vec<_>>().into_iter().map(|message| self.router.route(message)).collect();
        let before = self.next_offset - rows.len() as i64;
        let advance = Advance { partition: 0, expected: (before > 0).then_some(before), next_offset: self.next_offset };
        let appended = self.store.append(self.feed.id, self.feed_epoch, &rows, &[advance]).await.unwrap();
        assert!(matches!(appended, Appended::Done { .. }));
    }

    /// Puts messages of several partitions into the inbox, in one batch.
    pub async fn append_at(&mut self, messages: &[(i32, Value)]) {
        self.router.set_partitions(0);
        let known = self.store.positions(self.feed.id).await.unwrap();
        let mut advances = BTreeMap::<i32, Advance>::new();
        let rows: Vec<_> = messages
            .iter()
            .map(|(partition, payload)| {
                let (partition, payload) = (*partition, Some(Bytes::from(payload.to_string())));
                let expected = known.iter().find(|at| at.partition == partition).map(|at| at.next_offset);
                let fresh = || Advance { partition, expected, next_offset: expected.unwrap_or(0) };
                let advance = advances.entry(partition).or_insert_with(fresh);
                advance.next_offset += 1;
                self.router.route(Captured { partition, offset: advance.next_offset - 1, payload, ..Captured::default() })
            })
            .collect();
        let advances: Vec<Advance> = advances.into_values().collect();
        let appended = self.store.append(self.feed.id, self.feed_epoch, &rows, &advances).await.unwrap();
        assert!(matches!(appended, Appended::Done { .. }));
    }

    /// What the feed's owner does for its deliveries.
    pub fn duty(&self) -> Duty {
        Duty {
            name: self.feed.name.clone(),
            feed: self.feed.id,
            epoch: self.feed_epoch,
            config: self.feed.config.delivery.clone().expect("the feed has deliveries"),
            store: self.store.clone(),
            caller: self.stub.clone(),
            released: Arc::default(),
        }
    }

    /// The feed.
    pub fn feed(&self) -> FeedId {
        self.feed.id
    }

    /// Works until nothing is left that can go on now.
    pub async fn work(&mut self) {
        self.engine.work(Intake::All).await.unwrap();
    }

    /// Appends and works.
    pub async fn consume(&mut self, scripts: &[Value]) {
        self.append(scripts).await;
        self.work().await;
    }

    /// Moves the clock and works.
    pub async fn later(&mut self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
        self.work().await;
    }

    /// The payloads that were put out, in publish order.
    pub async fn outputs(&self) -> Vec<Value> {
        let (rows, _) = self.store.outputs("out", OutputCursor::default(), 100_000, 1 << 30).await.unwrap();
        rows.iter().map(|row| serde_json::from_slice(row.payload.as_deref().unwrap()).unwrap()).collect()
    }

    /// Statuses in the order of the offsets.
    pub async fn statuses(&self) -> Vec<MessageStatus> {
        let mut all = self.store.messages(&Filter { limit: 100_000, ..Filter::default() }).await.unwrap();
        all.sort_by_key(|message| (message.partition, message.offset));
        all
    }

    /// The status words in the order of the offsets.
    pub async fn words(&self) -> Vec<String> {
        self.statuses().await.into_iter().map(|message| message.status).collect()
    }

    /// How many messages have a status.
    pub async fn count(&self, status: Status) -> usize {
        self.words().await.iter().filter(|word| *word == status.as_str()).count()
    }

    /// The same host with another answerer of calls.
    pub async fn with_caller(mut self, caller: Arc<dyn Caller>) -> Self {
        self.store.leave(&self.host).await.unwrap();
        self.host = self.store.join("test", 60_000).await.unwrap();
        self.engine = engine(&self.store, &self.registry, caller, &self.counts, &self.pauses, &self.feed, &self.host).await;
        let (feed_epoch, lanes) = claim(&*self.store, &self.host, self.feed.id).await;
        self.feed_epoch = feed_epoch;
        self.engine.own(&lanes).await.unwrap();
        self
    }

    /// A second engine that takes everything over, as after a crash: nothing of the first one's memory is left.
    pub async fn crash(&mut self) {
        self.clock.fetch_add(120_000, Ordering::SeqCst);
        // The file's lock goes with the process; here it goes by leaving.
        self.store.leave(&self.host).await.unwrap();
        self.host = self.store.join("test", 60_000).await.unwrap();
        self.engine = engine(&self.store, &self.registry, self.stub.clone(), &self.counts, &self.pauses, &self.feed, &self.host).await;
        let (feed_epoch, lanes) = claim(&*self.store, &self.host, self.feed.id).await;
        self.feed_epoch = feed_epoch;
        self.engine.own(&lanes).await.unwrap();
    }
}

async fn engine(
    store: &Arc<dyn Store>,
    registry: &Arc<Registry>,
    caller: Arc<dyn Caller>,
    counts: &Arc<Counts>,
    pauses: &Arc<ArcSwap<Vec<Paused>>>,
    feed: &Arc<Feed>,
    host: &Host,
) -> Engine {
    Engine::new(Parts {
        store: store.clone(),
        runtime: RUNTIME.clone(),
        registry: registry.clone(),
        caller,
        feeds: vec![feed.clone()],
        host: host.clone(),
        secret: store.secret().await.unwrap(),
        settle_messages_max: 1_000,
        settle_every: Duration::from_millis(5),
        memory_bytes_max: 64 << 20,
        actions_every: Duration::from_secs(3_600),
        pauses: pauses.clone(),
        settled: watch::Sender::new(0),
        counts: counts.clone(),
    })
}

async fn claim(store: &dyn Store, host: &Host, feed: FeedId) -> (i64, Vec<LaneLease>) {
    let owned = store.claim(host, &Wanted { feeds: vec![feed], targets: vec!["out".to_owned()] }).await.unwrap();
    (owned.feeds[0].1, owned.lanes)
}
