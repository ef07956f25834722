//! The store as the rest of the house sees it: every verb is a whole transaction, judged by the store's own clock.
//! Knows no SQL; `store/postgres` and `store/sqlite` are the only modules that do.

pub mod actions;
pub mod awaited;
pub mod changes;
mod config;
pub mod deliveries;
pub mod headers;
pub mod ledger;
mod messages;
pub mod migrations;
mod outputs;
pub mod overview;
mod plugins;
pub mod postgres;
pub mod sqlite;
pub mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::message::{FeedId, KeyHash, Message, NewMessage, Place, Position, Status};
use crate::plugin::{Binding, Cause, Output, Request, Write};

pub use actions::{
    ActionKind, ActionResult, ActionState, Actions, Applied, Audited, Command, HandledRun, NewRevisit, OpenAction, Pausable, Paused, Pick,
    Selection,
};
pub use config::{Config, masked};
pub use deliveries::{Account, Answer, By, Deliveries, Delivery, Done, Ordered, Tended};
pub use ledger::{Equation, Ledger};
pub use messages::{Count, Filter, MessageDetail, MessageStatus, Messages};
pub use outputs::{OutputCursor, OutputRow, Outputs, Parked};
pub use overview::{Overview, Overviews};
pub use plugins::{Activation, Component, Plugins};
pub use upkeep::{Duties, Retention, Step, Turn, Upkeep};

/// Whose time decides leases and due times.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The database's (`clock_timestamp()`); SQLite's is this machine's.
    #[default]
    Database,
    /// A test's: milliseconds since 1970.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// The time of a fixed clock.
    pub fn fixed_ms(&self) -> Option<i64> {
        match self {
            Self::Database => None,
            Self::Fixed(ms) => Some(ms.load(Ordering::SeqCst)),
        }
    }
}

/// What a store verb can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or broke off; the verb may or may not have happened.
    #[error("reach the store at {place}: {source}")]
    Away {
        place: String,
        #[source]
        source: sqlx::Error,
    },
    /// The database answered with an error that a retry will not mend.
    #[error("{verb} in the store: {source}")]
    Sql {
        verb: &'static str,
        #[source]
        source: sqlx::Error,
    },
    /// The tables are newer than this binary, or older and not migrated.
    #[error("use the store: its schema is at version {found}, this binary knows {known}; {advice}")]
    Schema { found: i64, known: i64, advice: &'static str },
    /// SQLite serves one host.
    #[error("open {path}: host {other} already runs on it; stop it first, or use PostgreSQL for several hosts")]
    InUse { path: String, other: String },
    /// The URL or a setting is wrong.
    #[error("open the store: {0}")]
    Config(String),
    /// What is stored does not make sense.
    #[error("read the store: {0}")]
    Corrupt(String),
}

impl Error {
    /// Whether waiting and trying again can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything a store does.
pub trait Store:
    Schema
    + Leases
    + Inbox
    + Work
    + Reads
    + Settlements
    + Outputs
    + Plugins
    + Messages
    + Actions
    + Deliveries
    + Duties
    + Upkeep
    + Overviews
    + Ledger
    + Send
    + Sync
{
}
impl<T> Store for T where
    T: Schema
        + Leases
        + Inbox
        + Work
        + Reads
        + Settlements
        + Outputs
        + Plugins
        + Messages
        + Actions
        + Deliveries
        + Duties
        + Upkeep
        + Overviews
        + Ledger
        + Send
        + Sync
{
}

/// The event id of an output: the same however often the output is sent.
pub fn event_id(message: Uuid, run: i32, ordinal: i32) -> Uuid {
    Uuid::new_v5(&message, format!("{run}/{ordinal}").as_bytes())
}

/// Opens the store that a URL names. Does not migrate.
pub async fn open(config: &Config, clock: Clock) -> Result<Arc<dyn Store>> {
    match config.url.split(':').next().unwrap_or_default() {
        "postgres" | "postgresql" => Ok(Arc::new(postgres::open(config, clock).await?)),
        "sqlite" => Ok(Arc::new(sqlite::Sqlite::open(config, clock).await?)),
        scheme => Err(Error::Config(format!("store.url starts with \"{scheme}:\"; it must start with \"sqlite:\" or \"postgres:\""))),
    }
}

// ---------------------------------------------------------------- schema

/// The tables and their versions, which stand in the table `schema_version (version, name, applied_ms)`.
#[async_trait]
pub trait Schema {
    /// Applies what is missing, forward only; returns the names of what was applied. Safe to call from many hosts at once.
    async fn migrate(&self) -> Result<Vec<String>>;
    /// The version of the tables (0: none) and the newest this binary knows.
    async fn schema_version(&self) -> Result<(i64, i64)>;
    /// One row with the database's product and version, for `doctor`.
    async fn about(&self) -> Result<String>;
    /// The store's time in milliseconds since 1970.
    async fn now_ms(&self) -> Result<i64>;
    /// The installation's secret that ids are derived from; made at the first call, the same ever after.
    async fn secret(&self) -> Result<[u8; 32]>;
}

// ---------------------------------------------------------------- leases

/// A host's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its id, new at each start.
    pub id: Uuid,
    /// Its number, never given twice: the high half of its batch numbers.
    pub number: i32,
}

/// What a host wants to own: all feeds and targets of its config.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Feeds.
    pub feeds: Vec<FeedId>,
    /// Targets.
    pub targets: Vec<String>,
}

/// What a host owns, whole, after a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Feeds it ingests, with their epochs.
    pub feeds: Vec<(FeedId, i64)>,
    /// Lanes it translates.
    pub lanes: Vec<LaneLease>,
    /// Targets it publishes.
    pub targets: Vec<TargetLease>,
}

/// An owned lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLease {
    /// The feed.
    pub feed: FeedId,
    /// The lane.
    pub lane: i32,
    /// Raised by every change of owner; a settlement with another one is fenced.
    pub epoch: i64,
    /// Every row up to this number is done or has a row in `work`.
    pub cursor: i64,
    /// The number of its last row: nothing above it was in the hands of an owner before.
    pub tail: i64,
    /// Owners that died since it was last calm.
    pub crashes: i32,
}

/// An owned target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetLease {
    /// The target.
    pub target: String,
    /// Raised by every change of owner.
    pub epoch: i64,
    /// Where publishing goes on.
    pub cursor: OutputCursor,
    /// Whether the last owner did not let go by itself: its last sends may still be under way.
    pub taken_over: bool,
}

/// Hosts, and who owns what. One lease per host, renewed alone.
#[async_trait]
pub trait Leases {
    /// Registers feeds (name, lanes) and targets, making what is missing; returns the feeds' numbers in the order given.
    /// The number of lanes of a known feed stays as it was; it is returned.
    async fn register(&self, feeds: &[(String, u16)], targets: &[String]) -> Result<Vec<(FeedId, u16)>>;
    /// Registers a host and starts its lease. SQLite refuses while another host lives. Tables of another version are refused.
    async fn join(&self, name: &str, lease_ms: u64) -> Result<Host>;
    /// Prolongs the lease; false: it had expired and somebody may have taken over, so join again.
    async fn renew(&self, host: &Host, lease_ms: u64) -> Result<bool>;
    /// Takes what is wanted and free, or owned by an expired host, up to a fair share among living hosts that want it, and gives back what
    /// is above that share or not wanted any more; PostgreSQL terminates the expired hosts' connections first. Returns all that the host
    /// now owns, nothing if its lease is over.
    async fn claim(&self, host: &Host, wanted: &Wanted) -> Result<Owned>;
    /// Gives everything back and removes the host. Nothing of it may be under way any more.
    async fn leave(&self, host: &Host) -> Result<()>;
    /// The same for a host whose lease ran out while its process lived: sends may be under way, and its lanes were not left by a crash.
    async fn abandon(&self, host: &Host) -> Result<()>;
    /// A number that changes whenever something changes its owner, a host joins or a lease runs out: a cheap hint to claim now.
    async fn ownership(&self) -> Result<i64>;
    /// Says that these lanes are calm: what the owners that died may have had in hand has been through its plugins, and the host lives.
    async fn calm(&self, host: &Host, lanes: &[(FeedId, i32)]) -> Result<()>;
    /// Gives back the lanes of one feed (its plugin cannot be loaded here).
    async fn release_lanes(&self, host: &Host, feed: FeedId) -> Result<()>;
}

// ---------------------------------------------------------------- inbox

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Rows and positions are committed; the number of rows marked as duplicates.
    Done { duplicates: usize },
    /// The feed has another owner, or a position is not the expected one: re-read it.
    Fenced,
}

/// A partition's step in one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The partition.
    pub partition: i32,
    /// The position before; a first append of a partition expects `None`.
    pub expected: Option<i64>,
    /// The position after: the last offset of the batch plus one.
    pub next_offset: i64,
}

/// Messages on their way in.
#[async_trait]
pub trait Inbox {
    /// The committed positions of a feed.
    async fn positions(&self, feed: FeedId) -> Result<Vec<Position>>;
    /// Appends a batch: rows, lane tails, dedupe hashes and fenced positions in one transaction. Numbers are given per lane in the
    /// order of `rows`. A row whose dedupe hash is known (or stands twice in `rows`) is stored as `Ignored`, code `duplicate`.
    async fn append(&self, feed: FeedId, epoch: i64, rows: &[NewMessage], advances: &[Advance]) -> Result<Appended>;
    /// New rows of lanes: for each lane at most `rows_per_lane_max` rows numbered above `after`, gapless and in order; cut so that all
    /// together hold at most about `bytes_max` bytes, but at least one row where there is one.
    async fn fetch(&self, lanes: &[LaneRead], rows_per_lane_max: i64, bytes_max: i64) -> Result<Vec<Message>>;
}

/// Where reading of a lane goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRead {
    /// The feed.
    pub feed: FeedId,
    /// The lane.
    pub lane: i32,
    /// Rows with a greater number are new.
    pub after: i64,
}

// ---------------------------------------------------------------- work

/// A row of `work`: a message that the cursor has passed unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkRow {
    /// Which message.
    pub place: Place,
    /// 0, or the number of the replay.
    pub run: i32,
    /// Its ordering key.
    pub key_hash: KeyHash,
    /// `Pending` (due, or running under the lane's owner when it has no due time), `Retry`, `Waiting`, `Behind`, `Held`, `Failed`, `Stopped`.
    pub status: Status,
    /// Whether later messages of the key are held back by this row (the feed's policy, applied).
    pub blocks: bool,
    /// Tries that ended in retry or in a wait's time-out.
    pub attempts: i32,
    /// When it is to be tried, milliseconds since 1970; `None`: by itself never. Only the head of a key has one.
    pub due_ms: Option<i64>,
    /// Why the next try will happen.
    pub cause: Cause,
    /// When its waiting began, milliseconds since 1970.
    pub waiting_since_ms: Option<i64>,
    /// A stable code.
    pub code: String,
    /// A sentence for people.
    pub reason: String,
    /// The plugin that judged it last.
    pub activation: Option<i64>,
    /// The activation that a replay was told to run with.
    pub pinned: Option<i64>,
    /// The requests it waits for (`Entry`, `Entries`, `KnownId`, `KeyOf`), or that bring its next try forward; replaced with the row. A row
    /// that is woken becomes `Pending`, due now, cause `Woken`, and waits for nothing any more.
    pub waits: Vec<Request>,
}

/// A work row with its message.
#[derive(Clone, Debug)]
pub struct WorkMessage {
    /// The work row (`waits` empty).
    pub row: WorkRow,
    /// The message.
    pub message: Message,
}

/// A key that may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockedKey {
    /// The feed.
    pub feed: FeedId,
    /// The lane.
    pub lane: i32,
    /// The key.
    pub key_hash: KeyHash,
}

/// Messages the cursor has passed.
#[async_trait]
pub trait Work {
    /// The keys of these lanes that have a blocking row.
    async fn blocked(&self, lanes: &[(FeedId, i32)]) -> Result<Vec<BlockedKey>>;
    /// Rows of these lanes that are due, oldest due first, but for those the caller already has in hand; at most `rows_max`, about
    /// `bytes_max`, at least one where there is one.
    async fn due(&self, lanes: &[(FeedId, i32)], in_hand: &[Place], rows_max: i64, bytes_max: i64) -> Result<Vec<WorkMessage>>;
    /// A new owner's first step: `Pending` rows without a due time were running under the owner before; they become due now.
    async fn resume(&self, lanes: &[(FeedId, i32)]) -> Result<u64>;
    /// The rows of these messages that are still in `work`, in the order of their places.
    async fn rows(&self, places: &[Place]) -> Result<Vec<WorkMessage>>;
    /// When the next row of these lanes is due, milliseconds since 1970.
    async fn next_due_ms(&self, lanes: &[(FeedId, i32)]) -> Result<Option<i64>>;
    /// Rows of one key numbered above `after`, in order, whatever their status: what may follow a head that is done.
    async fn behind(&self, key: BlockedKey, after: i64, rows_max: i64) -> Result<Vec<WorkMessage>>;
}

// ---------------------------------------------------------------- reads

/// What the store holds for some requests, all as of one settlement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every settlement up to this one is visible, none after it.
    pub at: i64,
    /// A found value per request, in order.
    pub found: Vec<Found>,
}

/// What was found for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// For `Entry`.
    Entry(Option<Bytes>),
    /// For `Entries`.
    Page { items: Vec<(String, Bytes)>, more: bool },
    /// For `Id` and `KnownId`: the stored id.
    Id(Option<Uuid>),
    /// For `KeyOf`.
    Key(Option<String>),
}

/// Entries and ids.
#[async_trait]
pub trait Reads {
    /// Answers many requests as of one settlement, one query per kind. `Call` is a caller's bug and gives `Error::Corrupt`.
    async fn read(&self, requests: &[Request]) -> Result<Snapshot>;
}

// ---------------------------------------------------------------- settlements

/// What a host finished, in the order in which it finished.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    /// The lanes touched: the fence, and where their cursors go.
    pub lanes: Vec<LaneStep>,
    /// What became of the messages, in the order of serialisation.
    pub settled: Vec<Settled>,
    /// Which plugins handled which stretch of a lane.
    pub ranges: Vec<Range>,
    /// What became of operators' actions.
    pub actions: Vec<Applied>,
    /// Revisits that handled messages ask for; they become actions of their own.
    pub revisits: Vec<NewRevisit>,
}

/// A lane in a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStep {
    /// The feed.
    pub feed: FeedId,
    /// The lane.
    pub lane: i32,
    /// The owner's epoch.
    pub epoch: i64,
    /// The cursor afterwards; not below what it is.
    pub cursor: i64,
}

/// What became of one message.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Which message.
    pub place: Place,
    /// 0, or the number of the replay.
    pub run: i32,
    /// uuid5 of (topic, partition, offset).
    pub id: Uuid,
    /// Its ordering key.
    pub key_hash: KeyHash,
    /// Everything it read, answers and waits included, with the settlement each was read at.
    pub reads: Vec<Read>,
    /// The plugin that made its outputs; they carry it as provenance.
    pub activation: Option<i64>,
    /// What goes out.
    pub outputs: Vec<Output>,
    /// What the plugin remembers. Writes of equal bytes and indexes change nothing.
    pub writes: Vec<Write>,
    /// Ids it was given or bound: stored unless they are. The host has checked them against its reads.
    pub bindings: Vec<Binding>,
    /// The row that stays in `work`, or `None`: the message is done and leaves it.
    pub work: Option<WorkRow>,
    /// Whether it had a row in `work` before.
    pub had_work: bool,
    /// The end of the message; `None` while it stays in `work`, and for one that was handled at its first attempt without a note.
    pub end: Option<End>,
    /// Its answers, compressed, where the feed keeps them.
    pub answers: Option<Bytes>,
    /// When the message was received, milliseconds since 1970: the age of what it writes. A replay (`run` above 0) does not overwrite an
    /// entry that a message received later wrote.
    pub received_ms: i64,
    /// The number of the delivery it is a part of.
    pub delivery: Option<i64>,
    /// Whether older messages of its key that are still in `work` are dropped with it, as `Ignored`, code `superseded` (newest-wins).
    pub drops_older: bool,
}

impl Settled {
    /// A message of run 0 that is done at its first attempt, without anything read, written or published.
    pub fn of(message: &Message) -> Self {
        Self {
            place: message.place,
            run: 0,
            id: message.id,
            key_hash: message.key_hash,
            reads: Vec::new(),
            activation: None,
            outputs: Vec::new(),
            writes: Vec::new(),
            bindings: Vec::new(),
            work: None,
            had_work: false,
            end: None,
            answers: None,
            received_ms: message.received_ms,
            delivery: message.delivery,
            drops_older: false,
        }
    }
}

/// A read that a settlement depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What was read (never a `Call`).
    pub request: Request,
    /// As of this settlement. Stale where a later one wrote what the request covers, absences and scans included.
    pub at: i64,
}

/// An outcome row: for everything that was not simply handled at its first attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// `Handled`, `Ignored`, `Invalid`, `Failed`, `Finished`.
    pub status: Status,
    /// A stable code.
    pub code: String,
    /// A sentence for people.
    pub reason: String,
    /// Tries before this one.
    pub attempts: i32,
    /// The plugin that judged it.
    pub activation: Option<i64>,
    /// `now` of the attempt.
    pub now_ms: i64,
}

/// Provenance of a stretch of a lane: rows `from..=to` that left at this settlement without an outcome row were handled by the activation
/// of their table at `now_ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The feed.
    pub feed: FeedId,
    /// The lane.
    pub lane: i32,
    /// The first row.
    pub from: i64,
    /// The last row.
    pub to: i64,
    /// `now` of these attempts.
    pub now_ms: i64,
    /// Tables and activations.
    pub activations: Vec<(Arc<str>, i64)>,
}

/// What became of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Committed under this number; of the keys whose blocking rows left, these are still blocked. Their next row, if it was behind,
    /// is pending and due now; so is a row that came to stand behind one that is gone already.
    Committed { settlement: i64, still_blocked: Vec<BlockedKey>, woken: usize },
    /// Nothing happened: these lanes have another owner.
    Fenced(Vec<(FeedId, i32)>),
    /// Nothing happened: what these messages (indexes into `settled`) read was written since, or an id or key they bind is bound otherwise.
    Stale(Vec<Stale>),
}

/// Why a message must run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Index into `settled`.
    pub index: usize,
    /// Index into its `reads`; `None`: a binding conflicts with a stored one.
    pub read: Option<usize>,
}

/// The one place where results become true.
#[async_trait]
pub trait Settlements {
    /// One transaction: outputs in bulk, the guard row last (it gives the number), the fence, validation, then entries, ids, waits and wakes,
    /// work, cursors, provenance. `batch` is new for every call.
    async fn settle(&self, host: &Host, batch: i64, settlement: &Settlement) -> Result<Verdict>;
    /// Whether a batch was committed: for an ambiguous commit.
    async fn settled(&self, batch: i64) -> Result<Option<i64>>;
}
