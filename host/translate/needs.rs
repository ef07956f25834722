//! The engine's way to answers: what guests ask for becomes one read of the store and concurrent calls; answers bring their messages on.

use std::collections::HashMap;

use super::engine::{Engine, Event};
use super::judge::Said;
use super::resolve::resolve;
use super::run::Seq;
use crate::endpoint::Called;
use crate::plugin::{Answer, Call, Reply, Request};
use crate::store;

impl Engine {
    pub(super) fn needs(&mut self, seq: Seq, requests: Vec<Request>) {
        let run = self.runs.get_mut(&seq).expect("it just ran");
        let limits = run.active.as_ref().expect("it ran").translator.limits();
        run.rounds += 1;
        run.needs += requests.len();
        let digest = run.active.as_ref().map(|active| active.translator.digest().short()).unwrap_or_default();
        let mut fresh: Vec<Request> = Vec::new();
        for request in requests {
            let request = canonical(request);
            if !run.context.answers.iter().any(|answer| answer.request == request) && !fresh.contains(&request) {
                fresh.push(request);
            }
        }
        let trouble = if run.rounds > limits.rounds_max {
            Some(("rounds-limit", format!("plugin {digest} asked for round {}, rounds_max is {}", run.rounds, limits.rounds_max)))
        } else if run.needs > limits.needs_max {
            Some(("needs-limit", format!("plugin {digest} asked for {} things, needs_max is {}", run.needs, limits.needs_max)))
        } else if fresh.is_empty() {
            Some(("no-progress", format!("plugin {digest} asked only for what it had been answered")))
        } else {
            None
        };
        if let Some((code, reason)) = trouble {
            return self.finish(seq, Said::Trouble { code: code.to_owned(), reason });
        }
        run.open += fresh.len();
        for request in fresh {
            match request {
                Request::Call(call) => self.call(seq, call),
                request => self.wanted.push((seq, request, true)),
            }
        }
    }

    fn call(&self, seq: Seq, call: Call) {
        let (caller, sender) = (self.parts.caller.clone(), self.sender.clone());
        let origin = self.runs[&seq].message.id;
        if let Some(paused) = self.paused(&call.endpoint) {
            // By the same way as every answer: the rest of this round's calls are still to be made.
            let _ = sender.send(Event::Called(seq, call, paused));
            return;
        }
        tokio::spawn(async move {
            let called = caller.call(&call, origin).await;
            let _ = sender.send(Event::Called(seq, call, called));
        });
    }

    pub(super) fn called(&mut self, seq: Seq, call: Call, called: Called) {
        if !self.runs.contains_key(&seq) {
            return;
        }
        let first = self.is_first(seq);
        let run = self.runs.get_mut(&seq).expect("it is there");
        let reply = match called {
            // Only the first of its key may end: this one asks again when its turn comes.
            Called::Failed { .. } | Called::Away { .. } | Called::Wrong { .. }
                if !first && (!call.lenient || matches!(called, Called::Wrong { .. })) =>
            {
                run.open -= 1;
                return self.resume(seq);
            }
            Called::Response(response) => Reply::Response(response),
            Called::Away { reason, .. } if call.lenient => Reply::Unreachable(reason),
            Called::Failed { reason, .. } if call.lenient => Reply::Unreachable(reason),
            Called::Failed { code, reason, after_ms } => return self.finish(seq, Said::Attempt { code, reason, after_ms }),
            Called::Away { reason, after_ms } => return self.park(seq, call, reason, after_ms),
            Called::Wrong { reason } => return self.finish(seq, Said::Trouble { code: "bad-call".to_owned(), reason }),
        };
        if let Reply::Response(response) = &reply {
            self.bytes += response.body.len();
        }
        run.context.answers.push(Answer { request: Request::Call(call), reply });
        run.open -= 1;
        self.resume(seq);
    }

    pub(super) fn send_reads(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        let wanted = std::mem::take(&mut self.wanted);
        let (store, sender) = (self.parts.store.clone(), self.sender.clone());
        tokio::spawn(async move {
            let mut index: HashMap<&Request, usize> = HashMap::new();
            let mut requests = Vec::new();
            for (_, request, _) in &wanted {
                index.entry(request).or_insert_with(|| {
                    requests.push(request.clone());
                    requests.len() - 1
                });
            }
            let snapshot = store.read(&requests).await.map(|snapshot| {
                let found = wanted.iter().map(|(_, request, _)| snapshot.found[index[request]].clone()).collect();
                store::Snapshot { at: snapshot.at, found }
            });
            let _ = sender.send(Event::Read(wanted, snapshot));
        });
    }

    pub(super) fn read(&mut self, wanted: Vec<(Seq, Request, bool)>, snapshot: store::Snapshot) {
        let mut touched = Vec::new();
        for ((seq, request, visible), found) in wanted.into_iter().zip(&snapshot.found) {
            let Some(run) = self.runs.get_mut(&seq) else { continue };
            let resolved = resolve(&request, found, snapshot.at, &self.overlay, &self.parts.secret);
            run.seen.push(resolved.seen);
            run.derived.extend(resolved.derived);
            let answers = if visible { &mut run.context.answers } else { &mut run.hidden };
            answers.push(Answer { request, reply: resolved.reply });
            run.open -= 1;
            touched.push(seq);
        }
        touched.dedup();
        touched.into_iter().for_each(|seq| self.resume(seq));
    }

    /// Once everything asked for is there: the next round, or the end that waited for the host's own reads.
    fn resume(&mut self, seq: Seq) {
        let Some(run) = self.runs.get_mut(&seq) else { return };
        if run.open > 0 {
            return;
        }
        // An earlier one of its key came back meanwhile, to run again: this one goes on when its turn comes.
        if !self.is_first(seq) {
            return;
        }
        let run = self.runs.get_mut(&seq).expect("it was there");
        match run.judged.take() {
            Some(outcome) => self.conclude(seq, outcome),
            None if !run.running => self.ready.push(seq),
            None => {}
        }
    }
}

/// Requests are compared with their parameters sorted.
fn canonical(request: Request) -> Request {
    match request {
        Request::Call(mut call) => {
            call.params.sort();
            Request::Call(call)
        }
        request => request,
    }
}
