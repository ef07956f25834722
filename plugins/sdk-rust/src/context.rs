//! What a translator is given beside the message: the moment, the attempt, and answers to what it asks.

use std::cell::RefCell;

use crate::message::{Cause, Delivery};
use crate::outcome::Stop;
use crate::request::{Answer, Ask, Calls, Entry, Id, KeyOf, KnownId, Page, Reply, Request, Scan};
use crate::time::Now;

/// The context of one attempt. All but the answers is the same in each of its rounds.
#[derive(Debug, Default)]
pub struct Context {
    pub(crate) now: Now,
    pub(crate) attempt: u32,
    pub(crate) waited_ms: u64,
    pub(crate) cause: Cause,
    pub(crate) delivery: Option<Delivery>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) wanted: RefCell<Vec<Request>>,
    pub(crate) log: RefCell<Vec<String>>,
}

impl Context {
    /// The moment of the attempt.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Earlier tries that ended in retry or in a wait's time-out; 0 at the first try.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How long the message has waited, in milliseconds.
    pub fn waited_ms(&self) -> u64 {
        self.waited_ms
    }

    /// Why the message is tried now.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The delivery the message is a part of.
    pub fn delivery(&self) -> Option<&Delivery> {
        self.delivery.as_ref()
    }

    /// The value of an entry, if it exists.
    pub fn entry(&self, collection: &str, key: impl ToString) -> Result<Option<&[u8]>, Stop> {
        self.all(Entry::new(collection, key))
    }

    /// The value of an entry read as JSON, if it exists. Stops with failed `bad-entry` where it cannot be read.
    #[cfg(feature = "json")]
    pub fn entry_json<T: serde::de::DeserializeOwned>(&self, collection: &str, key: impl ToString) -> Result<Option<T>, Stop> {
        let question = Entry::new(collection, key);
        let Some(bytes) = self.all(question.clone())? else { return Ok(None) };
        serde_json::from_slice(bytes).map(Some).map_err(|error| {
            let text = format!("the entry {}/{} {}", question.collection, question.key, crate::message::json_trouble(&error));
            crate::outcome::Outcome::failed("bad-entry", text).into()
        })
    }

    /// A page of entries.
    pub fn entries(&self, scan: Scan) -> Result<&Page, Stop> {
        self.all(scan)
    }

    /// All entries of a scan, page by page; each page costs a round.
    pub fn entries_to_the_end(&self, mut scan: Scan) -> Result<Vec<(&str, &[u8])>, Stop> {
        let mut found = Vec::new();
        loop {
            let page = self.all(scan.clone())?;
            found.extend(page.items.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
            match page.items.last() {
                Some((last, _)) if page.more => scan.after = Some(last.clone()),
                _ => return Ok(found),
            }
        }
    }

    /// The id of a source key, a uuid; made where there is none, and the same on every run.
    pub fn id(&self, namespace: &str, key: impl ToString) -> Result<&str, Stop> {
        self.all(Id::new(namespace, key))
    }

    /// The id of a source key, if there is one.
    pub fn known_id(&self, namespace: &str, key: impl ToString) -> Result<Option<&str>, Stop> {
        self.all(KnownId::new(namespace, key))
    }

    /// The source key of an id, if there is one.
    pub fn key_of(&self, namespace: &str, id: impl ToString) -> Result<Option<&str>, Stop> {
        self.all(KeyOf::new(namespace, id))
    }

    /// The answer of an endpoint: a response for a [`Call`], a response or the reason why there is none for a [`LenientCall`].
    ///
    /// [`Call`]: crate::Call
    /// [`LenientCall`]: crate::LenientCall
    pub fn call<C: Ask + Calls>(&self, call: C) -> Result<C::Answer<'_>, Stop> {
        self.all(call)
    }

    /// Answers to several questions, a tuple or a vector: what is missing costs one round, not one each.
    pub fn all<A: Ask>(&self, questions: A) -> Result<A::Answer<'_>, Stop> {
        let mut missing = Vec::new();
        match questions.ask(self, &mut missing)? {
            Some(answers) => Ok(answers),
            None => {
                missing.append(&mut self.wanted.borrow_mut());
                Err(Stop::needs(missing))
            }
        }
    }

    /// Asks without stopping: the next question that has no answer takes this one along. For what will be needed later anyway.
    pub fn prefetch<A: Ask>(&self, questions: A) {
        // A reply of the wrong kind is reported where the answer is used.
        let _ = questions.ask(self, &mut self.wanted.borrow_mut());
    }

    /// Adds a line to the guest's log, which the host keeps up to a limit. Never log payloads or secrets.
    pub fn log(&self, line: impl Into<String>) {
        self.log.borrow_mut().push(line.into());
    }

    /// The reply to a request in its canonical form.
    pub(crate) fn reply(&self, request: &Request) -> Option<&Reply> {
        self.answers.iter().find(|answer| answer.request == *request).map(|answer| &answer.reply)
    }
}
