//! The steps of one recipient, S1 to S7, in their order. Each asks for all it needs at once; answers are read in the order of the steps, so
//! that the first thing that is wrong decides, however many were asked for together.

use std::collections::BTreeMap;

use barnetrygd_rules::benefit::{self, Refused};
use barnetrygd_rules::call::Calls;
use barnetrygd_rules::entry::{Entry, compressed};
use barnetrygd_rules::message::Completed;
use barnetrygd_rules::period::Overlap;
use barnetrygd_rules::person::Person;
use barnetrygd_rules::raw::{self, Raw};
use barnetrygd_rules::support;
use barnetrygd_rules::trouble::{Role, Trouble};
use serde_json::json;
use tolk_sdk::{Call, Context, Fault, Outcome, Stop};

use crate::people::{Nobody, People};

/// Completes a recipient by its number.
pub fn complete(ctx: &Context, calls: Calls<'_>, ident: &str) -> Result<Completed, Stop> {
    let mut people = People::new(ctx, calls);
    // S1. Without a current number there is nobody to keep anything for: the attempt fails, and says why.
    let recipient = match people.recipient(ident) {
        Ok(recipient) => recipient,
        Err(Nobody::Stop(stop)) => return Err(stop),
        Err(Nobody::Trouble(trouble, raw)) => return Err(unusable(&trouble, raw).into()),
    };
    let mut steps = Steps { ctx, calls, people, benefits: Vec::new(), supports: Vec::new() };
    let (entries, trouble, raw) = match steps.run(&recipient) {
        Ok(entries) => (entries, None, steps.all_raw()),
        Err(Ended::Stop(stop)) => return Err(stop),
        Err(Ended::Trouble(trouble, raw)) => (Vec::new(), Some(*trouble), raw),
    };
    Ok(Completed { ident: recipient.current, entries, trouble, raw })
}

fn unusable(trouble: &Trouble, raw: Option<Raw>) -> Fault {
    let detail = json!({ "feilinfo": [trouble], "rådata": raw.as_slice() });
    Outcome::retry("UgyldigIdent", trouble.message.clone()).detail(detail.to_string())
}

/// Why the steps ended early.
enum Ended {
    /// The attempt ends, or waits for its answers.
    Stop(Stop),
    /// It will stay so; with the raw answers to keep.
    Trouble(Box<Trouble>, Vec<Raw>),
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

struct Steps<'c> {
    ctx: &'c Context,
    calls: Calls<'c>,
    people: People<'c>,
    benefits: Vec<Raw>,
    supports: Vec<Raw>,
}

impl Steps<'_> {
    fn run(&mut self, recipient: &Person) -> Result<Vec<Entry>, Ended> {
        let cases = self.cases(recipient)?;
        let entries = self.with_current(cases, Trouble::benefit_overlap)?;
        let entries = compressed(entries).map_err(|overlap| self.ended(Trouble::benefit_overlap(overlap)))?;
        let entries = self.with_supports(entries)?;
        let entries = self.with_current(entries, Trouble::support_overlap)?;
        compressed(entries).map_err(|overlap| self.ended(Trouble::support_overlap(overlap)))
    }

    /// S2: the cases of each of the recipient's numbers, each mapped and merged by itself.
    fn cases(&mut self, recipient: &Person) -> Result<Vec<Entry>, Ended> {
        let (calls, window) = (self.calls, self.calls.window);
        let answers = self.ctx.all(recipient.idents.iter().map(|ident| calls.benefit(ident)).collect::<Vec<_>>())?;
        let mut entries = Vec::new();
        for (ident, answer) in recipient.idents.iter().zip(answers) {
            let raw = Raw::benefit(ident, window, answer);
            // Of the answers before this one nothing is kept.
            let ended =
                |trouble: Trouble| Ended::Trouble(trouble.into(), raw::joined([&raw].into_iter().chain(self.people.recipient_raw())));
            for case in benefit::read(answer).map_err(|text| stop("barnetrygd-error", text))? {
                let entry = case.map(window).map_err(|refused| match refused {
                    Refused::Error(text) => stop("barnetrygd-error", text).into(),
                    Refused::Impossible(text) => ended(Trouble::data(&text)),
                })?;
                entries.push(entry.merged().map_err(|overlap| ended(Trouble::benefit_overlap(overlap)))?);
            }
            self.benefits.push(raw);
        }
        Ok(entries)
    }

    /// S3 and S6: current numbers in place of all others, entry by entry, the owner first; each entry merged by itself.
    fn with_current(&mut self, entries: Vec<Entry>, overlap: fn(Overlap) -> Trouble) -> Result<Vec<Entry>, Ended> {
        self.people.ask_ahead(entries.iter().flat_map(numbers).map(|(ident, _)| ident))?;
        entries
            .into_iter()
            .map(|entry| {
                let entry = self.current(entry)?;
                entry.merged().map_err(|found| self.ended(overlap(found)))
            })
            .collect()
    }

    fn current(&mut self, mut entry: Entry) -> Result<Entry, Ended> {
        entry.owner = self.number(&entry.owner, Role::BenefitOwner)?;
        for period in &mut entry.benefits {
            period.child = self.number(&period.child, Role::BenefitChild)?;
        }
        for period in &mut entry.supports {
            period.child = self.number(&period.child, Role::SupportChild)?;
        }
        Ok(entry)
    }

    fn number(&mut self, ident: &str, role: Role) -> Result<String, Ended> {
        match self.people.person(ident, role) {
            Ok(person) => Ok(person.current.clone()),
            Err(Nobody::Stop(stop)) => Err(stop.into()),
            Err(Nobody::Trouble(trouble, answer)) => {
                // Before support was asked for, only the recipient's own look-up is kept; afterwards all are.
                let looked_up =
                    if self.supports.is_empty() { self.people.recipient_raw().cloned().into_iter().collect() } else { self.people.raw() };
                let raw = raw::joined(self.benefits.iter().chain(&looked_up).chain(&answer).chain(&self.supports));
                Err(Ended::Trouble(trouble, raw))
            }
        }
    }

    /// S5: the support decisions of every number of every child, then both lists of each owner merged.
    fn with_supports(&mut self, mut entries: Vec<Entry>) -> Result<Vec<Entry>, Ended> {
        let mut wanted: Vec<Vec<String>> = Vec::with_capacity(entries.len());
        for entry in &entries {
            wanted.push(self.numbers_of_children(entry)?);
        }
        let mut calls: BTreeMap<&str, Call> = BTreeMap::new();
        for ident in wanted.iter().flatten() {
            calls.entry(ident).or_insert_with(|| self.calls.support(ident));
        }
        let answers = self.ctx.all(calls.values().cloned().collect::<Vec<_>>())?;
        let answers: BTreeMap<&str, _> = calls.into_keys().zip(answers).collect();
        let mut raw: Vec<Raw> = Vec::new();
        for (entry, idents) in entries.iter_mut().zip(&wanted) {
            for ident in idents {
                let answer = answers[ident.as_str()];
                let decisions = support::read(answer).map_err(|text| stop("hjelpestonad-error", text))?;
                entry.supports.extend(decisions.iter().filter_map(|decision| decision.map(self.calls.window)));
                raw.push(Raw::support(ident, self.calls.window, answer));
            }
        }
        let merged = entries.into_iter().map(Entry::merged).collect::<Result<_, _>>();
        // The support answers are kept from here on: what overlaps inside them is told without them.
        let merged = merged.map_err(|overlap| self.ended(Trouble::support_overlap(overlap)))?;
        self.supports = raw::joined(&raw);
        Ok(merged)
    }

    /// Every number of an entry's children. They were looked up before, so that nothing can be wrong with them here but for good.
    fn numbers_of_children(&mut self, entry: &Entry) -> Result<Vec<String>, Ended> {
        let mut idents = Vec::new();
        for child in entry.children() {
            match self.people.person(child, Role::BenefitChild) {
                Ok(person) => idents.extend(person.idents.iter().cloned()),
                Err(Nobody::Stop(stop)) => return Err(stop.into()),
                Err(Nobody::Trouble(trouble, _)) => return Err(stop("UgyldigIdent", trouble.message).into()),
            }
        }
        Ok(idents)
    }

    /// Every raw answer so far: benefit, persons, support.
    fn all_raw(&self) -> Vec<Raw> {
        let people = self.people.raw();
        raw::joined(self.benefits.iter().chain(&people).chain(&self.supports))
    }

    fn ended(&self, trouble: Trouble) -> Ended {
        Ended::Trouble(trouble.into(), self.all_raw())
    }
}

/// The numbers of an entry in the order in which they are looked up, and whose they are.
fn numbers(entry: &Entry) -> impl Iterator<Item = (&str, Role)> {
    let benefits = entry.benefits.iter().map(|period| (period.child.as_str(), Role::BenefitChild));
    let supports = entry.supports.iter().map(|period| (period.child.as_str(), Role::SupportChild));
    [(entry.owner.as_str(), Role::BenefitOwner)].into_iter().chain(benefits).chain(supports)
}

fn stop(code: &str, text: String) -> Stop {
    Outcome::retry(code, text).into()
}
