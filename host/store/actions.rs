//! What operators ask of messages, feeds, tables and endpoints. All of it is rows: the owner of a message's lane applies what is asked of it
//! inside its settlements, so that people, SQL and running messages cannot race. Knows nothing of how actions are applied.

use std::hash::Hash;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use super::{Filter, Result, WorkRow};
use crate::message::{FeedId, Map, Message, Place, Status};

/// What is asked of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionKind {
    /// Try it now; a failed or stopped one counts its attempts anew, a done one runs again unless a newer one of its key was handled.
    Retry,
    /// As retry, with attempts counted anew whatever it was; nothing to do for one that is pending.
    Restart,
    /// Close it as `Ignored`; later ones of its key go on.
    Ignore,
    /// Set it aside as `Stopped`: not now. Holds back its key as the feed's policy says.
    Stop,
    /// Close it as `Finished`: counts as done, is not replayed.
    Finish,
    /// Run a done one again, as a new run with outputs of its own.
    Replay,
    /// The translator asked to be run again at this time; only what changed is published. Never asked for by people.
    Revisit,
}

impl ActionKind {
    /// Every kind, in the order of their codes.
    pub const ALL: [Self; 7] = [Self::Retry, Self::Restart, Self::Ignore, Self::Stop, Self::Finish, Self::Replay, Self::Revisit];

    /// The word a person sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Restart => "restart",
            Self::Ignore => "ignore",
            Self::Stop => "stop",
            Self::Finish => "finish",
            Self::Replay => "replay",
            Self::Revisit => "revisit",
        }
    }

    /// The number the stores keep.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The kind of a stored number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What became of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionResult {
    /// It was done; of a run: the message's new status says how the run ended.
    Applied,
    /// The message was already as asked, or is closed.
    Already,
    /// There was nothing to do.
    NotNeeded,
    /// A newer message of its key was handled: running this one would bring back what is old.
    Superseded,
    /// The message's state does not allow it.
    Refused,
}

impl ActionResult {
    /// Every result, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::Applied, Self::Already, Self::NotNeeded, Self::Superseded, Self::Refused];

    /// The word a person sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Already => "already",
            Self::NotNeeded => "not-needed",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
        }
    }

    /// The number the stores keep.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The result of a stored number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }
}

/// Which of the chosen messages are taken, and what comes along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// Each one; a newer handled message of a key supersedes.
    #[default]
    Each,
    /// The newest chosen message of each key.
    NewestOfKey,
    /// All messages of a chosen key from the first chosen one to now, in order.
    AllOfKey,
}

/// What one command of a person asks for.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its number for the audit trail, new for each command.
    pub id: Uuid,
    /// What is asked.
    pub kind: ActionKind,
    /// Who asks.
    pub by: String,
    /// Why.
    pub why: String,
    /// What it is asked of, in words, for the audit trail.
    pub object: String,
    /// Run again even where a newer message of the key was handled.
    pub force: bool,
    /// Run with this activation in place of the active one.
    pub pinned: Option<i64>,
    /// At most so many messages a second; `None`: all at once.
    pub per_second: Option<u32>,
    /// Which of the chosen messages.
    pub pick: Pick,
}

/// Which messages a command is about.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These, by id.
    Ids(Vec<Uuid>),
    /// Those of a filter; a limit of 0 is none.
    Filter(Box<Filter>),
}

/// An action that waits for the owner of its message's lane.
#[derive(Clone, Debug)]
pub struct OpenAction {
    /// Its number.
    pub id: i64,
    /// What is asked.
    pub kind: ActionKind,
    /// Whether a newer handled message of the key does not matter.
    pub force: bool,
    /// The activation to run with.
    pub pinned: Option<i64>,
    /// What the asker left for the run: fingerprints of what was published, for a revisit.
    pub detail: Option<String>,
    /// Why, for outcomes.
    pub why: Arc<str>,
    /// The message.
    pub message: Message,
    /// Its row in `work`, of its highest run.
    pub row: Option<Box<WorkRow>>,
    /// The end of its highest run. None for one that was simply handled at its first, or is not done.
    pub last: Option<(i32, Status)>,
    /// Whether a run of it that is simply handled needs no outcome: the action takes its provenance ([`Applied::handled`]).
    pub plain: bool,
    /// Whether the lane's cursor has passed it.
    pub passed: bool,
    /// The number of a later message of its key that was handled (above the action's own horizon). Looked for only where the message is done
    /// and the action would run it again.
    pub superseded_by: Option<i64>,
}

/// What a settlement says of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The action.
    pub id: i64,
    /// What became of it.
    pub result: ActionResult,
    /// The message's status afterwards.
    pub became: Status,
    /// The run it led to, where that was simply handled and has no outcome of its own.
    pub handled: Option<HandledRun>,
}

/// A run of a done message that was simply handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandledRun {
    /// Its number.
    pub run: i32,
    /// What it was translated with.
    pub activation: i64,
    /// The message's `now`, milliseconds since 1970.
    pub now_ms: i64,
}

/// A revisit that a handled message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRevisit {
    /// The message.
    pub place: Place,
    /// When, milliseconds since 1970.
    pub due_ms: i64,
    /// Fingerprints of what the message has published by now.
    pub detail: String,
}

/// An action as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActionState {
    /// The action.
    pub id: i64,
    /// The message.
    pub message: Uuid,
    /// The feed's name.
    pub feed: String,
    /// What was asked.
    pub kind: ActionKind,
    /// When it may be applied, milliseconds since 1970.
    pub not_before_ms: i64,
    /// What became of it; `None`: not yet applied.
    pub result: Option<ActionResult>,
    /// The message's status's word after it.
    pub became: Option<String>,
    /// When it was applied.
    pub applied_ms: Option<i64>,
}

/// A line of the audit trail: one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Audited {
    /// The command.
    pub id: Uuid,
    /// What was asked: an [`ActionKind`]'s word, `pause`, `resume`, or what a delivery was told.
    pub kind: String,
    /// Of what.
    pub object: String,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// How many messages.
    pub messages: i64,
    /// How many of them still wait for their owner.
    pub open: i64,
}

/// What can be paused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Pausable {
    /// Nothing of a feed is translated; its messages are still persisted.
    Feed { feed: String },
    /// Nothing of a table.
    Table { feed: String, table: String },
    /// Nobody calls an endpoint: messages that need it park.
    Endpoint { endpoint: String },
}

impl Pausable {
    /// As the stores keep it: what, the feed, the name.
    pub(super) fn columns(&self) -> (&'static str, &str, &str) {
        match self {
            Self::Feed { feed } => ("feed", feed, ""),
            Self::Table { feed, table } => ("table", feed, table),
            Self::Endpoint { endpoint } => ("endpoint", "", endpoint),
        }
    }

    /// From what the stores keep.
    pub(super) fn from_columns(what: &str, feed: String, name: String) -> Option<Self> {
        match what {
            "feed" => Some(Self::Feed { feed }),
            "table" => Some(Self::Table { feed, table: name }),
            "endpoint" => Some(Self::Endpoint { endpoint: name }),
            _ => None,
        }
    }
}

impl std::fmt::Display for Pausable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Feed { feed } => write!(f, "feed {feed}"),
            Self::Table { feed, table } => write!(f, "table {table} of feed {feed}"),
            Self::Endpoint { endpoint } => write!(f, "endpoint {endpoint}"),
        }
    }
}

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paused {
    /// Of what.
    #[serde(flatten)]
    pub of: Pausable,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
}

/// The code of messages that a pause holds.
pub const PAUSED: &str = "paused";
/// The code of messages that need an endpoint that is paused or cannot be reached; their reason begins as [`away_reason`] says.
pub const ENDPOINT_AWAY: &str = "endpoint-away";
/// Hosts read within so many milliseconds that a pause was lifted. What is due before would only park again, for a minute.
pub const SEEN_MS: i64 = 500;

/// How the reason of a message begins that parked for an endpoint.
pub fn away_reason(endpoint: &str) -> String {
    format!("endpoint \"{endpoint}\": ")
}

/// The code of messages that a newer handled one of their key has made needless.
pub const SUPERSEDED: &str = "superseded";

/// Their reason: where the newer one stands in its source.
pub fn superseded_reason(partition: impl std::fmt::Display, offset: impl std::fmt::Display) -> String {
    format!("a newer message of its key was handled: partition {partition}, offset {offset}")
}

/// How many open actions are read of each lane first: where all lanes have some, reading all of each for a page would be far too much.
pub(super) fn share(lanes: usize, rows_max: i64) -> i64 {
    let lanes = i64::try_from(lanes.max(1)).unwrap_or(i64::MAX);
    rows_max / lanes + i64::from(rows_max % lanes != 0)
}

/// How many lanes have all of their share: there may be more of each.
pub(super) fn full_lanes<T, L: Eq + Hash>(page: &[T], lane: impl Fn(&T) -> L, share: i64) -> usize {
    let mut counts: Map<L, i64> = Map::default();
    for one in page {
        *counts.entry(lane(one)).or_default() += 1;
    }
    counts.values().filter(|count| **count >= share).count()
}

/// The first `rows_max` of what stands in order, but so that each lane has its share.
pub(super) fn fair<T, L: Eq + Hash>(all: Vec<T>, lane: impl Fn(&T) -> L, share: i64, rows_max: i64) -> Vec<T> {
    let rows_max = usize::try_from(rows_max).unwrap_or_default();
    if all.len() <= rows_max {
        return all;
    }
    let mut counts: Map<L, i64> = Map::default();
    let within: Vec<bool> = all
        .iter()
        .map(|one| {
            let count = counts.entry(lane(one)).or_default();
            *count += 1;
            *count <= share
        })
        .collect();
    let mut beyond = rows_max.saturating_sub(within.iter().filter(|within| **within).count());
    let chosen = all.into_iter().zip(within).filter(|(_, within)| {
        let room = beyond > 0;
        beyond -= usize::from(!within && room);
        *within || room
    });
    chosen.map(|(one, _)| one).take(rows_max).collect()
}

/// Actions and pauses.
#[async_trait]
pub trait Actions {
    /// Writes the rows of a command and its line of the audit trail; returns how many messages it is about. The actions of a command that is
    /// given twice are written once.
    async fn command(&self, command: &Command, selection: &Selection) -> Result<i64>;
    /// Actions of these lanes whose time has come and that are not among `known`, by time, then in the order of their messages; at most
    /// `rows_max`, about `bytes_max`, at least one where there is one. A lane with much to do does not keep the others out of the page.
    async fn open_actions(&self, lanes: &[(FeedId, i32)], known: &[i64], rows_max: i64, bytes_max: i64) -> Result<Vec<OpenAction>>;
    /// The actions of a command, or the newest of one message, newest first, at most `rows_max`.
    async fn actions(&self, command: Option<Uuid>, message: Option<Uuid>, rows_max: i64) -> Result<Vec<ActionState>>;
    /// The audit trail, newest first: all of it, or one command, or what was asked of one message.
    async fn audit(&self, command: Option<Uuid>, message: Option<Uuid>, rows_max: i64) -> Result<Vec<Audited>>;
    /// Pauses; false: it was paused already.
    async fn pause(&self, of: &Pausable, by: &str, why: &str) -> Result<bool>;
    /// Resumes, and makes due what the pause holds, or what parked for the endpoint, in [`SEEN_MS`]; false: it was not paused.
    async fn resume_paused(&self, of: &Pausable, by: &str, why: &str) -> Result<bool>;
    /// What is paused now.
    async fn pauses(&self) -> Result<Vec<Paused>>;
}
