//! The store's verbs for deliveries, and their rows. What the verbs decide is the same on both stores and stands in `deliveries/book.rs`.

pub(in crate::store) mod book;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;

use super::{Audited, Result};
use crate::delivery::judge::Tally;
use crate::delivery::{Rules, State};
use crate::message::FeedId;

/// A delivery's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number; 0 before it is stored.
    pub number: i64,
    /// The feed.
    pub feed: FeedId,
    /// Its id; `None` while nobody knows it.
    pub id: Option<String>,
    /// The number under which it was ordered, where its messages came before the order's answer.
    pub order_number: Option<i64>,
    /// The parameters it was ordered with, sorted.
    pub params: Vec<(String, String)>,
    /// State, marks and counts.
    pub tally: Tally,
    /// Whether rows of `work` are still held although it is over.
    pub release: bool,
    /// The feed's epoch under which its order is being called.
    pub call_epoch: Option<i64>,
    /// When it was ordered, or first seen, milliseconds since 1970.
    pub opened_ms: i64,
    /// When its id was bound to its order.
    pub bound_ms: Option<i64>,
}

impl Delivery {
    /// A delivery that is opened now.
    pub fn new(feed: FeedId, state: State, now_ms: i64) -> Self {
        Self {
            number: 0,
            feed,
            id: None,
            order_number: None,
            params: Vec::new(),
            tally: Tally::new(state),
            release: false,
            call_epoch: None,
            opened_ms: now_ms,
            bound_ms: None,
        }
    }
}

/// The parts of a delivery by what became of them. Everything but `expected` is counted in rows of its own kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// How many parts it should have, as far as known.
    pub expected: Option<i64>,
    /// Parts accepted.
    pub accepted: i64,
    /// Translated.
    pub handled: i64,
    /// Closed by an operator.
    pub finished: i64,
    /// Set aside by an operator.
    pub stopped: i64,
    /// A person must decide.
    pub failed: i64,
    /// Wrong by themselves.
    pub invalid: i64,
    /// Ignored, by a translator or because the delivery is invalid.
    pub ignored: i64,
    /// Dropped after their time, whatever their end was.
    pub dropped: i64,
    /// Everything that goes on by itself: pending, held, waiting, retry, behind.
    pub open: i64,
    /// The same by status.
    pub by_status: BTreeMap<String, i64>,
}

impl Account {
    /// The account of counts by status word.
    pub fn of(tally: &Tally, by_status: BTreeMap<String, i64>) -> Self {
        let count = |word: &str| by_status.get(word).copied().unwrap_or_default();
        Self {
            expected: tally.expected(),
            accepted: tally.accepted,
            handled: count("handled"),
            finished: count("finished"),
            stopped: count("stopped"),
            failed: count("failed"),
            invalid: count("invalid"),
            ignored: count("ignored"),
            dropped: count("dropped"),
            open: ["pending", "held", "waiting", "retry", "behind"].into_iter().map(count).sum(),
            by_status,
        }
    }

    /// Whether every accepted part is somewhere, and none twice.
    pub fn adds_up(&self) -> bool {
        self.handled + self.finished + self.stopped + self.failed + self.invalid + self.ignored + self.dropped + self.open == self.accepted
    }
}

/// Who does something to a delivery, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// By whom.
    pub whom: String,
    /// Why.
    pub why: String,
}

/// What the audit trail calls a delivery.
pub(in crate::store) fn object(number: i64) -> String {
    format!("delivery {number}")
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// Its row is written; the owner of the feed makes the call.
    Placed(i64),
    /// Refused: an order with the same parameters is open under this number.
    Open(i64),
}

/// What came of an order's call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The id, as it is kept.
    Bound(String),
    /// The order was not taken.
    Refused(String),
    /// Nobody knows whether it arrived.
    Unclear(String),
}

/// What became of something a person asked of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Done, for so many parts.
    Parts(u64),
    /// Its state does not allow it.
    Refused(State),
    /// There is no such delivery.
    Unknown,
}

/// What a feed's owner did for its deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Deliveries whose time was up.
    pub expired: usize,
    /// Held parts let go.
    pub released: u64,
    /// Whether more are to be let go.
    pub more: bool,
    /// Orders that nobody knows whether they arrived.
    pub unclear: usize,
}

/// Deliveries. Marks and parts are judged by `Inbox::append`.
#[async_trait]
pub trait Deliveries {
    /// Those of a feed, newest order first.
    async fn deliveries(&self, feed: FeedId, limit: i64) -> Result<Vec<Delivery>>;
    /// One by its number, or the number of its order.
    async fn delivery(&self, number: i64) -> Result<Option<Delivery>>;
    /// One by its id.
    async fn delivery_by_id(&self, feed: FeedId, id: &str) -> Result<Option<Delivery>>;
    /// What became of its parts.
    async fn delivery_account(&self, number: i64) -> Result<Option<Account>>;
    /// Parts of deliveries of a feed that a person must decide on.
    async fn delivery_failures(&self, feed: FeedId) -> Result<i64>;
    /// What people asked of it, oldest first: its lines of the audit trail.
    async fn delivery_audit(&self, number: i64) -> Result<Vec<Audited>>;

    /// Places an order: one row, in state `Requested`. Refused while one with equal parameters is not over, unless forced.
    async fn order_delivery(&self, feed: FeedId, params: &[(String, String)], by: &By, forced: bool) -> Result<Ordered>;
    /// Binds an id by hand to an order in flight: for one whose call is unclear.
    async fn bind_delivery(&self, number: i64, id: &str, rules: &Rules, by: &By) -> Result<Done>;
    /// Makes it invalid as a whole, or gives up its order. Refused for one that is over.
    async fn invalidate_delivery(&self, number: i64, by: &By) -> Result<Done>;

    /// Asks the owners of its open parts to stop them; how many.
    async fn stop_delivery(&self, number: i64, by: &By) -> Result<Done>;
    /// Asks the owners of its failed parts to begin anew, attempts from 0; how many.
    async fn rerun_delivery(&self, number: i64, by: &By) -> Result<Done>;

    /// The next order to call, now `Calling` under the feed's epoch. Orders left in that state by an earlier owner, or by this one before,
    /// become `Unclear`. `None`: nothing to do, or fenced.
    async fn take_order(&self, feed: FeedId, epoch: i64) -> Result<Option<Delivery>>;
    /// What came of its call. False: fenced, or it is not being called any more.
    async fn answer_order(&self, feed: FeedId, epoch: i64, number: i64, answer: &Answer, rules: &Rules) -> Result<bool>;
    /// The owner's duty: deliveries whose time is up become invalid, and held parts of those that are over are let go, at most `rows_max`.
    /// `None`: fenced.
    async fn tend_deliveries(&self, feed: FeedId, epoch: i64, rows_max: i64) -> Result<Option<Tended>>;
}
