//! The nouns of the contract: what a translator is asked and what it answers, in plain types that mirror `wit/`.
//! Knows nothing of wasmtime; `runtime` is the only module that converts these to and from a component's types.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::message::Headers;

/// The longest key of an entry, index value, source key or name of these, in bytes: an index row must hold two of them.
pub const KEY_BYTES_MAX: usize = 1_000;

/// The identity of a plugin: the SHA-256 of its component.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first twelve hexadecimal digits, for listings and errors.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(format!("\"{text}\" is not a digest of 64 hexadecimal digits"));
        }
        for (i, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| format!("\"{text}\" is not hexadecimal"))?;
        }
        Ok(Self(digest))
    }
}

/// The capability sheet of a plugin: what it asks for beyond it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The plugin's name.
    pub name: String,
    /// Its version; name@version is a label, the digest is the identity.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// The tables it translates.
    pub tables: Vec<String>,
    /// The collections it reads.
    pub reads: Vec<String>,
    /// The collections it writes.
    pub writes: Vec<String>,
    /// The id namespaces it uses.
    pub namespaces: Vec<String>,
    /// The endpoints it calls.
    pub endpoints: Vec<String>,
    /// The targets it puts out to.
    pub targets: Vec<String>,
}

/// Limits of one plugin, each for one message unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// CPU time of one call, in milliseconds of the thread's own clock.
    pub cpu_ms_max: u64,
    /// Linear memory of an instance, in bytes.
    pub memory_bytes_max: usize,
    /// Outputs of a message.
    pub outputs_max: usize,
    /// Bytes of all outputs, writes, details and needs of one verdict.
    pub output_bytes_max: usize,
    /// Requests of a message over all its rounds.
    pub needs_max: usize,
    /// Rounds of a message.
    pub rounds_max: usize,
    /// Bytes of the guest's log of one call; more is cut and said.
    pub log_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms_max: 100,
            memory_bytes_max: 64 << 20,
            outputs_max: 1_000,
            output_bytes_max: 8 << 20,
            needs_max: 64,
            rounds_max: 16,
            log_bytes_max: 16 << 10,
        }
    }
}

/// Why a message is tried now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// It was never tried before.
    #[default]
    First,
    /// An earlier try ended in retry.
    Retry,
    /// An awaited entry appeared, changed or went.
    Woken,
    /// A wait's time was up.
    TimedOut,
    /// A handled message whose `revisit-at` has come.
    Revisit,
    /// An operator asked for it.
    Replay,
}

impl Cause {
    /// Every cause, in the order of their codes.
    pub const ALL: [Self; 6] = [Self::First, Self::Retry, Self::Woken, Self::TimedOut, Self::Revisit, Self::Replay];

    /// The word the contract uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Woken => "woken",
            Self::TimedOut => "timed-out",
            Self::Revisit => "revisit",
            Self::Replay => "replay",
        }
    }

    /// The number the stores keep.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The cause of a stored number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }
}

/// What a translator is given beside the message; fixed for the attempt but for the answers.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
    /// The offset of the feed's time zone at `now`, in seconds east of UTC.
    pub utc_offset_s: i32,
    /// Earlier tries that ended in retry or in a wait's time-out.
    pub attempt: u32,
    /// How long the message has waited, in milliseconds.
    pub waited_ms: u64,
    /// Why it is tried now.
    pub cause: Cause,
    /// The delivery it is a part of.
    pub delivery: Option<Delivery>,
    /// What it asked for in earlier rounds of this attempt.
    pub answers: Vec<Answer>,
}

/// A delivery: a set of messages that is complete or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its id.
    pub id: String,
    /// The parameters it was ordered with.
    pub params: Vec<(String, String)>,
    /// How many messages it should have.
    pub expected: Option<u64>,
}

/// A page of the entries of a collection, by a secondary index or by key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scan {
    /// The collection.
    pub collection: String,
    /// The index; `None` scans by key.
    pub index: Option<String>,
    /// The start of the index value, or of the key; with an index, a value equal to it or starting with it.
    pub prefix: String,
    /// The key of the last entry of the page before.
    pub after: Option<String>,
    /// Entries at most.
    pub limit: u32,
}

/// A call of a configured endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Call {
    /// The endpoint's name in the config.
    pub endpoint: String,
    /// What fills its templates; order does not matter.
    pub params: Vec<(String, String)>,
    /// The request's body.
    pub body: Option<Bytes>,
    /// Take any status, and `unreachable` in place of an attempt, as an answer.
    pub lenient: bool,
}

/// What a translator asks of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Request {
    /// An entry of a collection.
    Entry { collection: String, key: String },
    /// A page of entries.
    Entries(Scan),
    /// The id of a source key; made where there is none.
    Id { namespace: String, key: String },
    /// The id of a source key, if there is one.
    KnownId { namespace: String, key: String },
    /// The source key of an id, if there is one.
    KeyOf { namespace: String, id: String },
    /// A call of an endpoint.
    Call(Call),
}

/// What the world answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The entry's value, if it exists.
    Entry(Option<Bytes>),
    /// Keys and values, and whether there are more.
    Entries { items: Vec<(String, Bytes)>, more: bool },
    /// An id, a uuid in its 36-character form.
    Id(String),
    /// An id, if there is one.
    KnownId(Option<String>),
    /// A source key, if there is one.
    KeyOf(Option<String>),
    /// A call's response.
    Response(Response),
    /// A lenient call that got none.
    Unreachable(String),
}

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decompressed.
    pub body: Bytes,
}

/// A request and its reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub reply: Reply,
}

/// What a sink does with an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Kafka: a message. Table or index: upsert.
    #[default]
    Put,
    /// Kafka: a message. Table or index: only the given fields.
    Merge,
    /// Kafka: a tombstone. Table or index: delete.
    Delete,
}

/// A domain message on its way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The target's name in the config.
    pub target: String,
    /// What the sink does with it.
    pub action: Action,
    /// The output key: order holds per target and key.
    pub key: Option<Bytes>,
    /// The payload.
    pub payload: Option<Bytes>,
    /// Headers of its own.
    pub headers: Headers,
    /// An older version never overwrites a newer one at the sink.
    pub version: Option<u64>,
    /// What "changed" means when a revisit publishes only changes; default: the payload.
    pub fingerprint: Option<Bytes>,
}

/// A change of an entry; `None` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The collection.
    pub collection: String,
    /// The entry's key.
    pub key: String,
    /// Its value.
    pub value: Option<Bytes>,
    /// Index names and values; the whole set of the entry.
    pub indexes: Vec<(String, String)>,
}

/// A source key tied to an id that exists already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The id namespace.
    pub namespace: String,
    /// The source key.
    pub key: String,
    /// The id, a uuid.
    pub id: String,
}

/// Handled, with any number of outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// What goes out, in this order.
    pub outputs: Vec<Output>,
    /// What the plugin remembers.
    pub writes: Vec<Write>,
    /// Ids that exist already.
    pub bindings: Vec<Binding>,
    /// When to translate the key's newest message again, in milliseconds since 1970.
    pub revisit_at_ms: Option<i64>,
    /// A note for people.
    pub note: Option<String>,
}

/// Deliberately not translated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dismissal {
    /// A stable code.
    pub code: String,
    /// A sentence for people.
    pub reason: String,
    /// What the plugin remembers all the same.
    pub writes: Vec<Write>,
    /// Ids that exist already.
    pub bindings: Vec<Binding>,
    /// Bytes for people to look at.
    pub detail: Option<Bytes>,
}

/// Until one of these appears, changes or goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// A stable code.
    pub code: String,
    /// A sentence for people.
    pub reason: String,
    /// What to wait for; empty: only for the time.
    pub on: Vec<Request>,
    /// For how long, in milliseconds; default: the feed's.
    pub timeout_ms: Option<u64>,
}

/// What went wrong, in the plugin's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// A stable code.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The field of the message that is at fault.
    pub field: Option<String>,
    /// Bytes for people to look at.
    pub detail: Option<Bytes>,
    /// When to try again, in milliseconds from now; default: the feed's back-off.
    pub after_ms: Option<u64>,
}

/// What a translator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Run me again with these.
    Needs(Vec<Request>),
    /// Handled.
    Translated(Translation),
    /// Deliberately not translated.
    Ignored(Dismissal),
    /// Not yet.
    Waiting(Wait),
    /// Transient, by the plugin's own judgement.
    Retry(Fault),
    /// The message is wrong.
    Rejected(Fault),
    /// A person must decide.
    Failed(Fault),
}

/// An outcome and the guest's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// The guest's log lines, cut to the limit.
    pub log: Vec<String>,
}
