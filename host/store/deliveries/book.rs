//! What the verbs of deliveries decide, once for both stores: a store lends its rows under a transaction, and writes what is told.
//! Knows no SQL.

use std::collections::HashMap;

use super::{Answer, By, Delivery, Done, Ordered};
use crate::delivery::judge::{self, UNKNOWN, Verdict};
use crate::delivery::{DELIVERIES, Kind, Rules, State, Told, entry_key};
use crate::message::{FeedId, NewMessage, Prejudged, Status};
use crate::plugin::Write;

/// The rows of deliveries as a transaction sees and locks them.
pub(in crate::store) trait Book: Send {
    /// What can go wrong.
    type Error: Send;
    /// Those of a feed with these ids.
    fn by_ids(&mut self, feed: FeedId, ids: &[&str]) -> impl Future<Output = Result<Vec<Delivery>, Self::Error>> + Send;
    /// One by its number, or the number of its order.
    fn by_number(&mut self, number: i64) -> impl Future<Output = Result<Option<Delivery>, Self::Error>> + Send;
    /// Those of a feed in these states, oldest first.
    fn in_states(&mut self, feed: FeedId, states: &[State]) -> impl Future<Output = Result<Vec<Delivery>, Self::Error>> + Send;
    /// Stores a new one; its number.
    fn insert(&mut self, delivery: &Delivery) -> impl Future<Output = Result<i64, Self::Error>> + Send;
    /// Stores a changed one.
    fn save(&mut self, delivery: &Delivery) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Takes away an order that another delivery took over.
    fn remove(&mut self, number: i64) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Adds a line to the audit trail: what a person asked of a delivery, and how many parts it is about.
    fn audit(
        &mut self,
        number: i64,
        kind: &'static str,
        at_ms: i64,
        by: &By,
        parts: i64,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// The judged rows of an append.
#[derive(Debug, Default)]
pub(in crate::store) struct Judged {
    /// What is said of a row before any plugin sees it, by its index.
    pub(in crate::store) prejudged: HashMap<usize, Prejudged>,
    /// The delivery that a row is a part of, by its index.
    pub(in crate::store) delivery: HashMap<usize, i64>,
    /// What deliveries tell their parts: entries to be written.
    pub(in crate::store) told: Vec<Write>,
}

impl Judged {
    /// What is said of a row: by its delivery, or before.
    pub(in crate::store) fn prejudged<'j>(&'j self, index: usize, row: &'j NewMessage) -> Option<&'j Prejudged> {
        self.prejudged.get(&index).or(row.prejudged.as_ref())
    }
}

/// What a message is to its delivery, and the partition that carried it.
type OfPartition = (Kind, i32);

/// Judges the marks and parts of a batch, but for rows that do not count (duplicates).
pub(in crate::store) async fn judge<B: Book>(
    book: &mut B,
    feed: FeedId,
    rows: &[NewMessage],
    counts: impl Fn(usize) -> bool,
    now_ms: i64,
) -> Result<Judged, B::Error> {
    let mut judged = Judged::default();
    let mut order: Vec<&str> = Vec::new();
    let mut by_id: HashMap<&str, Vec<(usize, OfPartition)>> = HashMap::new();
    let mut rules = None;
    for (index, row) in rows.iter().enumerate() {
        let Some(piece) = row.delivery.as_ref().filter(|_| counts(index) && row.prejudged.is_none()) else { continue };
        rules.get_or_insert(piece.rules);
        let of_id = by_id.entry(&piece.id).or_insert_with(|| {
            order.push(&piece.id);
            Vec::new()
        });
        of_id.push((index, (piece.kind, row.captured.partition)));
    }
    let Some(rules) = rules else { return Ok(judged) };
    // Always in the same order: two transactions never wait for each other.
    order.sort_unstable();
    let known = book.by_ids(feed, &order).await?;
    let mut known: HashMap<String, Delivery> = known.into_iter().filter_map(|row| Some((row.id.clone()?, row))).collect();
    let mut in_flight = None;
    for id in order {
        let pieces = &by_id[id];
        let mut delivery = match known.remove(id) {
            Some(delivery) => delivery,
            None => {
                let in_flight = match in_flight {
                    Some(known) => known,
                    None if rules.ordered_only => *in_flight.insert(is_in_flight(book, feed).await?),
                    None => false,
                };
                if rules.ordered_only && !in_flight {
                    let unknown = Prejudged { status: Status::Ignored, code: UNKNOWN.to_owned(), reason: unknown(id) };
                    judged.prejudged.extend(pieces.iter().map(|(index, _)| (*index, unknown.clone())));
                    continue;
                }
                let state = if rules.ordered_only { State::Unbound } else { State::Open };
                let mut fresh = Delivery { id: Some(id.to_owned()), ..Delivery::new(feed, state, now_ms) };
                fresh.number = book.insert(&fresh).await?;
                fresh
            }
        };
        let before = delivery.clone();
        let taken: Vec<OfPartition> = pieces.iter().map(|(_, piece)| *piece).collect();
        let verdicts = delivery.tally.take(&rules, &taken, now_ms);
        for ((index, _), verdict) in pieces.iter().zip(verdicts) {
            match said(&delivery, verdict) {
                Some(prejudged) => _ = judged.prejudged.insert(*index, prejudged),
                None => _ = judged.delivery.insert(*index, delivery.number),
            }
        }
        close(&before, &mut delivery, &mut judged.told);
        if delivery != before {
            book.save(&delivery).await?;
        }
    }
    Ok(judged)
}

async fn is_in_flight<B: Book>(book: &mut B, feed: FeedId) -> Result<bool, B::Error> {
    Ok(!book.in_states(feed, &[State::Requested, State::Calling, State::Unclear]).await?.is_empty())
}

fn unknown(id: &str) -> String {
    format!("nobody ordered the delivery \"{id}\"")
}

/// What is said of a mark or part; `None`: a part like any other.
fn said(delivery: &Delivery, verdict: Verdict) -> Option<Prejudged> {
    let number = delivery.number;
    let (status, code, reason) = match verdict {
        Verdict::Part => return None,
        Verdict::Start => (Status::Handled, "delivery-start".to_owned(), format!("the start of delivery {number}")),
        Verdict::End => (Status::Handled, "delivery-end".to_owned(), format!("the end of delivery {number}")),
        Verdict::Ignored(code) => (Status::Ignored, code, format!("delivery {number} is invalid: {}", delivery.tally.reason)),
        Verdict::Refused => (Status::Invalid, judge::COMPLETE.to_owned(), format!("delivery {number} is complete already, and stays so")),
        Verdict::Violation(code, reason) => (Status::Invalid, code.to_owned(), format!("{reason}: delivery {number} is invalid")),
    };
    Some(Prejudged { status, code, reason })
}

/// What changes around a delivery that is over now: its parts are told, and those that were held are to be let go.
fn close(before: &Delivery, delivery: &mut Delivery, told: &mut Vec<Write>) {
    let is_over = matches!(delivery.tally.state, State::Complete | State::Invalid);
    if !is_over || (before.tally.state == delivery.tally.state && before.params == delivery.params) {
        return;
    }
    delivery.release |= delivery.tally.accepted > 0;
    let tally = &delivery.tally;
    let value = Told {
        id: delivery.id.clone().unwrap_or_default(),
        state: tally.state.as_str().to_owned(),
        params: delivery.params.clone(),
        expected: tally.expected(),
        code: if tally.code == UNKNOWN { UNKNOWN } else { judge::INVALID }.to_owned(),
        reason: tally.reason.clone(),
    };
    told.push(Write {
        collection: DELIVERIES.to_owned(),
        key: entry_key(delivery.feed.0, delivery.number),
        value: Some(serde_json::to_vec(&value).expect("texts and numbers are JSON").into()),
        indexes: Vec::new(),
    });
}

/// Places an order, unless one with equal parameters is not over.
pub(in crate::store) async fn order<B: Book>(
    book: &mut B,
    feed: FeedId,
    params: &[(String, String)],
    by: &By,
    forced: bool,
    now_ms: i64,
) -> Result<Ordered, B::Error> {
    let mut params = params.to_vec();
    params.sort();
    if !forced {
        let open = [State::Requested, State::Calling, State::Unclear, State::Open, State::Started];
        if let Some(other) = book.in_states(feed, &open).await?.into_iter().find(|other| other.params == params && is_ordered(other)) {
            return Ok(Ordered::Open(other.number));
        }
    }
    let mut fresh = Delivery { params, ..Delivery::new(feed, State::Requested, now_ms) };
    fresh.number = book.insert(&fresh).await?;
    book.audit(fresh.number, "order", now_ms, by, 0).await?;
    Ok(Ordered::Placed(fresh.number))
}

/// Whether a person ordered it; else its messages opened it by themselves.
fn is_ordered(delivery: &Delivery) -> bool {
    delivery.tally.state.is_in_flight() || delivery.bound_ms.is_some()
}

/// The next order to call. Whatever is in state `Calling` now was left by somebody who did not come back.
pub(in crate::store) async fn take_order<B: Book>(book: &mut B, feed: FeedId, epoch: i64) -> Result<Option<Delivery>, B::Error> {
    for mut left in book.in_states(feed, &[State::Calling]).await? {
        let reason = "the host stopped while it was ordering; nobody knows whether the order arrived";
        unclear(book, &mut left, reason).await?;
    }
    let Some(mut next) = book.in_states(feed, &[State::Requested]).await?.into_iter().next() else { return Ok(None) };
    next.tally.state = State::Calling;
    next.call_epoch = Some(epoch);
    book.save(&next).await?;
    Ok(Some(next))
}

async fn unclear<B: Book>(book: &mut B, order: &mut Delivery, reason: &str) -> Result<(), B::Error> {
    order.tally.state = State::Unclear;
    (order.tally.code, order.tally.reason) = ("order-unclear".to_owned(), reason.to_owned());
    book.save(order).await
}

/// What came of an order's call: what is to be told, or `None`: it is not being called under this epoch.
pub(in crate::store) async fn answer<B: Book>(
    book: &mut B,
    (number, epoch): (i64, i64),
    answer: &Answer,
    rules: &Rules,
    now_ms: i64,
) -> Result<Option<Vec<Write>>, B::Error> {
    let Some(mut order) = book.by_number(number).await? else { return Ok(None) };
    if order.tally.state != State::Calling || order.call_epoch != Some(epoch) {
        return Ok(None);
    }
    let mut told = Vec::new();
    match answer {
        Answer::Unclear(reason) => unclear(book, &mut order, reason).await?,
        Answer::Refused(reason) => refuse(book, &mut order, "order-refused", reason, now_ms).await?,
        Answer::Bound(id) => bind(book, order.clone(), id, rules, now_ms, &mut told).await?,
    }
    forget_unbound(book, order.feed, now_ms, &mut told).await?;
    Ok(Some(told))
}

async fn refuse<B: Book>(book: &mut B, order: &mut Delivery, code: &str, reason: &str, now_ms: i64) -> Result<(), B::Error> {
    order.tally.state = State::Refused;
    (order.tally.code, order.tally.reason) = (code.to_owned(), reason.to_owned());
    order.tally.closed_ms = Some(now_ms);
    book.save(order).await
}

/// Gives an order its id. Messages that came under that id before keep their delivery's number, which takes the order over.
async fn bind<B: Book>(
    book: &mut B,
    mut order: Delivery,
    id: &str,
    rules: &Rules,
    now_ms: i64,
    told: &mut Vec<Write>,
) -> Result<(), B::Error> {
    match book.by_ids(order.feed, &[id]).await?.pop() {
        None => {
            order.id = Some(id.to_owned());
            order.bound_ms = Some(now_ms);
            (order.tally.state, order.call_epoch) = (State::Open, None);
            (order.tally.code, order.tally.reason) = (String::new(), String::new());
            book.save(&order).await
        }
        Some(mut came) if !is_ordered(&came) && came.order_number.is_none() && came.tally.state != State::Invalid => {
            let before = came.clone();
            came.params = order.params.clone();
            came.order_number = Some(order.number);
            (came.opened_ms, came.bound_ms) = (order.opened_ms, Some(now_ms));
            came.tally.bind(rules, now_ms);
            close(&before, &mut came, told);
            book.save(&came).await?;
            book.remove(order.number).await
        }
        Some(other) => {
            let reason = format!("the answer's id \"{id}\" belongs to delivery {}, which is {}", other.number, other.tally.state);
            refuse(book, &mut order, "delivery-id-known", &reason, now_ms).await
        }
    }
}

/// Once no order is in flight any more, what nobody ordered is unknown.
async fn forget_unbound<B: Book>(book: &mut B, feed: FeedId, now_ms: i64, told: &mut Vec<Write>) -> Result<(), B::Error> {
    if is_in_flight(book, feed).await? {
        return Ok(());
    }
    for mut left in book.in_states(feed, &[State::Unbound]).await? {
        let before = left.clone();
        let reason = unknown(left.id.as_deref().unwrap_or_default());
        left.tally.invalidate(UNKNOWN, reason, now_ms);
        close(&before, &mut left, told);
        book.save(&left).await?;
    }
    Ok(())
}

/// Binds an id by hand to an order that is in flight.
pub(in crate::store) async fn bind_by_hand<B: Book>(
    book: &mut B,
    number: i64,
    id: &str,
    rules: &Rules,
    by: &By,
    now_ms: i64,
) -> Result<(Done, Vec<Write>), B::Error> {
    let Some(order) = book.by_number(number).await? else { return Ok((Done::Unknown, Vec::new())) };
    if order.tally.state != State::Unclear {
        return Ok((Done::Refused(order.tally.state), Vec::new()));
    }
    let (feed, mut told) = (order.feed, Vec::new());
    if let Some(other) = book.by_ids(feed, &[id]).await?.pop().filter(|other| is_ordered(other) || other.tally.state == State::Invalid) {
        return Ok((Done::Refused(other.tally.state), Vec::new()));
    }
    bind(book, order, id, rules, now_ms, &mut told).await?;
    book.audit(number, "bind", now_ms, by, 0).await?;
    forget_unbound(book, feed, now_ms, &mut told).await?;
    Ok((Done::Parts(0), told))
}

/// Makes a delivery invalid by hand, or gives up an order.
pub(in crate::store) async fn invalidate<B: Book>(book: &mut B, number: i64, by: &By, now_ms: i64) -> Result<(Done, Vec<Write>), B::Error> {
    let Some(mut delivery) = book.by_number(number).await? else { return Ok((Done::Unknown, Vec::new())) };
    // An order under way is its host's; a person takes it once that has come back or is gone.
    if delivery.tally.state.is_over() || delivery.tally.state == State::Calling {
        return Ok((Done::Refused(delivery.tally.state), Vec::new()));
    }
    let (before, mut told) = (delivery.clone(), Vec::new());
    delivery.tally.invalidate("invalidated", format!("invalidated by {}: {}", by.whom, by.why), now_ms);
    close(&before, &mut delivery, &mut told);
    book.save(&delivery).await?;
    book.audit(number, "invalidate", now_ms, by, delivery.tally.accepted).await?;
    let parts = u64::try_from(delivery.tally.accepted).unwrap_or_default();
    forget_unbound(book, delivery.feed, now_ms, &mut told).await?;
    Ok((Done::Parts(parts), told))
}

/// Deliveries whose time is up become invalid.
pub(in crate::store) async fn expire<B: Book>(book: &mut B, due: Vec<Delivery>, now_ms: i64) -> Result<Vec<Write>, B::Error> {
    let mut told = Vec::new();
    for mut delivery in due {
        let before = delivery.clone();
        delivery.tally.expire(now_ms);
        close(&before, &mut delivery, &mut told);
        if delivery != before {
            book.save(&delivery).await?;
        }
    }
    Ok(told)
}
