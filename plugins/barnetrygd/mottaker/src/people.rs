//! The persons behind identity numbers, within one message: a number that an earlier answer lists is not asked for again, and the raw
//! answers are those that were used, in the order of use.

use barnetrygd_rules::call::Calls;
use barnetrygd_rules::person::{Judged, Person, judge};
use barnetrygd_rules::raw::{self, Raw};
use barnetrygd_rules::trouble::{Role, Trouble};
use tolk_sdk::{Call, Context, Outcome, Stop};

/// Why a number has no person.
pub enum Nobody {
    /// The attempt ends, or waits for its answers.
    Stop(Stop),
    /// It will stay so; the answer is kept where the remote system said so itself.
    Trouble(Box<Trouble>, Option<Raw>),
}

impl From<Stop> for Nobody {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// A person that was found, and by which question.
struct Found {
    asked: String,
    person: Person,
    raw: Raw,
}

/// The persons of one message.
pub struct People<'c> {
    ctx: &'c Context,
    calls: Calls<'c>,
    /// In the order in which they were found; the recipient first.
    found: Vec<Found>,
    /// Places in `found`, in the order of use.
    used: Vec<usize>,
}

impl<'c> People<'c> {
    /// Nobody yet.
    pub fn new(ctx: &'c Context, calls: Calls<'c>) -> Self {
        Self { ctx, calls, found: Vec::new(), used: Vec::new() }
    }

    /// Looks up the recipient, who counts as used when somebody's number leads there.
    pub fn recipient(&mut self, ident: &str) -> Result<Person, Nobody> {
        let at = self.ask(ident, Role::Recipient)?;
        Ok(self.found[at].person.clone())
    }

    /// Asks at once for all of these numbers that are not known yet.
    pub fn ask_ahead<'i>(&self, idents: impl Iterator<Item = &'i str>) -> Result<(), Stop> {
        let mut calls: Vec<Call> = Vec::new();
        for call in idents.filter(|ident| self.place(ident).is_none()).map(|ident| self.calls.identity(ident)) {
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        self.ctx.all(calls).map(drop)
    }

    /// The person behind a number.
    pub fn person(&mut self, ident: &str, role: Role) -> Result<&Person, Nobody> {
        let at = match self.place(ident) {
            Some(at) => at,
            None => self.ask(ident, role)?,
        };
        if !self.used.contains(&at) {
            self.used.push(at);
        }
        Ok(&self.found[at].person)
    }

    /// The raw answers that were used, the recipient's last if nobody's number led there.
    pub fn raw(&self) -> Vec<Raw> {
        let unused_recipient = (!self.used.contains(&0)).then_some(0);
        raw::joined(self.used.iter().copied().chain(unused_recipient).filter_map(|at| self.found.get(at)).map(|found| &found.raw))
    }

    /// The raw answer to the recipient's look-up.
    pub fn recipient_raw(&self) -> Option<&Raw> {
        self.found.first().map(|found| &found.raw)
    }

    fn place(&self, ident: &str) -> Option<usize> {
        self.found.iter().position(|found| found.asked == ident || found.person.idents.iter().any(|known| known == ident))
    }

    fn ask(&mut self, ident: &str, role: Role) -> Result<usize, Nobody> {
        let response = self.ctx.call(self.calls.identity(ident))?;
        match judge(response) {
            Judged::Found(person) => {
                self.found.push(Found { asked: ident.to_owned(), person, raw: Raw::identity(ident, &raw::text(response)) });
                Ok(self.found.len() - 1)
            }
            Judged::Unusable { reason, body } => {
                Err(Nobody::Trouble(Trouble::ident(ident, role, &reason).into(), body.map(|body| Raw::identity(ident, &body))))
            }
            Judged::Trouble { code, reason } => Err(Nobody::Stop(Outcome::retry(code, reason).detail(response.body.clone()).into())),
        }
    }
}
