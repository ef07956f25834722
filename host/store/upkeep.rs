//! Duties that one host at a time does, and the verbs of upkeep: old messages are dropped, what nobody needs any more is pruned.
//! Knows no SQL, and nothing of when upkeep is done.

use async_trait::async_trait;

use super::{Host, Result};
use crate::delivery::State;
use crate::message::Status;

/// A turn at a duty: what its owner shows with every verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The duty.
    pub duty: String,
    /// The turn's number; a later one fences it.
    pub number: i64,
    /// The time that it was due at, milliseconds since 1970. No other turn has it.
    pub due_ms: i64,
    /// How long the turn lasts without a sign of life.
    pub lease_ms: i64,
}

/// Duties of which there is one for all hosts.
#[async_trait]
pub trait Duties {
    /// Takes the turn of a duty whose time has come and that nobody is at; its next time is the next multiple of `every_ms`. Each due time is
    /// given out once: the rest of a turn whose host died is left for the next one.
    async fn take_turn(&self, host: &Host, duty: &str, every_ms: i64, lease_ms: i64) -> Result<Option<Turn>>;
    /// Ends a turn, so that the next one need not wait for its lease.
    async fn end_turn(&self, turn: &Turn) -> Result<()>;
}

/// What is kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long messages are kept that nobody needs any more, in milliseconds.
    pub payload_ms: i64,
    /// How long messages with these ends are kept, where that is longer.
    pub statuses_ms: Vec<(Status, i64)>,
    /// How long published outputs are kept.
    pub outputs_ms: i64,
    /// Rows of one step at most.
    pub rows_max: i64,
}

impl Retention {
    /// Codes and times of the statuses that are kept longer than the rest.
    pub(in crate::store) fn statuses(&self) -> (Vec<i16>, Vec<i64>) {
        self.statuses_ms.iter().filter(|(_, ms)| *ms > self.payload_ms).map(|(status, ms)| (status.code(), *ms)).unzip()
    }
}

/// The codes of the states in which a delivery needs its parts.
pub(in crate::store) fn open_deliveries() -> Vec<i16> {
    State::ALL.into_iter().filter(|state| !state.is_over()).map(State::code).collect()
}

/// What one step of upkeep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Messages dropped.
    pub dropped: i64,
    /// Messages put aside because they are still needed.
    pub kept: i64,
    /// Other rows pruned, or pages given back.
    pub pruned: i64,
    /// Whether another step should follow at once.
    pub more: bool,
}

impl Step {
    /// Adds what another step did.
    pub fn add(&mut self, step: Self) {
        self.dropped += step.dropped;
        self.kept += step.kept;
        self.pruned += step.pruned;
        self.more = step.more;
    }

    /// What a step's transaction is called where it commits: `verb` if it did something, so that a test can meet it there.
    pub(in crate::store) fn called(&self, verb: &'static str) -> &'static str {
        if *self == Self::default() { "look for upkeep" } else { verb }
    }
}

/// Upkeep in steps, each a whole transaction that may be broken off and done again. `None`: another host has taken over the duty. Every step
/// prolongs its turn.
#[async_trait]
pub trait Upkeep {
    /// Closes the part of the inbox that ingest fills once it is `part_ms` old, and opens the next. SQLite has no parts.
    async fn begin_part(&self, turn: &Turn, part_ms: i64) -> Result<Option<Step>>;
    /// One step towards dropping the messages that are old enough. Kept are: what no translator has finished, what has a row in `work`, an open
    /// action or an output that was refused, parts of deliveries that are not over, and ends that are kept longer.
    async fn drop_messages(&self, turn: &Turn, retention: &Retention) -> Result<Option<Step>>;
    /// Prunes outputs that are published and old enough, and settlements of which nothing is left.
    async fn prune_outputs(&self, turn: &Turn, retention: &Retention) -> Result<Option<Step>>;
    /// Prunes what told of messages that are dropped: ends, answers, ranges, actions that are done. The audit trail stays.
    async fn prune_provenance(&self, turn: &Turn, rows_max: i64) -> Result<Option<Step>>;
    /// Gives back space. PostgreSQL does so by itself.
    async fn compact(&self, turn: &Turn) -> Result<Option<Step>>;
    /// Until when messages have been dropped, milliseconds since 1970: of those received before, only what was needed is left. `None`: none has.
    async fn dropped_until(&self) -> Result<Option<i64>>;
}
