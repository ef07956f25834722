//! What the cases stand on: a fresh store with a clock that stands still, and an owner of one feed's lanes.
//! Knows the databases only to open them and to damage them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tolk::message::{Captured, FeedId, KeyHash, Message, NewMessage, Place, Status};
use tolk::plugin::{Action, Binding, Cause, Output, Request, Scan, Write};
use tolk::store::{
    Advance, Appended, Clock, Config, End, Host, LaneRead, LaneStep, Owned, Range, Read, Settled, Settlement, Store, Verdict, Wanted,
    WorkRow, open,
};

/// Where the clock of every case starts, milliseconds since 1970.
pub const START_MS: i64 = 1_700_000_000_000;
/// How long the leases of the cases last.
pub const LEASE_MS: u64 = 10_000;
/// The lanes of the feed of the cases.
pub const LANES: u16 = 4;

/// A fresh store of one case.
pub struct Rig {
    pub config: Config,
    pub store: Arc<dyn Store>,
    now: Arc<AtomicI64>,
    _folder: Option<tempfile::TempDir>,
}

impl Rig {
    /// A migrated SQLite database in a folder of its own.
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tolk.db").display());
        Self::open(Config { url, ..blank() }, Some(folder)).await
    }

    /// A migrated schema of its own in the tests' PostgreSQL.
    pub async fn postgres() -> Self {
        let url = tokio::task::spawn_blocking(crate::support::postgres_url).await.unwrap().to_owned();
        let schema = format!("case_{}", uuid::Uuid::new_v4().simple());
        Self::open(Config { url, schema, connections_max: 3, ..blank() }, None).await
    }

    async fn open(config: Config, folder: Option<tempfile::TempDir>) -> Self {
        let now = Arc::new(AtomicI64::new(START_MS));
        let store = open(&config, Clock::Fixed(now.clone())).await.unwrap();
        store.migrate().await.unwrap();
        Self { config, store, now, _folder: folder }
    }

    /// Whether the case runs on PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        self.config.url.starts_with("postgres")
    }

    /// Another door onto the same database, as another process would open it.
    pub async fn door(&self) -> Arc<dyn Store> {
        open(&self.config, Clock::Fixed(self.now.clone())).await.unwrap()
    }

    /// Lets time pass.
    pub fn pass_ms(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    /// The time that every door of this case sees.
    pub fn now_ms(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    /// Runs a statement behind the store's back; `{schema}` stands for the schema and its dot.
    pub async fn execute(&self, sql: &str) {
        self.try_execute(sql).await.unwrap();
    }

    /// As [`Rig::execute`]; the number of rows, or the database's error.
    pub async fn try_execute(&self, sql: &str) -> Result<u64, String> {
        let prefix = if self.is_postgres() { format!("\"{}\".", self.config.schema) } else { String::new() };
        let sql = sqlx::AssertSqlSafe(sql.replace("{schema}", &prefix));
        let done = if self.is_postgres() {
            let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&self.config.url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.map(|done| done.rows_affected())
        } else {
            let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&self.config.url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.map(|done| done.rows_affected())
        };
        done.map_err(|error| error.to_string())
    }

    /// An owner of everything there is: the feed `arena` with four lanes, the targets `a` and `b`.
    pub async fn owner(&self) -> Owner {
        Owner::new(self.store.clone()).await
    }
}

fn blank() -> Config {
    Config { url: String::new(), schema: "tolk".to_owned(), connections_max: 4, statement_timeout_ms: 60_000 }
}

/// A host that owns the lanes of one feed.
pub struct Owner {
    pub store: Arc<dyn Store>,
    pub host: Host,
    pub feed: FeedId,
    pub owned: Owned,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    batch: i64,
    cursors: BTreeMap<i32, i64>,
}

impl Owner {
    /// Joins and claims everything.
    pub async fn new(store: Arc<dyn Store>) -> Self {
        let targets = ["a".to_owned(), "b".to_owned()];
        let feed = store.register(&[("arena".to_owned(), LANES)], &targets).await.unwrap()[0].0;
        let host = store.join("case", LEASE_MS).await.unwrap();
        let wanted = Wanted { feeds: vec![feed], targets: targets.to_vec() };
        let owned = store.claim(&host, &wanted).await.unwrap();
        let cursors = owned.lanes.iter().map(|lane| (lane.lane, lane.cursor)).collect();
        Self { store, host, feed, owned, state: Mutex::new(State { batch: 0, cursors }) }
    }

    /// What the owner wants: everything.
    pub fn wanted(&self) -> Wanted {
        Wanted { feeds: vec![self.feed], targets: vec!["a".to_owned(), "b".to_owned()] }
    }

    /// The epoch of a lane.
    pub fn epoch(&self, lane: i32) -> i64 {
        self.owned.lanes.iter().find(|lease| lease.lane == lane).unwrap().epoch
    }

    /// The epoch of the feed's ingest.
    pub fn feed_epoch(&self) -> i64 {
        self.owned.feeds[0].1
    }

    /// The epoch of a target.
    pub fn target_epoch(&self, target: &str) -> i64 {
        self.owned.targets.iter().find(|lease| lease.target == target).unwrap().epoch
    }

    /// All lanes of the feed.
    pub fn lanes(&self) -> Vec<(FeedId, i32)> {
        (0..i32::from(LANES)).map(|lane| (self.feed, lane)).collect()
    }

    /// Appends rows at the positions that the store holds; the number of duplicates.
    pub async fn append(&self, rows: &[NewMessage]) -> usize {
        let known = self.store.positions(self.feed).await.unwrap();
        let mut advances = BTreeMap::<i32, Advance>::new();
        for row in rows {
            let partition = row.captured.partition;
            let expected = known.iter().find(|position| position.partition == partition).map(|position| position.next_offset);
            advances.entry(partition).or_insert(Advance { partition, expected, next_offset: 0 }).next_offset = row.captured.offset + 1;
        }
        let advances: Vec<_> = advances.into_values().collect();
        match self.store.append(self.feed, self.feed_epoch(), rows, &advances).await.unwrap() {
            Appended::Done { duplicates } => duplicates,
            Appended::Fenced => panic!("the append was fenced"),
        }
    }

    /// Every row of the inbox, lane by lane.
    pub async fn fetch(&self) -> Vec<Message> {
        let lanes: Vec<_> = self.lanes().into_iter().map(|(feed, lane)| LaneRead { feed, lane, after: 0 }).collect();
        self.store.fetch(&lanes, 100_000, 1 << 40).await.unwrap()
    }

    /// Appends rows with these keys to lane 0 and returns the messages of the lane.
    pub async fn messages(&self, keys: &[&str]) -> Vec<Message> {
        let first = self.store.positions(self.feed).await.unwrap().first().map_or(0, |position| position.next_offset);
        let rows: Vec<_> = keys.iter().zip(first..).map(|(key, offset)| row(0, offset, key)).collect();
        self.append(&rows).await;
        let lanes = [LaneRead { feed: self.feed, lane: 0, after: 0 }];
        let mut all = self.store.fetch(&lanes, 100_000, 1 << 40).await.unwrap();
        all.split_off(all.len() - keys.len())
    }

    /// A settlement of these messages that moves the cursors of their lanes.
    pub fn settlement(&self, settled: Vec<Settled>) -> Settlement {
        let mut state = self.state.lock().unwrap();
        let mut lanes = BTreeMap::new();
        for done in &settled {
            let cursor = state.cursors.entry(done.place.lane).or_default();
            *cursor = done.place.n.max(*cursor);
            lanes.insert(done.place.lane, *cursor);
        }
        let step = |(lane, cursor)| LaneStep { feed: self.feed, lane, epoch: self.epoch(lane), cursor };
        Settlement { lanes: lanes.into_iter().map(step).collect(), settled, ..Settlement::default() }
    }

    /// A number for a batch that no call had before.
    pub fn next_batch(&self) -> i64 {
        let mut state = self.state.lock().unwrap();
        state.batch += 1;
        (i64::from(self.host.number) << 32) + state.batch
    }

    /// Settles.
    pub async fn settle(&self, settled: Vec<Settled>) -> Verdict {
        let settlement = self.settlement(settled);
        self.store.settle(&self.host, self.next_batch(), &settlement).await.unwrap()
    }

    /// Settles, must succeed, and gives the settlement's number.
    pub async fn commit(&self, settled: Vec<Settled>) -> i64 {
        match self.settle(settled).await {
            Verdict::Committed { settlement, .. } => settlement,
            other => panic!("not committed: {other:?}"),
        }
    }

    /// Settles with one range per message, all by one activation of table `T`.
    pub async fn commit_by(&self, activation: i64, now_ms: i64, settled: Vec<Settled>) -> i64 {
        let range = |done: &Settled| Range {
            feed: done.place.feed,
            lane: done.place.lane,
            from: done.place.n,
            to: done.place.n,
            now_ms,
            activations: vec![(Arc::from("T"), activation)],
        };
        let ranges = settled.iter().map(range).collect();
        let settlement = Settlement { ranges, ..self.settlement(settled) };
        match self.store.settle(&self.host, self.next_batch(), &settlement).await.unwrap() {
            Verdict::Committed { settlement, .. } => settlement,
            other => panic!("not committed: {other:?}"),
        }
    }

    /// The settlement as of which the store is read now.
    pub async fn now_at(&self) -> i64 {
        self.store.read(&[]).await.unwrap().at
    }

    /// A message that does no more than to write these entries.
    pub async fn write(&self, writes: Vec<Write>) -> i64 {
        let message = self.messages(&["writer"]).await.remove(0);
        self.commit(vec![Settled { writes, ..done(&message) }]).await
    }
}

/// A message on its way into table `T`.
pub fn row(lane: i32, offset: i64, key: &str) -> NewMessage {
    NewMessage {
        id: uuid::Uuid::new_v4(),
        lane,
        table: Arc::from("T"),
        ordering_key: Some(Bytes::copy_from_slice(key.as_bytes())),
        key_hash: KeyHash::of("T", key.as_bytes()),
        dedupe: None,
        captured: Captured { partition: 0, offset, payload: Some(Bytes::from_static(b"{}")), ..Captured::default() },
        prejudged: None,
        delivery: None,
    }
}

/// A message that was handled at its first attempt, without reads, outputs or writes.
pub fn done(message: &Message) -> Settled {
    Settled::of(message)
}

/// A message that stays in `work`.
pub fn stays(message: &Message, status: Status, blocks: bool, due_ms: Option<i64>) -> Settled {
    Settled { work: Some(work_row(message, status, blocks, due_ms)), ..done(message) }
}

/// A work row of a message.
pub fn work_row(message: &Message, status: Status, blocks: bool, due_ms: Option<i64>) -> WorkRow {
    WorkRow {
        place: message.place,
        run: 0,
        key_hash: message.key_hash,
        status,
        blocks,
        attempts: 0,
        due_ms,
        cause: Cause::First,
        waiting_since_ms: None,
        code: "a-code".to_owned(),
        reason: "a reason".to_owned(),
        activation: None,
        pinned: None,
        waits: Vec::new(),
    }
}

/// A message that waits, having read what it waits for at `at`.
pub fn waits(message: &Message, on: &[Request], at: i64) -> Settled {
    let mut settled = stays(message, Status::Waiting, true, Some(START_MS + 1_000_000));
    let row = settled.work.as_mut().unwrap();
    row.cause = Cause::TimedOut;
    row.waiting_since_ms = Some(START_MS);
    row.waits = on.to_vec();
    Settled { reads: on.iter().map(|request| Read { request: request.clone(), at }).collect(), ..settled }
}

/// An end with this status.
pub fn end(status: Status, activation: Option<i64>) -> End {
    End { status, code: "a-code".to_owned(), reason: "a reason".to_owned(), attempts: 2, activation, now_ms: START_MS + 5 }
}

/// An output to a target.
pub fn output(target: &str, key: &str, payload: &str) -> Output {
    Output {
        target: target.to_owned(),
        action: Action::Put,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        payload: Some(Bytes::copy_from_slice(payload.as_bytes())),
        ..Output::default()
    }
}

/// A write without indexes.
pub fn put(collection: &str, key: &str, value: &str) -> Write {
    put_indexed(collection, key, value, &[])
}

/// A write with indexes.
pub fn put_indexed(collection: &str, key: &str, value: &str, indexes: &[(&str, &str)]) -> Write {
    Write {
        collection: collection.to_owned(),
        key: key.to_owned(),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        indexes: indexes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    }
}

/// A write that removes.
pub fn remove(collection: &str, key: &str) -> Write {
    Write { collection: collection.to_owned(), key: key.to_owned(), value: None, indexes: Vec::new() }
}

/// A request for an entry.
pub fn entry(collection: &str, key: &str) -> Request {
    Request::Entry { collection: collection.to_owned(), key: key.to_owned() }
}

/// A scan by key.
pub fn by_key(collection: &str, prefix: &str) -> Scan {
    Scan { collection: collection.to_owned(), index: None, prefix: prefix.to_owned(), after: None, limit: 100 }
}

/// A scan by index.
pub fn by_index(collection: &str, index: &str, prefix: &str) -> Scan {
    Scan { index: Some(index.to_owned()), ..by_key(collection, prefix) }
}

/// A binding.
pub fn binding(namespace: &str, key: &str, id: uuid::Uuid) -> Binding {
    Binding { namespace: namespace.to_owned(), key: key.to_owned(), id: id.to_string() }
}

/// The place of a row of a lane.
pub fn place(feed: FeedId, lane: i32, n: i64) -> Place {
    Place { feed, lane, n }
}
