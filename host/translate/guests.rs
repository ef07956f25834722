//! The engine's way to guests: puts messages into CPU tasks, a key's line ahead of its turn where that is safe, and takes verdicts back.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::engine::{Engine, Event};
use super::judge::{self, Said};
use super::run::{Feed, Run, Seq};
use super::suspects::KILLED_HOST;
use crate::message::{Message, Status};
use crate::plugin::{Context, Outcome, Verdict, Wait};
use crate::registry::{Active, Snapshot};
use crate::runtime::{Instances, Runtime, Trouble};
use crate::store::{self, Pausable, Paused};

/// Messages that one CPU task runs.
const TASK_MESSAGES: usize = 64;
/// Messages of one key that are run ahead in one CPU task.
const AHEAD: usize = 32;
/// How soon a message of a paused table is looked at again, should its resume be missed, in milliseconds.
pub(super) const PAUSED_MS: u64 = 60_000;
/// The code of a message whose guest the machine could not run.
const ENGINE: &str = "engine";
/// How soon it is tried again, in milliseconds.
const ENGINE_MS: u64 = 1_000;
/// The code of a message that was taken along in a CPU task but not run.
const NOT_RUN: &str = "not-run";

pub(super) struct Work {
    pub(super) seq: Seq,
    pub(super) message: Arc<Message>,
    pub(super) feed: Arc<Feed>,
    pub(super) active: Arc<Active>,
    pub(super) context: Context,
}

impl Engine {
    pub(super) fn dispatch(&mut self) {
        while !self.ready.is_empty() {
            let snapshot = self.parts.registry.snapshot();
            let mut task = Vec::new();
            let mut tasks = Vec::new();
            let mut suspects = Vec::new();
            for seq in std::mem::take(&mut self.ready) {
                let works = self.gather(seq, &snapshot);
                if works.is_empty() {
                    continue;
                }
                if self.is_suspect(seq) {
                    suspects.push(works);
                    continue;
                }
                task.push(works);
                if task.len() >= TASK_MESSAGES {
                    tasks.push(std::mem::take(&mut task));
                }
            }
            if !task.is_empty() {
                tasks.push(task);
            }
            for task in tasks {
                self.spawn(task);
            }
            if !suspects.is_empty() {
                self.spawn_suspects(suspects);
            }
        }
    }

    /// The head of a key, and what may be run ahead behind it, for a CPU task; settles at once what needs no guest.
    fn gather(&mut self, head: Seq, snapshot: &Snapshot) -> Vec<Work> {
        let Some(run) = self.runs.get(&head) else { return Vec::new() };
        let key = run.key();
        let line: Vec<Seq> = self.lanes.line(&key).map(|chain| chain.line.iter().take(AHEAD).copied().collect()).unwrap_or_default();
        let mut works = Vec::new();
        for seq in line {
            let Some(run) = self.runs.get_mut(&seq) else { break };
            let ahead = seq != head;
            if run.ordered.is_some() {
                // Its turn, and not before: what it would have said does not matter any more.
                if !ahead {
                    self.finish_ordered(seq);
                }
                break;
            }
            if run.running || run.open > 0 || (ahead && (run.rounds > 0 || run.judged.is_some())) {
                break;
            }
            if let Some(hold) = self.held(seq) {
                if seq == head && works.is_empty() {
                    self.hold(seq, hold);
                }
                break;
            }
            let run = self.runs.get_mut(&seq).expect("it was there");
            if run.active.is_none() {
                if let Some(said) = self.without_guest(seq, snapshot) {
                    // Only a head may finish; what stands further back waits for its turn.
                    if seq == head && works.is_empty() {
                        match said {
                            Some(said) => self.finish(seq, said),
                            None => self.want_translator(seq),
                        }
                    }
                    break;
                }
                self.activate(seq, snapshot);
            }
            if ahead && self.is_paced(seq) {
                break;
            }
            if let Some(said) = self.not_yet(seq) {
                if !ahead {
                    self.finish(seq, said);
                }
                break;
            }
            let run = self.runs.get_mut(&seq).expect("it was there");
            if ahead && run.active.as_ref().is_some_and(|active| self.asking.contains(&active.activation)) {
                break;
            }
            run.running = true;
            works.push(Work {
                seq,
                message: run.message.clone(),
                feed: run.feed.clone(),
                active: run.active.clone().expect("activated above"),
                context: run.context.clone(),
            });
        }
        works
    }

    /// What becomes of a message that no guest runs for; `Some(None)`: it waits for a translator.
    fn without_guest(&self, seq: Seq, snapshot: &Snapshot) -> Option<Option<Said>> {
        let run = &self.runs[&seq];
        if let Some(prejudged) = &run.message.prejudged {
            let (status, code, reason) = (prejudged.status, prejudged.code.clone(), prejudged.reason.clone());
            return Some(Some(Said::Prejudged { status, code, reason }));
        }
        let table = &*run.message.table;
        if snapshot.find(&run.feed.name, table).is_some() {
            return None;
        }
        let tables = &run.feed.config.tables;
        if !tables.is_empty() && !tables.contains_key(table) {
            let reason = format!(
                "table \"{table}\" is not among feeds.{}.tables and has no plugin; `tolk activate` one, then replay",
                run.feed.name
            );
            return Some(Some(Said::Prejudged { status: Status::Invalid, code: "unknown-table".to_owned(), reason }));
        }
        Some(None)
    }

    /// Whether the messages of its key keep a distance in time.
    fn is_paced(&self, seq: Seq) -> bool {
        let run = &self.runs[&seq];
        run.feed.min_key_interval_ms(&run.message.table) > 0
    }

    /// Why a message may not run now although its turn has come: its table is paused, or its key ended a moment ago.
    fn not_yet(&self, seq: Seq) -> Option<Said> {
        let run = &self.runs[&seq];
        // What has begun goes on.
        if run.rounds > 0 || run.conflicts > 0 {
            return None;
        }
        let table = &*run.message.table;
        let pauses = self.parts.pauses.load();
        let of = |paused: &&Paused| matches!(&paused.of, Pausable::Table { feed, table: name } if *feed == run.feed.name && name == table);
        if let Some(paused) = pauses.iter().find(of) {
            let Paused { by, why, .. } = paused;
            let resume = format!("`tolk resume --feed {} --table {table}`", run.feed.name);
            let reason = format!("{by} paused the table: {why}; {resume}");
            return Some(Said::Parked { code: store::actions::PAUSED, reason, after_ms: PAUSED_MS, on: Vec::new() });
        }
        let interval = run.feed.min_key_interval_ms(table);
        if interval == 0 {
            return None;
        }
        let after_ms = self.pace.wait_ms(&run.key(), interval, self.now_ms)?;
        let reason = format!("its key ended less than min_key_interval_ms = {interval} ago");
        Some(Said::Parked { code: "paced", reason, after_ms, on: Vec::new() })
    }

    fn want_translator(&mut self, seq: Seq) {
        let run = self.runs.get_mut(&seq).expect("it was there");
        let (feed, table) = (&run.feed.name, &run.message.table);
        let on = judge::translator_entries(feed, table);
        let reason =
            format!("no plugin is active for feed \"{feed}\" table \"{table}\"; `tolk activate PLUGIN --feed {feed} --table {table}`");
        let wait = Wait { code: judge::NO_TRANSLATOR.to_owned(), reason, on, timeout_ms: None };
        self.conclude(seq, Outcome::Waiting(wait));
    }

    /// Gives a message the plugin it was told to run with, in place of the active one.
    pub(super) fn pin(&mut self, run: &mut Run, active: Arc<Active>) {
        run.revision = self.parts.registry.snapshot().revision;
        run.active = Some(active);
        *self.revisions.entry(run.revision).or_default() += 1;
    }

    fn activate(&mut self, seq: Seq, snapshot: &Snapshot) {
        let run = self.runs.get_mut(&seq).expect("it was there");
        run.active = snapshot.find(&run.feed.name, &run.message.table).cloned();
        run.revision = snapshot.revision;
        run.context.now_ms = self.now_ms.max(run.context.now_ms);
        *self.revisions.entry(snapshot.revision).or_default() += 1;
    }

    fn spawn(&self, task: Vec<Vec<Work>>) {
        let (runtime, sender) = (self.parts.runtime.clone(), self.sender.clone());
        tokio::spawn(async move { run(&runtime, task, &sender).await });
    }

    pub(super) fn ran(&mut self, seq: Seq, result: Result<Verdict, Trouble>) {
        let Some(run) = self.runs.get_mut(&seq) else { return };
        run.running = false;
        let verdict = match result {
            Ok(verdict) => verdict,
            Err(trouble) if trouble.code == NOT_RUN || !self.is_first(seq) => return self.revive(seq),
            // The machine's trouble, not the guest's: no memory for an instance, no place.
            Err(trouble) if trouble.code == ENGINE => {
                return self.finish(seq, Said::Parked { code: ENGINE, reason: trouble.text, after_ms: ENGINE_MS, on: Vec::new() });
            }
            Err(trouble) => {
                let reason = if trouble.code == KILLED_HOST { self.killed_by(seq, &trouble.text) } else { trouble.text };
                return self.finish(seq, Said::Trouble { code: trouble.code.to_owned(), reason });
            }
        };
        for line in &verdict.log {
            tracing::info!(target: "tolk::guest", feed = run.feed.name, partition = run.message.captured.partition,
                offset = run.message.captured.offset, "{line}");
        }
        if matches!(verdict.outcome, Outcome::Needs(_)) {
            self.asking.extend(run.active.as_ref().map(|active| active.activation));
        }
        if !self.is_first(seq) {
            // Run ahead: an end waits for its turn, anything else runs again then.
            let run = self.runs.get_mut(&seq).expect("it just ran");
            run.judged = Some(verdict.outcome).filter(|outcome| !matches!(outcome, Outcome::Needs(_)));
            return;
        }
        match verdict.outcome {
            Outcome::Needs(requests) => self.needs(seq, requests),
            outcome => self.conclude(seq, outcome),
        }
    }

    pub(super) fn is_first(&self, seq: Seq) -> bool {
        let key = self.runs[&seq].key();
        self.lanes.line(&key).and_then(|chain| chain.line.front()) == Some(&seq)
    }

    /// A message that was taken along but not run: if it is first in its line by now, it runs.
    fn revive(&mut self, seq: Seq) {
        if self.is_first(seq) {
            self.ready.push(seq);
        }
    }
}

/// Runs lines of keys on a CPU thread, and tells the loop.
pub(super) async fn run(runtime: &Runtime, task: Vec<Vec<Work>>, sender: &UnboundedSender<Event>) {
    let run = move |instances: &mut Instances| {
        let mut results = Vec::with_capacity(task.len());
        for line in task {
            let mut ended = false;
            for work in line {
                // Behind a message that did not end, a later one of its key must not have run.
                let result = if ended {
                    None
                } else {
                    let translator = &work.active.translator;
                    crate::faults::here("guest", "begin");
                    crate::faults::keyed("guest", work.message.captured.key.as_deref());
                    let result = translator.translate(instances, &work.message, &work.feed.name, &work.context);
                    crate::faults::here("guest", "done");
                    Some(result)
                };
                ended |= !matches!(
                    &result,
                    Some(Ok(Verdict { outcome: Outcome::Translated(_) | Outcome::Ignored(_) | Outcome::Rejected(_), .. }))
                );
                results.push((work.seq, result));
            }
        }
        results
    };
    for results in runtime.run(vec![run]).await {
        let (ran, rest): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_some());
        let ran: Vec<_> = ran.into_iter().filter_map(|(seq, result)| Some((seq, result?))).collect();
        let _ = sender.send(Event::Ran(ran));
        give_back(rest.into_iter().map(|(seq, _)| seq), sender);
    }
}

/// Tells the loop of messages that were taken along but not run.
pub(super) fn give_back(seqs: impl Iterator<Item = Seq>, sender: &UnboundedSender<Event>) {
    let back: Vec<_> = seqs.map(|seq| (seq, Err(Trouble { code: NOT_RUN, text: String::new() }))).collect();
    if !back.is_empty() {
        let _ = sender.send(Event::Ran(back));
    }
}
