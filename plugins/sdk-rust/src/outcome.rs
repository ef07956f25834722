//! What a translator answers: outcomes, what they carry, and how `?` ends a message early.

use std::fmt;

use crate::message::Headers;
use crate::request::Request;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Handled, with any number of outputs.
    Translated(Translation),
    /// Deliberately not translated; the raw message is kept and can be replayed.
    Ignored(Dismissal),
    /// Not yet.
    Waiting(Wait),
    /// It did not work; [`FaultKind`] says who has to act.
    Faulty(Fault),
}

impl Outcome {
    /// Handled without outputs.
    pub fn handled() -> Translation {
        Translation::default()
    }

    /// Handled with one output: `payload` goes to `target` under `key`.
    pub fn put(target: &str, key: impl Into<Vec<u8>>, payload: impl Into<Vec<u8>>) -> Translation {
        Translation::default().output(Output::put(target, key, payload))
    }

    /// Handled with one deletion: a tombstone for a topic, a delete for a table.
    pub fn delete(target: &str, key: impl Into<Vec<u8>>) -> Translation {
        Translation::default().output(Output::delete(target, key))
    }

    /// Deliberately not translated. `code` is stable and short, `reason` a sentence for people.
    pub fn ignored(code: &str, reason: impl Into<String>) -> Dismissal {
        Dismissal { code: code.to_owned(), reason: reason.into(), ..Dismissal::default() }
    }

    /// Not yet; add what to wait for with [`Wait::on`].
    pub fn waiting(code: &str, reason: impl Into<String>) -> Wait {
        Wait { code: code.to_owned(), reason: reason.into(), ..Wait::default() }
    }

    /// Transient by the translator's own judgement: the host tries again, up to the feed's maximum.
    pub fn retry(code: &str, message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Retry, code, message)
    }

    /// The message is wrong and will stay so: invalid.
    pub fn rejected(code: &str, message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Rejected, code, message)
    }

    /// A person must decide.
    pub fn failed(code: &str, message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Failed, code, message)
    }

    /// One word for the kind: `translated`, `ignored`, `waiting`, `retry`, `rejected` or `failed`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Translated(_) => "translated",
            Self::Ignored(_) => "ignored",
            Self::Waiting(_) => "waiting",
            Self::Faulty(fault) => match fault.kind {
                FaultKind::Retry => "retry",
                FaultKind::Rejected => "rejected",
                FaultKind::Failed => "failed",
            },
        }
    }

    /// The stable code; empty for a translation.
    pub fn code(&self) -> &str {
        match self {
            Self::Translated(_) => "",
            Self::Ignored(Dismissal { code, .. }) | Self::Waiting(Wait { code, .. }) | Self::Faulty(Fault { code, .. }) => code,
        }
    }

    /// The sentence for people: a translation's note, or the reason of the rest.
    pub fn text(&self) -> &str {
        match self {
            Self::Translated(translation) => translation.note.as_deref().unwrap_or_default(),
            Self::Ignored(Dismissal { reason, .. }) | Self::Waiting(Wait { reason, .. }) => reason,
            Self::Faulty(fault) => &fault.message,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        if !self.code().is_empty() {
            write!(f, " {}", self.code())?;
        }
        if self.text().is_empty() { Ok(()) } else { write!(f, ": {}", self.text()) }
    }
}

/// Ends a message before the end of `translate`: a missing answer, or an outcome. `?` turns any outcome into one.
#[derive(Clone, PartialEq, Eq)]
pub struct Stop(Box<Why>);

#[derive(Clone, PartialEq, Eq)]
enum Why {
    Needs(Vec<Request>),
    Settled(Outcome),
}

impl Stop {
    pub(crate) fn needs(mut requests: Vec<Request>) -> Self {
        let mut seen = Vec::with_capacity(requests.len());
        requests.retain(|request| {
            let new = !seen.contains(request);
            if new {
                seen.push(request.clone());
            }
            new
        });
        Self(Box::new(Why::Needs(requests)))
    }

    /// The outcome, or what is still to be asked.
    pub(crate) fn into_outcome(self) -> Result<Outcome, Vec<Request>> {
        match *self.0 {
            Why::Settled(outcome) => Ok(outcome),
            Why::Needs(requests) => Err(requests),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Why::Settled(outcome) => outcome.fmt(f),
            Why::Needs(requests) => write!(f, "{} answers are missing", requests.len()),
        }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Why::Settled(outcome) => outcome.fmt(f),
            Why::Needs(requests) => f.debug_tuple("Needs").field(requests).finish(),
        }
    }
}

impl From<Outcome> for Stop {
    fn from(outcome: Outcome) -> Self {
        Self(Box::new(Why::Settled(outcome)))
    }
}

macro_rules! into_outcome {
    ($($part:ident => $variant:ident),+) => {
        $(
            impl From<$part> for Outcome {
                fn from(part: $part) -> Self {
                    Self::$variant(part)
                }
            }

            impl From<$part> for Stop {
                fn from(part: $part) -> Self {
                    Outcome::from(part).into()
                }
            }
        )+
    };
}

into_outcome!(Translation => Translated, Dismissal => Ignored, Wait => Waiting, Fault => Faulty);

/// What a sink does with an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// The target's name in the host's config.
    pub target: String,
    /// What the sink does with it.
    pub action: Action,
    /// The output key: order holds per target and key.
    pub key: Option<Vec<u8>>,
    /// The payload.
    pub payload: Option<Vec<u8>>,
    /// Headers of its own.
    pub headers: Headers,
    /// An older version never overwrites a newer one at the sink.
    pub version: Option<u64>,
    /// What "changed" means when a revisit publishes only changes; the payload where absent.
    pub fingerprint: Option<Vec<u8>>,
}

impl Output {
    /// A message, or an upsert.
    pub fn put(target: &str, key: impl Into<Vec<u8>>, payload: impl Into<Vec<u8>>) -> Self {
        Self { target: target.to_owned(), key: Some(key.into()), payload: Some(payload.into()), ..Self::default() }
    }

    /// Only the given fields of a row or document.
    pub fn merge(target: &str, key: impl Into<Vec<u8>>, payload: impl Into<Vec<u8>>) -> Self {
        Self { action: Action::Merge, ..Self::put(target, key, payload) }
    }

    /// A tombstone, or a delete.
    pub fn delete(target: &str, key: impl Into<Vec<u8>>) -> Self {
        Self { target: target.to_owned(), action: Action::Delete, key: Some(key.into()), ..Self::default() }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Sets the version that guards against older ones.
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// Sets what "changed" means when a revisit publishes only changes.
    pub fn fingerprint(mut self, fingerprint: impl Into<Vec<u8>>) -> Self {
        self.fingerprint = Some(fingerprint.into());
        self
    }

    /// The payload as text, for tests; bytes that are not UTF-8 are replaced, a missing payload is empty.
    pub fn payload_text(&self) -> String {
        String::from_utf8_lossy(self.payload.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A change of an entry; a missing value removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The collection.
    pub collection: String,
    /// The entry's key.
    pub key: String,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Index names and values; the whole set of the entry.
    pub indexes: Vec<(String, String)>,
}

impl Write {
    /// Sets an entry. Equal bytes are no change: nobody is woken.
    pub fn set(collection: &str, key: impl ToString, value: impl Into<Vec<u8>>) -> Self {
        Self { collection: collection.to_owned(), key: key.to_string(), value: Some(value.into()), indexes: Vec::new() }
    }

    /// Removes an entry.
    pub fn remove(collection: &str, key: impl ToString) -> Self {
        Self { collection: collection.to_owned(), key: key.to_string(), value: None, indexes: Vec::new() }
    }

    /// Adds a value that the entry is found by, with [`Scan::index`](crate::Scan::index).
    pub fn index(mut self, index: &str, value: impl ToString) -> Self {
        self.indexes.push((index.to_owned(), value.to_string()));
        self
    }
}

/// A source key tied to an id that exists already. One that conflicts either way makes the message invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The id namespace.
    pub namespace: String,
    /// The source key.
    pub key: String,
    /// The id, a uuid in its 36-character form.
    pub id: String,
}

impl Binding {
    /// Ties `key` to `id`.
    pub fn new(namespace: &str, key: impl ToString, id: impl ToString) -> Self {
        Self { namespace: namespace.to_owned(), key: key.to_string(), id: id.to_string() }
    }
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

impl Translation {
    /// Adds an output.
    pub fn output(mut self, output: Output) -> Self {
        self.outputs.push(output);
        self
    }

    /// Asks for the key's newest message to be translated again, at a time in milliseconds since 1970.
    pub fn revisit_at_ms(mut self, ms: i64) -> Self {
        self.revisit_at_ms = Some(ms);
        self
    }

    /// Sets the note for people.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
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
    pub detail: Option<Vec<u8>>,
}

macro_rules! remembers {
    ($($part:ident),+) => {
        $(
            impl $part {
                /// Adds a change of an entry.
                pub fn write(mut self, write: Write) -> Self {
                    self.writes.push(write);
                    self
                }

                /// Ties a source key to an id that exists already.
                pub fn bind(mut self, binding: Binding) -> Self {
                    self.bindings.push(binding);
                    self
                }
            }
        )+
    };
}

remembers!(Translation, Dismissal);

impl Dismissal {
    /// Adds bytes for people to look at.
    pub fn detail(mut self, detail: impl Into<Vec<u8>>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// Until an awaited entry or id appears, changes or goes, or the time is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// A stable code.
    pub code: String,
    /// A sentence for people.
    pub reason: String,
    /// What to wait for; empty: only for the time.
    pub on: Vec<Request>,
    /// For how long, in milliseconds; the feed's own time where absent.
    pub timeout_ms: Option<u64>,
}

impl Wait {
    /// Adds something to wait for: an entry, a scan, a known id or the key of an id.
    pub fn on(mut self, request: impl Into<Request>) -> Self {
        self.on.push(request.into());
        self
    }

    /// Sets for how long, in milliseconds. Running out counts as an attempt.
    pub fn timeout_ms(mut self, ms: u64) -> Self {
        self.timeout_ms = Some(ms);
        self
    }
}

/// Who has to act on a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nobody: time may mend it.
    Retry,
    /// Whoever sent the message: it is invalid.
    Rejected,
    /// A person who runs the host.
    Failed,
}

/// What went wrong, in the translator's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who has to act.
    pub kind: FaultKind,
    /// A stable code.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The field of the message that is at fault.
    pub field: Option<String>,
    /// Bytes for people to look at.
    pub detail: Option<Vec<u8>>,
    /// Retry only: when to try again, in milliseconds from now; the feed's back-off where absent.
    pub after_ms: Option<u64>,
}

impl Fault {
    fn new(kind: FaultKind, code: &str, message: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), message: message.into(), field: None, detail: None, after_ms: None }
    }

    /// Names the field of the message that is at fault.
    pub fn field(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// Adds bytes for people to look at.
    pub fn detail(mut self, detail: impl Into<Vec<u8>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Retry only: sets when to try again, in milliseconds from now.
    pub fn after_ms(mut self, ms: u64) -> Self {
        self.after_ms = Some(ms);
        self
    }
}
