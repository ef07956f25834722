//! One message in hand: its attempt, what it asked and was answered, and what came of it.

use std::sync::Arc;

use crate::feed;
use crate::message::{FeedId, Message, Status};
use crate::plugin::{Answer, Binding, Cause, Context, Outcome, Request};
use crate::registry::Active;
use crate::store::{BlockedKey, Settled, WorkRow};

use super::actions::{Errand, Ordered};
use super::overlay::{Cell, Seen};

/// The number of a message in hand; new for each attempt, so that late answers find nobody.
pub type Seq = u64;

/// A feed as the loop knows it.
pub struct Feed {
    /// Its number.
    pub id: FeedId,
    /// Its name.
    pub name: String,
    /// Its settings.
    pub config: feed::Config,
    /// Its time zone.
    pub zone: jiff::tz::TimeZone,
}

impl Feed {
    /// The offset of the feed's time zone at a time, in seconds east of UTC.
    pub fn utc_offset_s(&self, now_ms: i64) -> i32 {
        jiff::Timestamp::from_millisecond(now_ms).map_or(0, |at| self.zone.to_offset(at).seconds())
    }

    /// The least time between two ends of a key of a table, in milliseconds; 0: none.
    pub fn min_key_interval_ms(&self, table: &str) -> u64 {
        self.config.tables.get(table).and_then(|table| table.min_key_interval_ms).unwrap_or(self.config.min_key_interval_ms)
    }

    /// The policy for a table.
    pub fn policy(&self, table: &str) -> feed::Policy {
        self.config.tables.get(table).and_then(|table| table.policy).unwrap_or(self.config.policy)
    }
}

/// A message in hand on its way through many hands: on the heap, so that it is not copied each time.
pub type InHand = Box<Run>;

/// A message in hand.
pub struct Run {
    /// Its number.
    pub seq: Seq,
    /// The message.
    pub message: Arc<Message>,
    /// Its feed.
    pub feed: Arc<Feed>,
    /// 0, or the number of the replay.
    pub run: i32,
    /// Its row in `work`, if it has one.
    pub row: Option<WorkRow>,
    /// The plugin of this attempt; fixed at round 1.
    pub active: Option<Arc<Active>>,
    /// The registry's revision at round 1.
    pub revision: i64,
    /// What the guest is given; the answers grow round by round.
    pub context: Context,
    /// What was read for it, for validation.
    pub seen: Vec<Seen>,
    /// Answers to what the host itself asked (binding and wait checks).
    pub hidden: Vec<Answer>,
    /// Ids made for it.
    pub derived: Vec<Binding>,
    /// Rounds so far.
    pub rounds: usize,
    /// Requests so far.
    pub needs: usize,
    /// Reads and calls that have not come back.
    pub open: usize,
    /// The guest's last word, while the host still reads for it.
    pub judged: Option<Outcome>,
    /// Whether what it saw was replaced within the settlement that made it true.
    pub stale: bool,
    /// Times its reads were found stale.
    pub conflicts: u32,
    /// How long its attempt took, in milliseconds, once it has ended.
    pub took_ms: i64,
    /// Whether it is with a CPU thread.
    pub running: bool,
    /// What its writes hang on.
    pub cell: Cell,
    /// What an operator asked of it while it is in hand.
    pub ordered: Option<Ordered>,
    /// The action it carries out, where it is a done message that runs again.
    pub errand: Option<Errand>,
    /// The activation it was told to run with.
    pub pinned: Option<i64>,
    /// What it asked to be run again for: the time, and the fingerprints of what it published.
    pub revisit: Option<(i64, String)>,
    /// Whether it is no run at all: only its row is changed.
    pub aside: bool,
}

impl Run {
    /// A fresh attempt of a message.
    pub fn new(seq: Seq, message: Message, feed: Arc<Feed>, run: i32, row: Option<WorkRow>, now_ms: i64) -> InHand {
        let context = context(&feed, row.as_ref(), now_ms);
        let pinned = row.as_ref().and_then(|row| row.pinned);
        Box::new(Self {
            seq,
            message: Arc::new(message),
            feed,
            run,
            row,
            active: None,
            revision: 0,
            context,
            seen: Vec::new(),
            hidden: Vec::new(),
            derived: Vec::new(),
            rounds: 0,
            needs: 0,
            open: 0,
            judged: None,
            stale: false,
            conflicts: 0,
            took_ms: 0,
            running: false,
            cell: Cell::default(),
            ordered: None,
            errand: None,
            pinned,
            revisit: None,
            aside: false,
        })
    }

    /// When its attempt ended, as far as the loop's clock tells: `now` is that of its first round, and calls take their time.
    pub fn ended_ms(&self) -> i64 {
        self.context.now_ms.saturating_add(self.took_ms)
    }

    /// Whether it is a row above its lane's cursor, without one in `work`.
    pub fn is_new(&self) -> bool {
        self.row.is_none() && self.run == 0 && !self.aside
    }

    /// The action that it carries out, or that ends it.
    pub fn action(&self) -> Option<i64> {
        self.errand.as_ref().map(|errand| errand.id).or_else(|| self.ordered.as_ref().map(|ordered| ordered.id))
    }

    /// Its ordering key.
    pub fn key(&self) -> BlockedKey {
        BlockedKey { feed: self.message.place.feed, lane: self.message.place.lane, key_hash: self.message.key_hash }
    }

    /// Tries so far that ended in retry or in a wait's time-out, this one's cause included.
    pub fn attempts(&self) -> i32 {
        self.context.attempt.cast_signed()
    }

    /// Runs again after a conflict: reads are read again, calls are kept, the attempt is the same.
    pub fn again(&mut self, seq: Seq) {
        self.seq = seq;
        self.context.answers.retain(|answer| matches!(answer.request, Request::Call(_)));
        self.seen.clear();
        self.hidden.clear();
        self.context.delivery = None;
        self.derived.clear();
        self.rounds = 0;
        self.needs = 0;
        self.open = 0;
        self.judged = None;
        self.stale = false;
        self.revisit = None;
        self.running = false;
        self.conflicts += 1;
        self.cell = Cell::default();
    }
}

fn context(feed: &Feed, row: Option<&WorkRow>, now_ms: i64) -> Context {
    let Some(row) = row else {
        return Context { now_ms, utc_offset_s: feed.utc_offset_s(now_ms), ..Context::default() };
    };
    // A waiting row that is run by its due time alone has timed out; a woken one is pending.
    let timed_out = row.status == Status::Waiting;
    let attempts = row.attempts + i32::from(timed_out);
    Context {
        now_ms,
        utc_offset_s: feed.utc_offset_s(now_ms),
        attempt: attempts.max(0).cast_unsigned(),
        waited_ms: row.waiting_since_ms.map_or(0, |since| (now_ms - since).max(0).cast_unsigned()),
        cause: if timed_out { Cause::TimedOut } else { row.cause },
        delivery: None,
        answers: Vec::new(),
    }
}

/// A message that is done with for now, on its way into a settlement.
pub struct Finished {
    /// The message in hand, kept in case it must run again.
    pub run: InHand,
    /// What is to be settled (its reads are filled in when the settlement is built).
    pub settled: Settled,
    /// Whether later messages of its key are held back.
    pub blocks: bool,
}

impl Finished {
    /// Whether it is what its key waits for, not one that stands behind.
    pub fn holds_back(&self) -> bool {
        self.blocks && self.settled.work.as_ref().is_some_and(|row| row.status != Status::Behind)
    }
}
