//! One attempt of one message: runs the guest round by round, answers from the case and the world, and holds it to the contract's rules
//! as the translate loop does. Knows nothing of wasmtime; a guest is whatever translates.

use std::time::Duration;

use super::case::Case;
use super::world::World;
use crate::message::Message;
use crate::plugin::{Answer, Binding, Context, Fault, Limits, Outcome, Reply, Request, Verdict, Write};
use crate::runtime::Trouble;

/// What translates: a component in its sandbox (which also holds it to its capability sheet), or a closure of a test.
pub trait Guest {
    /// Translates one message.
    fn translate(&mut self, message: &Message, feed: &str, context: &Context) -> Result<Verdict, Trouble>;
    /// The limits.
    fn limits(&self) -> &Limits;
    /// CPU time of all calls so far, and the largest memory of an instance in bytes.
    fn used(&self) -> (Duration, usize);
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The guest's last word (never `Needs`), or `rejected` for a binding that conflicts.
    Outcome(Outcome),
    /// It broke a rule or a limit.
    Trouble { code: String, text: String },
    /// It asked for calls that have no stored answer.
    Unanswered(Vec<Request>),
}

/// What an attempt came to and what it took.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// How it ended.
    pub end: End,
    /// The guest's log.
    pub log: Vec<String>,
    /// Stored answers that nobody asked for.
    pub unused: Vec<Request>,
    /// Rounds.
    pub rounds: usize,
    /// Requests.
    pub needs: usize,
    /// CPU time.
    pub cpu: Duration,
    /// The largest memory of the instance so far, in bytes.
    pub memory_bytes: usize,
}

/// Runs an attempt and leaves what it wrote in the world.
pub fn run(guest: &mut dyn Guest, case: &Case, world: &mut World) -> Attempt {
    let (cpu_before, _) = guest.used();
    let mut course = Course { context: case.context.clone(), log: Vec::new(), rounds: 0, needs: 0 };
    let end = match course.run(guest, case, world) {
        End::Outcome(outcome) => settle(outcome, &course.context.answers, world),
        end => end,
    };
    let asked = &course.context.answers;
    let unused = case.answers.iter().map(|answer| &answer.request);
    let unused = unused.filter(|request| !asked.iter().any(|answer| same(&answer.request, request))).cloned().collect();
    let (cpu, memory_bytes) = guest.used();
    Attempt { end, log: course.log, unused, rounds: course.rounds, needs: course.needs, cpu: cpu.saturating_sub(cpu_before), memory_bytes }
}

struct Course {
    context: Context,
    log: Vec<String>,
    rounds: usize,
    needs: usize,
}

impl Course {
    fn run(&mut self, guest: &mut dyn Guest, case: &Case, world: &World) -> End {
        loop {
            self.rounds += 1;
            let verdict = match guest.translate(&case.message, &case.feed, &self.context) {
                Ok(verdict) => verdict,
                Err(Trouble { code, text }) => return trouble(code, text),
            };
            self.log.extend(verdict.log);
            let requests = match verdict.outcome {
                Outcome::Needs(requests) => requests,
                outcome => return End::Outcome(outcome),
            };
            let requests = match self.fresh(guest, requests) {
                Ok(requests) => requests,
                Err((code, text)) => return trouble(code, text),
            };
            if let Some(end) = self.answer(&requests, case, world) {
                return end;
            }
        }
    }

    /// What is new in a round, each once; or why the round may not be.
    fn fresh(&mut self, guest: &dyn Guest, requests: Vec<Request>) -> Result<Vec<Request>, (&'static str, String)> {
        self.needs += requests.len();
        let mut fresh: Vec<Request> = Vec::new();
        for request in requests.into_iter().map(canonical) {
            let is_known = self.context.answers.iter().map(|answer| &answer.request).chain(&fresh).any(|known| same(known, &request));
            if !is_known {
                fresh.push(request);
            }
        }
        let Limits { rounds_max, needs_max, .. } = guest.limits();
        if self.rounds > *rounds_max {
            return Err(("rounds-limit", format!("rounds_max is {rounds_max}, and after so many it asks for more")));
        }
        if self.needs > *needs_max {
            return Err(("needs-limit", format!("needs_max is {needs_max}, asked for {}", self.needs)));
        }
        if fresh.is_empty() {
            return Err(("no-progress", "it asks for nothing that it was not answered already".to_owned()));
        }
        Ok(fresh)
    }

    fn answer(&mut self, requests: &[Request], case: &Case, world: &World) -> Option<End> {
        let mut missing = Vec::new();
        for request in requests {
            let stored = case.answers.iter().find(|answer| same(&answer.request, request)).map(|answer| answer.reply.clone());
            match stored.or_else(|| world.answer(request)) {
                Some(reply) => self.context.answers.push(Answer { request: request.clone(), reply }),
                None => missing.push(request.clone()),
            }
        }
        (!missing.is_empty()).then_some(End::Unanswered(missing))
    }
}

/// Whether two requests ask the same.
fn same(a: &Request, b: &Request) -> bool {
    a == b || canonical(a.clone()) == canonical(b.clone())
}

/// A request in the form that a host answers: the order of a call's parameters does not count.
fn canonical(mut request: Request) -> Request {
    if let Request::Call(call) = &mut request {
        call.params.sort();
    }
    request
}

fn trouble(code: &str, text: String) -> End {
    End::Trouble { code: code.to_owned(), text }
}

/// Leaves writes, bindings and the ids that were made in the world, as a settlement would.
fn settle(outcome: Outcome, answers: &[Answer], world: &mut World) -> End {
    let (writes, bindings): (&[Write], &[Binding]) = match &outcome {
        Outcome::Translated(translation) => (&translation.writes, &translation.bindings),
        Outcome::Ignored(dismissal) => (&dismissal.writes, &dismissal.bindings),
        _ => return End::Outcome(outcome),
    };
    let made = answers.iter().filter_map(|answer| match (&answer.request, &answer.reply) {
        (Request::Id { namespace, key }, Reply::Id(id)) => Some(Binding { namespace: namespace.clone(), key: key.clone(), id: id.clone() }),
        _ => None,
    });
    let all: Vec<Binding> = made.chain(bindings.iter().cloned()).collect();
    if let Err(message) = world.bind(&all) {
        return End::Outcome(Outcome::Rejected(Fault { code: "id-conflict".to_owned(), message, ..Fault::default() }));
    }
    world.write(writes);
    End::Outcome(outcome)
}

#[cfg(test)]
mod tests {
    use super::super::case::Tables;
    use super::*;
    use crate::plugin::{Call, Translation};

    type Translate = fn(&Context) -> Outcome;

    struct Native(Translate, Limits);

    impl Guest for Native {
        fn translate(&mut self, _message: &Message, _feed: &str, context: &Context) -> Result<Verdict, Trouble> {
            Ok(Verdict { outcome: (self.0)(context), log: vec!["round".into()] })
        }
        fn limits(&self) -> &Limits {
            &self.1
        }
        fn used(&self) -> (Duration, usize) {
            (Duration::ZERO, 0)
        }
    }

    fn attempt(translate: Translate, rest: &str, world: &mut World) -> Attempt {
        let mut guest = Native(translate, Limits { rounds_max: 3, needs_max: 4, ..Limits::default() });
        let case = Case::read(&format!("{{\"table\": \"T\", \"payload\": null{rest}}}"), 1, &Tables::default(), &[]).unwrap();
        run(&mut guest, &case, world)
    }

    fn code(translate: Translate) -> String {
        match attempt(translate, "", &mut World::default()).end {
            End::Trouble { code, .. } => code,
            other => panic!("{other:?}"),
        }
    }

    fn id(key: &str) -> Request {
        Request::Id { namespace: "n".into(), key: key.into() }
    }

    fn call(params: &[(&str, &str)]) -> Request {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Request::Call(Call { endpoint: "e".into(), params, body: None, lenient: false })
    }

    fn done() -> Outcome {
        Outcome::Translated(Translation::default())
    }

    #[test]
    fn rules_of_the_contract_are_held() {
        assert_eq!(code(|_| Outcome::Needs(vec![id("k")])), "no-progress");
        assert_eq!(code(|_| Outcome::Needs(vec![])), "no-progress");
        let again: Translate = |context| match context.answers.len() {
            0 => Outcome::Needs(vec![id("k"), id("k")]),
            1 => Outcome::Needs(vec![id("k"), id("l")]),
            _ => done(),
        };
        let got = attempt(again, "", &mut World::default());
        assert_eq!((got.end, got.rounds, got.needs), (End::Outcome(done()), 3, 4), "asking again is no fault while something new is asked");
        assert_eq!(code(|context| Outcome::Needs(vec![id(&context.answers.len().to_string())])), "rounds-limit");
        assert_eq!(code(|_| Outcome::Needs((0..5).map(|i| id(&i.to_string())).collect())), "needs-limit");
    }

    #[test]
    fn calls_are_answered_from_the_case_or_the_case_fails() {
        let translate: Translate = |context| match context.answers.len() {
            0 => Outcome::Needs(vec![call(&[("b", "2"), ("a", "1")])]),
            _ => done(),
        };
        let stored = r#", "answers": [
            {"request": {"call": {"endpoint": "e", "params": {"a": "1", "b": "2"}}}, "reply": {"response": {"status": 200}}},
            {"request": {"call": {"endpoint": "e"}}, "reply": {"response": {"status": 200}}}]"#;
        let got = attempt(translate, stored, &mut World::default());
        assert_eq!((got.end, got.rounds, got.needs, got.log.len()), (End::Outcome(done()), 2, 1, 2));
        assert_eq!(got.unused, [call(&[])]);
        let got = attempt(translate, "", &mut World::default());
        assert_eq!(got.end, End::Unanswered(vec![call(&[("a", "1"), ("b", "2")])]));
    }

    #[test]
    fn later_messages_see_what_earlier_ones_left() {
        let mut world = World::default();
        let writes: Translate = |context| match context.answers.len() {
            0 => Outcome::Needs(vec![id("k")]),
            _ => {
                let write = Write { collection: "w".into(), key: "k".into(), value: Some("1".into()), indexes: vec![] };
                Outcome::Translated(Translation { writes: vec![write], ..Translation::default() })
            }
        };
        assert!(matches!(attempt(writes, "", &mut world).end, End::Outcome(Outcome::Translated(_))));
        let reads: Translate = |context| match context.answers.as_slice() {
            [] => Outcome::Needs(vec![
                Request::Entry { collection: "w".into(), key: "k".into() },
                Request::KnownId { namespace: "n".into(), key: "k".into() },
            ]),
            [entry, known] => {
                assert_eq!(entry.reply, Reply::Entry(Some("1".into())));
                assert!(matches!(known.reply, Reply::KnownId(Some(_))));
                let binding = Binding { namespace: "n".into(), key: "k".into(), id: uuid::Uuid::from_u128(1).to_string() };
                Outcome::Translated(Translation { bindings: vec![binding], ..Translation::default() })
            }
            _ => unreachable!(),
        };
        let End::Outcome(Outcome::Rejected(fault)) = attempt(reads, "", &mut world).end else { panic!("a conflict") };
        assert_eq!(fault.code, "id-conflict");
    }
}
