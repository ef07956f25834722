//! One case's host: a store of its own under a clock that stands still, the real ingest, the real translate loop, nothing that runs by
//! itself. Knows no system.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tolk::config::Config;
use tolk::endpoint::Endpoints;
use tolk::ingest::deliveries::Duty;
use tolk::ingest::{Ended, Ingest};
use tolk::message::{Captured, FeedId, Message, Place, Position};
use tolk::registry::Registry;
use tolk::source::{self, Batch, Source};
use tolk::store::actions::SEEN_MS;
use tolk::store::{
    End, Filter, Host, LaneStep, MessageStatus, OutputCursor, OutputRow, Owned, Pausable, Paused, Settled, Settlement, Store, Verdict,
    Wanted, WorkRow,
};
use tolk::translate::engine::{Engine, Intake, Parts};
use tolk::translate::run::Feed;

use crate::bench::{self, Bench};

/// Longer than any case's clock moves.
const LEASE_MS: u64 = 100 * 365 * 24 * 3_600_000;
/// More than any case has.
const ROWS_MAX: i64 = 10_000;
/// Batches settled by hand, apart from the engine's.
const BY_HAND: i64 = 1 << 31;

/// One case's host.
pub struct World {
    /// The store.
    pub store: Arc<dyn Store>,
    config: Config,
    clock: Arc<AtomicI64>,
    feed: Arc<Feed>,
    host: Host,
    owned: Owned,
    engine: Engine,
    caller: Arc<Endpoints>,
    pauses: Arc<ArcSwap<Vec<Paused>>>,
    offset: i64,
    by_hand: i64,
}

/// A record as a source hands it over, once more where it is given again.
#[derive(Clone)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub payload: Option<String>,
}

/// An output as it goes out.
pub struct Sent {
    /// The topic of its target.
    pub topic: String,
    /// The rest.
    pub row: OutputRow,
}

impl World {
    /// Opens a host on a fresh copy of the bench's store.
    pub async fn open(bench: &Bench, now_ms: i64) -> anyhow::Result<Self> {
        let clock = Arc::new(AtomicI64::new(now_ms));
        let (store, config) = bench.open(clock.clone()).await?;
        let feeds: Vec<(String, u16)> = config.feeds.iter().map(|(name, feed)| (name.clone(), feed.lanes)).collect();
        let targets: Vec<String> = config.targets.keys().cloned().collect();
        let known = store.register(&feeds, &targets).await?;
        let ((name, feed), (id, _)) = config.feeds.iter().zip(&known).next().context("the system's config has a feed")?;
        let zone = jiff::tz::TimeZone::get(&feed.time_zone)?;
        let feed = Arc::new(Feed { id: *id, name: name.clone(), config: feed.clone(), zone });
        // Of its own: what is cached in one case is not there in another.
        let caller = bench.endpoints_of(&config.endpoints)?;
        let pauses = Arc::<ArcSwap<Vec<Paused>>>::default();
        let host = store.join("acceptance", LEASE_MS).await?;
        let registry = Registry::open(store.clone(), bench.runtime.clone(), config.limits.clone()).await?;
        if let Some((activation, reason)) = registry.snapshot().broken().first() {
            anyhow::bail!("the plugin of table {} cannot be loaded: {reason}", activation.table);
        }
        let engine = Engine::new(Parts {
            store: store.clone(),
            runtime: bench.runtime.clone(),
            registry: Arc::new(registry),
            caller: caller.clone(),
            feeds: vec![feed.clone()],
            host: host.clone(),
            secret: store.secret().await?,
            settle_messages_max: config.host.settle_messages_max,
            settle_every: Duration::ZERO,
            memory_bytes_max: config.host.memory_bytes_max,
            // Every piece of work asks once, at its start.
            actions_every: Duration::from_secs(3_600),
            pauses: pauses.clone(),
            settled: watch::channel(0).0,
            counts: Arc::default(),
        });
        let wanted = Wanted { feeds: vec![feed.id], targets };
        let owned = store.claim(&host, &wanted).await?;
        ensure!(owned.feeds.len() == 1 && owned.lanes.len() == usize::from(feed.config.lanes), "the only host owns everything");
        Ok(Self { store, config, clock, feed, host, owned, engine, caller, pauses, offset: 0, by_hand: 0 })
    }

    /// Lets go of everything and removes the copy.
    pub async fn close(self, bench: &Bench) -> anyhow::Result<()> {
        let Self { store, config, engine, host, .. } = self;
        drop(engine);
        store.leave(&host).await?;
        drop(store);
        bench.close(&config).await
    }

    /// The case's time, milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Moves the case's clock.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.clock.store(now_ms, Ordering::SeqCst);
    }

    /// The offset of the feed's time zone, for local times.
    pub fn zone(&self) -> &jiff::tz::TimeZone {
        &self.feed.zone
    }

    /// Takes one record in by the real ingest; where it stands.
    pub async fn append(&mut self, key: Option<String>, payload: Option<String>) -> anyhow::Result<Place> {
        let record = self.record(key, payload);
        let offset = record.offset;
        self.append_all(vec![record]).await?;
        let filter = Filter { at: Some((0, offset)), limit: 1, ..Filter::default() };
        let found = self.store.captured(&filter).await?;
        Ok(found.first().context("what was taken in is in the inbox")?.0.place)
    }

    /// A record at the next offset.
    pub fn record(&mut self, key: Option<String>, payload: Option<String>) -> Record {
        self.offset += 1;
        Record { offset: self.offset - 1, key, payload }
    }

    /// Takes records in together, by the real ingest, from where the store says that it stands.
    pub async fn append_all(&self, records: Vec<Record>) -> anyhow::Result<()> {
        let captured = records.into_iter().map(|record| Captured {
            partition: 0,
            offset: record.offset,
            key: record.key.map(Into::into),
            payload: record.payload.map(Into::into),
            headers: Vec::new(),
            timestamp_ms: Some(self.now_ms()),
        });
        let (feed, epoch) = self.owned.feeds[0];
        let ingest = Ingest {
            name: self.feed.name.clone(),
            feed,
            epoch,
            config: self.feed.config.clone(),
            store: self.store.clone(),
            appended: Arc::default(),
            count: Arc::default(),
        };
        let ended = ingest.run(Box::new(Once(captured.collect())), CancellationToken::new()).await?;
        ensure!(ended == Ended::SourceEnded, "the records are taken in, but ingest ended as {ended:?}");
        Ok(())
    }

    /// Every message with its status, in the order of arrival.
    pub async fn rows(&self) -> anyhow::Result<Vec<(Message, MessageStatus)>> {
        let filter = Filter { limit: ROWS_MAX, oldest_first: true, ..Filter::default() };
        let mut rows = self.store.captured(&filter).await?;
        rows.sort_by_key(|(message, _)| message.captured.offset);
        Ok(rows)
    }

    /// Settles a message without the engine, as if it had come to this earlier. Only before `start`.
    pub async fn settle(&mut self, message: &Message, work: Option<WorkRow>, end: Option<End>) -> anyhow::Result<()> {
        let place = message.place;
        let lane = self.owned.lanes.iter().find(|lane| (lane.feed, lane.lane) == (place.feed, place.lane));
        let epoch = lane.context("the host owns every lane")?.epoch;
        let settled = Settled { work, end, ..Settled::of(message) };
        let step = LaneStep { feed: place.feed, lane: place.lane, epoch, cursor: place.n };
        let settlement = Settlement { lanes: vec![step], settled: vec![settled], ..Settlement::default() };
        self.by_hand += 1;
        let batch = (i64::from(self.host.number) << 32) | (BY_HAND + self.by_hand);
        match self.store.settle(&self.host, batch, &settlement).await? {
            Verdict::Committed { .. } => Ok(()),
            other => anyhow::bail!("an earlier message could not be settled: {other:?}"),
        }
    }

    /// The engine takes the lanes as they are now.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let wanted = Wanted { feeds: vec![self.feed.id], targets: self.config.targets.keys().cloned().collect() };
        self.owned = self.store.claim(&self.host, &wanted).await?;
        self.engine.own(&self.owned.lanes).await?;
        Ok(())
    }

    /// Translates what is new; what is due stays.
    pub async fn run_new(&mut self) -> anyhow::Result<()> {
        Ok(self.engine.work(Intake::New).await?)
    }

    /// Translates what is new and what is due.
    pub async fn run_due(&mut self) -> anyhow::Result<()> {
        Ok(self.engine.work(Intake::All).await?)
    }

    /// Pauses a table, or resumes it: what is ordered to run meanwhile stays where it is.
    pub async fn pause(&self, table: &str, paused: bool) -> anyhow::Result<()> {
        let of = Pausable::Table { feed: self.feed.name.clone(), table: table.to_owned() };
        match paused {
            true => self.store.pause(&of, "acceptance", "nothing runs between the steps of a case").await?,
            false => {
                let resumed = self.store.resume_paused(&of, "acceptance", "the case runs").await?;
                // What was paused is due once every host has seen that it is not any more.
                if resumed {
                    self.set_now_ms(self.now_ms() + SEEN_MS);
                }
                resumed
            }
        };
        self.pauses.store(Arc::new(self.store.pauses().await?));
        Ok(())
    }

    /// Messages that a worker may take now, but for those that others hold: what is due.
    pub async fn free(&self, held: &[Place], rows_max: usize) -> anyhow::Result<Vec<Place>> {
        let lanes: Vec<_> = self.owned.lanes.iter().map(|lane| (lane.feed, lane.lane)).collect();
        let due = self.store.due(&lanes, held, i64::try_from(rows_max).unwrap_or(ROWS_MAX).min(ROWS_MAX), i64::MAX).await?;
        Ok(due.into_iter().map(|work| work.row.place).collect())
    }

    /// The feed's number.
    pub fn feed_id(&self) -> FeedId {
        self.feed.id
    }

    /// The epoch under which this host has the feed.
    pub fn feed_epoch(&self) -> i64 {
        self.owned.feeds[0].1
    }

    /// After so many tries a message is failed.
    pub fn attempts_max(&self) -> u32 {
        self.feed.config.retry.attempts_max
    }

    /// The host's config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The settings of the feed's deliveries.
    pub fn delivery_config(&self) -> anyhow::Result<&tolk::delivery::Config> {
        self.feed.config.delivery.as_ref().context("the feed has deliveries")
    }

    /// What the feed's owner does for its deliveries.
    pub fn duty(&self) -> anyhow::Result<Duty> {
        Ok(Duty {
            name: self.feed.name.clone(),
            feed: self.feed.id,
            epoch: self.feed_epoch(),
            config: self.delivery_config()?.clone(),
            store: self.store.clone(),
            caller: self.caller.clone(),
            released: Arc::default(),
        })
    }

    /// Lets go what is held of deliveries that are over.
    pub async fn tend(&self) -> anyhow::Result<()> {
        let duty = self.duty()?;
        while duty.tend().await?.context("the feed is this host's")?.more {}
        Ok(())
    }

    /// Answers what operators ask, and runs nothing that is not new.
    pub async fn settle_actions(&mut self) -> anyhow::Result<()> {
        self.run_new().await
    }

    /// The offset that is read next, and the one after the last record.
    pub async fn position(&self) -> anyhow::Result<(i64, i64)> {
        let positions = self.store.positions(self.feed.id).await?;
        Ok((positions.first().map_or(0, |at| at.next_offset), self.offset))
    }

    /// Makes the store refuse rows of the inbox, or take them again.
    pub async fn break_inbox(&self, broken: bool) -> anyhow::Result<()> {
        bench::break_inbox(&self.config.store, broken).await
    }

    /// Translates this message, due or not.
    pub async fn run_again(&mut self, place: Place) -> anyhow::Result<()> {
        Ok(self.engine.work(Intake::Rows(vec![place])).await?)
    }

    /// Every output in the order in which it goes out.
    pub async fn sent(&self) -> anyhow::Result<Vec<Sent>> {
        let mut sent = Vec::new();
        for (target, config) in &self.config.targets {
            let topic = match config {
                tolk::sink::Config::Kafka { topic, .. } => topic.clone(),
                tolk::sink::Config::File { path, .. } => path.display().to_string(),
            };
            let from = OutputCursor { settlement: 0, index: -1 };
            let (rows, _) = self.store.outputs(target, from, ROWS_MAX, i64::MAX).await?;
            sent.extend(rows.into_iter().map(|row| Sent { topic: topic.clone(), row }));
        }
        sent.sort_by_key(|sent| sent.row.cursor);
        Ok(sent)
    }
}

/// A source that hands over its records at once and ends.
struct Once(Vec<Captured>);

#[async_trait]
impl Source for Once {
    fn name(&self) -> &str {
        "acceptance"
    }

    async fn open(&mut self, _positions: &[Position]) -> Result<(), source::Error> {
        Ok(())
    }

    async fn next(&mut self, _rows_max: usize, _bytes_max: usize) -> Result<Batch, source::Error> {
        Ok(Batch { ended: true, messages: std::mem::take(&mut self.0) })
    }

    fn committed(&mut self, _positions: &[Position]) {}
}
