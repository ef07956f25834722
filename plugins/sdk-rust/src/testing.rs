//! Runs a translator natively against a fake world: entries, ids and endpoints that a test sets up. Plays the host's rounds and
//! holds the translator to its capability sheet, as the host does.

#[cfg(feature = "json")]
mod captured;

use std::collections::BTreeMap;

#[cfg(feature = "json")]
pub use captured::captured;

use crate::context::Context;
use crate::message::{Cause, Delivery, Message};
use crate::outcome::{Outcome, Output, Write};
use crate::request::{Answer, Call, Page, Reply, Request, Response, Scan};
use crate::time::Now;
use crate::{Description, Translator};

/// Rounds and requests that the host allows a message unless it is told otherwise.
const ROUNDS_MAX: usize = 16;
const NEEDS_MAX: usize = 64;

/// A message of a table with a payload; id, feed and position are fixed, change the fields where they matter.
pub fn message(table: &str, payload: impl Into<Vec<u8>>) -> Message {
    Message {
        id: "5c1f3a52-92b0-5d0b-8d6a-0a4c5b7e9f10".to_owned(),
        feed: "test".to_owned(),
        table: table.to_owned(),
        payload: Some(payload.into()),
        ..Message::default()
    }
}

/// What an endpoint of the fake world does with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// It answers; the statuses 408, 425, 429 and 500 to 599 fail the attempt of a call that is not lenient.
    Response(Response),
    /// Nobody answers: a lenient call is told so, any other parks the message.
    Away(String),
}

impl From<Response> for Called {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

/// An entry's value and what it is indexed by.
type Stored = (Vec<u8>, Vec<(String, String)>);

type Endpoint = Box<dyn Fn(&Call) -> Called>;

/// A fake world. Endpoints that were not set up are away.
#[derive(Default)]
pub struct World {
    entries: BTreeMap<(String, String), Stored>,
    ids: BTreeMap<(String, String), String>,
    endpoints: BTreeMap<String, Endpoint>,
    now: Now,
    attempt: u32,
    waited_ms: u64,
    cause: Cause,
    delivery: Option<Delivery>,
}

/// What became of a message in the fake world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// The outcome; what the host itself finds is retry `endpoint-failed` or `endpoint-away`, or failed `no-progress`, `rounds-limit`,
    /// `needs-limit` or `not-described`.
    pub outcome: Outcome,
    /// What was asked for, round by round, flattened.
    pub asked: Vec<Request>,
    /// How often the translator was called.
    pub rounds: usize,
    /// The log of the last round.
    pub log: Vec<String>,
}

impl Played {
    /// The outputs; none where the message was not translated.
    pub fn outputs(&self) -> &[Output] {
        match &self.outcome {
            Outcome::Translated(translation) => &translation.outputs,
            _ => &[],
        }
    }

    /// The writes; none where the outcome cannot have any.
    pub fn writes(&self) -> &[Write] {
        match &self.outcome {
            Outcome::Translated(translation) => &translation.writes,
            Outcome::Ignored(dismissal) => &dismissal.writes,
            _ => &[],
        }
    }

    /// Whether some call of an endpoint was asked for.
    pub fn called(&self, endpoint: &str) -> bool {
        self.asked.iter().any(|request| matches!(request, Request::Call(call, _) if call.endpoint == endpoint))
    }
}

impl World {
    /// An empty world at the first moment of 1970, UTC.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an entry.
    pub fn entry(&mut self, collection: &str, key: impl ToString, value: impl Into<Vec<u8>>) -> &mut Self {
        self.write(&Write::set(collection, key, value))
    }

    /// Applies a write, indexes included.
    pub fn write(&mut self, write: &Write) -> &mut Self {
        let place = (write.collection.clone(), write.key.clone());
        match &write.value {
            Some(value) => self.entries.insert(place, (value.clone(), write.indexes.clone())),
            None => self.entries.remove(&place),
        };
        self
    }

    /// Ties a source key to an id.
    pub fn id(&mut self, namespace: &str, key: impl ToString, id: impl ToString) -> &mut Self {
        self.ids.insert((namespace.to_owned(), key.to_string()), id.to_string());
        self
    }

    /// Sets up an endpoint.
    pub fn endpoint(&mut self, name: &str, answer: impl Fn(&Call) -> Called + 'static) -> &mut Self {
        self.endpoints.insert(name.to_owned(), Box::new(answer));
        self
    }

    /// Sets the moment: milliseconds since 1970 and the zone's offset in seconds east of UTC.
    pub fn now(&mut self, ms: i64, utc_offset_s: i32) -> &mut Self {
        self.now = Now { ms, utc_offset_s };
        self
    }

    /// Sets how many tries came before, and why this one is made.
    pub fn attempt(&mut self, attempt: u32, cause: Cause) -> &mut Self {
        (self.attempt, self.cause) = (attempt, cause);
        self
    }

    /// Sets how long the message has waited, in milliseconds.
    pub fn waited_ms(&mut self, ms: u64) -> &mut Self {
        self.waited_ms = ms;
        self
    }

    /// Sets the delivery that messages are a part of.
    pub fn delivery(&mut self, delivery: Delivery) -> &mut Self {
        self.delivery = Some(delivery);
        self
    }

    /// The value of an entry.
    pub fn value(&self, collection: &str, key: impl ToString) -> Option<&[u8]> {
        self.entries.get(&(collection.to_owned(), key.to_string())).map(|(value, _)| value.as_slice())
    }

    /// The id of a source key: the known one, or the one this world would make.
    pub fn id_of(&self, namespace: &str, key: impl ToString) -> String {
        let place = (namespace.to_owned(), key.to_string());
        self.ids.get(&place).cloned().unwrap_or_else(|| made_id(&place.0, &place.1))
    }

    /// The id of a source key, if there is one.
    pub fn known_id(&self, namespace: &str, key: impl ToString) -> Option<&str> {
        self.ids.get(&(namespace.to_owned(), key.to_string())).map(String::as_str)
    }

    /// Plays a message and leaves the world as it was.
    pub fn play<T: Translator>(&self, translator: &T, message: &Message) -> Played {
        let sheet = T::describe();
        let mut played = Played { outcome: Outcome::handled().into(), asked: Vec::new(), rounds: 0, log: Vec::new() };
        let mut answers: Vec<Answer> = Vec::new();
        played.outcome = loop {
            if played.rounds == ROUNDS_MAX {
                break Outcome::failed("rounds-limit", format!("no outcome after {ROUNDS_MAX} rounds")).into();
            }
            played.rounds += 1;
            let context = Context {
                now: self.now,
                attempt: self.attempt,
                waited_ms: self.waited_ms,
                cause: self.cause,
                delivery: self.delivery.clone(),
                answers: answers.clone(),
                ..Context::default()
            };
            let result = translator.translate(message, &context);
            played.log = context.log.into_inner();
            let needs = match result.map_or_else(|stop| stop.into_outcome(), Ok) {
                Ok(outcome) => break overstep(&sheet, &outcome).unwrap_or(outcome),
                Err(needs) => needs,
            };
            if let Err(outcome) = self.resolve(&sheet, needs, &mut played.asked, &mut answers) {
                break outcome;
            }
        };
        played
    }

    /// Plays a message and, where it is translated or ignored, applies its writes and ids to the world.
    pub fn settle<T: Translator>(&mut self, translator: &T, message: &Message) -> Played {
        let played = self.play(translator, message);
        let (writes, bindings) = match &played.outcome {
            Outcome::Translated(translation) => (&translation.writes, &translation.bindings),
            Outcome::Ignored(dismissal) => (&dismissal.writes, &dismissal.bindings),
            _ => return played,
        };
        for request in &played.asked {
            if let Request::Id(asked) = request {
                let id = self.id_of(&asked.namespace, &asked.key);
                self.id(&asked.namespace, &asked.key, id);
            }
        }
        for write in writes {
            self.write(write);
        }
        for binding in bindings {
            self.id(&binding.namespace, &binding.key, &binding.id);
        }
        played
    }

    fn resolve(
        &self,
        sheet: &Description,
        needs: Vec<Request>,
        asked: &mut Vec<Request>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Outcome> {
        for request in needs {
            if asked.contains(&request) {
                return Err(Outcome::failed("no-progress", format!("asked again for what was answered: {request:?}")).into());
            }
            asked.push(request.clone());
            if asked.len() > NEEDS_MAX {
                return Err(Outcome::failed("needs-limit", format!("more than {NEEDS_MAX} requests")).into());
            }
            let reply = self.reply(sheet, &request)?;
            answers.push(Answer { request, reply });
        }
        Ok(())
    }

    fn reply(&self, sheet: &Description, request: &Request) -> Result<Reply, Outcome> {
        allowed(sheet, request)?;
        Ok(match request {
            Request::Entry(entry) => Reply::Entry(self.value(&entry.collection, &entry.key).map(<[u8]>::to_vec)),
            Request::Entries(scan) => Reply::Entries(self.page(scan)),
            Request::Id(id) => Reply::Id(self.id_of(&id.namespace, &id.key)),
            Request::KnownId(id) => Reply::KnownId(self.known_id(&id.namespace, &id.key).map(str::to_owned)),
            Request::KeyOf(owner) => {
                let mut ids = self.ids.iter();
                let found = ids.find(|((namespace, _), id)| *namespace == owner.namespace && **id == owner.id);
                Reply::KeyOf(found.map(|((_, key), _)| key.clone()))
            }
            Request::Call(call, lenient) => self.call(call, *lenient)?,
        })
    }

    fn page(&self, scan: &Scan) -> Page {
        let fits = |key: &str, indexes: &[(String, String)]| match &scan.index {
            None => key.starts_with(&scan.prefix),
            Some(index) => indexes.iter().any(|(name, value)| name == index && value.starts_with(&scan.prefix)),
        };
        let found = self.entries.iter().filter(|((collection, key), (_, indexes))| {
            *collection == scan.collection && scan.after.as_ref().is_none_or(|after| key > after) && fits(key, indexes)
        });
        let mut items: Vec<_> = found.map(|((_, key), (value, _))| (key.clone(), value.clone())).collect();
        let more = items.len() > scan.limit as usize;
        items.truncate(scan.limit as usize);
        Page { items, more }
    }

    fn call(&self, call: &Call, lenient: bool) -> Result<Reply, Outcome> {
        let called = match self.endpoints.get(&call.endpoint) {
            Some(answer) => answer(call),
            None => Called::Away("nobody is set up to answer".to_owned()),
        };
        match called {
            Called::Response(response) if !lenient && matches!(response.status, 408 | 425 | 429 | 500..=599) => {
                let reason = format!("endpoint {} answered {}", call.endpoint, response.status);
                Err(Outcome::retry("endpoint-failed", reason).into())
            }
            Called::Response(response) => Ok(Reply::Response(response)),
            Called::Away(reason) if lenient => Ok(Reply::Unreachable(reason)),
            Called::Away(reason) => Err(Outcome::retry("endpoint-away", format!("endpoint {}: {reason}", call.endpoint)).into()),
        }
    }
}

/// Refuses a request beyond the capability sheet.
fn allowed(sheet: &Description, request: &Request) -> Result<(), Outcome> {
    let (names, name, what) = match request {
        Request::Entry(entry) => (&sheet.reads, &entry.collection, "reads"),
        Request::Entries(scan) => (&sheet.reads, &scan.collection, "reads"),
        Request::Id(id) => (&sheet.namespaces, &id.namespace, "namespaces"),
        Request::KnownId(id) => (&sheet.namespaces, &id.namespace, "namespaces"),
        Request::KeyOf(owner) => (&sheet.namespaces, &owner.namespace, "namespaces"),
        Request::Call(call, _) => (&sheet.endpoints, &call.endpoint, "endpoints"),
    };
    if names.contains(name) { Ok(()) } else { Err(not_described(name, what)) }
}

/// What an outcome does beyond the capability sheet, if anything.
fn overstep(sheet: &Description, outcome: &Outcome) -> Option<Outcome> {
    let (outputs, writes, bindings) = match outcome {
        Outcome::Translated(it) => (it.outputs.as_slice(), &it.writes, &it.bindings),
        Outcome::Ignored(it) => ([].as_slice(), &it.writes, &it.bindings),
        Outcome::Waiting(wait) => return wait.on.iter().find_map(|request| allowed(sheet, request).err()),
        Outcome::Faulty(_) => return None,
    };
    let target = outputs.iter().find(|output| !sheet.targets.contains(&output.target)).map(|it| not_described(&it.target, "targets"));
    let write = writes.iter().find(|write| !sheet.writes.contains(&write.collection)).map(|it| not_described(&it.collection, "writes"));
    let bound = bindings.iter().find(|it| !sheet.namespaces.contains(&it.namespace)).map(|it| not_described(&it.namespace, "namespaces"));
    target.or(write).or(bound)
}

fn not_described(name: &str, what: &str) -> Outcome {
    Outcome::failed("not-described", format!("\"{name}\" is not among the {what} of the description")).into()
}

/// An id in the form of a uuid v8, made from namespace and key alone (FNV-1a, twice).
fn made_id(namespace: &str, key: &str) -> String {
    let hash = |seed: u64| {
        let bytes = namespace.bytes().chain([0]).chain(key.bytes());
        bytes.fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let (high, low) = (hash(0xcbf2_9ce4_8422_2325), hash(0x9ae1_6a3b_2f90_404f));
    let (high, low) = ((high & !0xf000) | 0x8000, (low & !(0b11 << 62)) | (0b10 << 62));
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xffff, low >> 48, low & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, Id, KeyOf, KnownId, Stop};

    /// Runs the closure it holds; its sheet allows what the tests use.
    struct Closure<F>(F);

    impl<F: Fn(&Context) -> Result<Outcome, Stop> + 'static> Translator for Closure<F> {
        fn describe() -> Description {
            Description::new("closure", "0", "").reads("c").writes("c").namespace("n").endpoint("e").target("t")
        }

        fn configure(_config: &str) -> Result<Self, String> {
            Err("made by tests alone".to_owned())
        }

        fn translate(&self, _message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
            (self.0)(ctx)
        }
    }

    fn play(world: &World, run: impl Fn(&Context) -> Result<Outcome, Stop> + 'static) -> Played {
        world.play(&Closure(run), &message("T", ""))
    }

    #[test]
    fn independent_questions_cost_one_round_and_dependent_ones_a_round_each() {
        let mut world = World::new();
        world.entry("c", 1, "one").entry("c", "one", "two");
        let together = play(&world, |ctx| {
            let (one, id, known) = ctx.all((Entry::new("c", 1), Id::new("n", 1), KnownId::new("n", 2)))?;
            assert_eq!((one, known), (Some(&b"one"[..]), None));
            Ok(Outcome::put("t", id, one.unwrap_or_default()).into())
        });
        assert_eq!((together.rounds, together.asked.len()), (2, 3));
        let apart = play(&world, |ctx| {
            let one = String::from_utf8_lossy(ctx.entry("c", 1)?.unwrap_or_default());
            let two = ctx.entry("c", &one)?.unwrap_or_default();
            Ok(Outcome::put("t", "k", two).into())
        });
        assert_eq!((apart.rounds, apart.outputs()[0].payload_text().as_str()), (3, "two"));
    }

    #[test]
    fn a_prefetch_rides_along_with_the_next_missing_answer() {
        let played = play(&World::new(), |ctx| {
            ctx.prefetch(KeyOf::new("n", "x"));
            ctx.prefetch(Entry::new("c", 1));
            ctx.entry("c", 1)?;
            assert_eq!(ctx.key_of("n", "x")?, None);
            Ok(Outcome::handled().into())
        });
        assert_eq!((played.rounds, played.asked.len(), played.outcome.kind()), (2, 2, "translated"));
    }

    #[test]
    fn calls_are_the_same_whatever_the_order_of_their_parameters() {
        let mut world = World::new();
        world.endpoint("e", |_call| Response::new(404, "").into());
        let played = play(&world, |ctx| {
            let first = ctx.call(Call::new("e").param("b", 2).param("a", 1))?;
            let second = ctx.call(Call::new("e").param("a", 1).param("b", 2))?;
            assert_eq!((first.status, second.status), (404, 404));
            Ok(Outcome::handled().into())
        });
        assert_eq!((played.rounds, played.asked.len()), (2, 1));
    }

    #[test]
    fn a_failing_endpoint_costs_the_attempt_unless_the_call_is_lenient() {
        let mut world = World::new();
        world.endpoint("e", |_call| Response::new(503, "").into());
        let strict = play(&world, |ctx| ctx.call(Call::new("e")).map(|_| Outcome::handled().into()));
        assert_eq!(strict.outcome.code(), "endpoint-failed");
        let lenient = play(&world, |ctx| {
            assert_eq!(ctx.all(Call::new("e").lenient())?.map(|it| it.status), Ok(503));
            Ok(Outcome::handled().into())
        });
        assert_eq!(lenient.outcome.kind(), "translated");
        let away = play(&World::new(), |ctx| {
            assert!(ctx.all(Call::new("e").lenient())?.is_err());
            Ok(Outcome::handled().into())
        });
        assert_eq!(away.outcome.kind(), "translated");
    }

    #[test]
    fn scans_read_page_by_page_and_by_index() {
        let mut world = World::new();
        for key in 0..5 {
            world.write(&Write::set("c", key, format!("v{key}")).index("parity", key % 2));
        }
        let played = play(&world, |ctx| {
            let all = ctx.entries_to_the_end(Scan::new("c").limit(2))?;
            let odd = ctx.entries_to_the_end(Scan::new("c").index("parity", 1))?;
            assert_eq!(odd, [("1", &b"v1"[..]), ("3", &b"v3"[..])]);
            Ok(Outcome::handled().note(all.len().to_string()).into())
        });
        assert_eq!((played.outcome.text(), played.rounds), ("5", 5));
    }

    #[test]
    fn the_capability_sheet_is_held() {
        let world = World::new();
        let read = play(&world, |ctx| ctx.entry("other", 1).map(|_| Outcome::handled().into()));
        let put = play(&world, |_| Ok(Outcome::put("other", "k", "v").into()));
        let write = play(&world, |_| Ok(Outcome::handled().write(Write::remove("other", 1)).into()));
        let wait = play(&world, |_| Ok(Outcome::waiting("w", "w").on(Entry::new("other", 1)).into()));
        for played in [read, put, write, wait] {
            assert_eq!(played.outcome.code(), "not-described", "{}", played.outcome);
        }
    }

    #[test]
    fn settled_messages_leave_their_writes_and_ids() {
        let mut world = World::new();
        let translator = Closure(|ctx: &Context| {
            let id = ctx.id("n", 7)?;
            Ok(Outcome::handled().write(Write::set("c", 7, id)).bind(crate::Binding::new("n", 8, "bound")).into())
        });
        world.settle(&translator, &message("T", ""));
        let made = world.known_id("n", 7).map(str::to_owned);
        assert_eq!(made.as_deref().map(str::as_bytes), world.value("c", 7));
        assert_eq!(world.known_id("n", 8), Some("bound"));
    }
}
