//! Turns what a translator (or the host in its place) said into what is settled: status, work row, outcome row. Pure.

use bytes::Bytes;

use super::actions::Ordered;
use super::revisit::Published;
use super::run::{Feed, Finished, InHand, Run};
use super::suspects::KILLED_HOST;
use crate::feed::{KeepAnswers, Policy};
use crate::message::Status;
use crate::plugin::{Binding, Cause, Fault, Outcome, Reply, Request, Wait};
use crate::registry::TRANSLATORS;
use crate::store::{ActionKind, End, Settled, WorkRow};

/// The code of a message whose table has no plugin.
pub const NO_TRANSLATOR: &str = "no-translator";

/// What became of an attempt.
#[derive(Debug)]
pub enum Said {
    /// The guest's word (never `Needs`).
    Outcome(Outcome),
    /// The attempt failed outside the guest and counts: a retried status.
    Attempt { code: String, reason: String, after_ms: Option<u64> },
    /// The attempt could not be made and does not count: an endpoint is away. It is tried again after a time, or when one of `on` changes.
    Parked { code: &'static str, reason: String, after_ms: u64, on: Vec<Request> },
    /// The plugin or its call is at fault: a trap, a limit, no progress.
    Trouble { code: String, reason: String },
    /// Ingest had judged it.
    Prejudged { status: Status, code: String, reason: String },
    /// An earlier message of its key is not done.
    Behind,
    /// An operator asked for it.
    Ordered(Ordered),
    /// Its delivery is not complete.
    Held { reason: String },
}

/// The entries that tell whether a table of a feed has a plugin: of its own, or the feed's for every table.
pub fn translator_entries(feed: &str, table: &str) -> Vec<Request> {
    let entry = |table: &str| Request::Entry { collection: TRANSLATORS.to_owned(), key: format!("{feed}/{table}") };
    vec![entry(table), entry("*")]
}

/// A message that waits for a plugin although one is active by now: this host has not loaded it yet, or cannot.
pub fn not_loaded(run: &Run, outcome: &Outcome) -> bool {
    let waits = matches!(outcome, Outcome::Waiting(wait) if wait.code == NO_TRANSLATOR);
    waits && run.hidden.iter().any(|answer| matches!(answer.reply, Reply::Entry(Some(_))))
}

/// What a binding must be checked against, and what a wait is relative to: requests the host reads for itself.
pub fn host_reads(run: &Run, outcome: &Outcome) -> Vec<Request> {
    let (bindings, on): (&[Binding], &[Request]) = match outcome {
        Outcome::Translated(translation) => (&translation.bindings, &[]),
        Outcome::Ignored(dismissal) => (&dismissal.bindings, &[]),
        Outcome::Waiting(wait) => (&[], &wait.on),
        _ => (&[], &[]),
    };
    let both = bindings.iter().flat_map(|binding| {
        let Binding { namespace, key, id } = binding.clone();
        [Request::KnownId { namespace: namespace.clone(), key }, Request::KeyOf { namespace, id }]
    });
    let mut wanted: Vec<Request> = Vec::new();
    for request in both.chain(on.iter().filter(|request| !matches!(request, Request::Call(_))).cloned()) {
        if !wanted.contains(&request) && !run.seen.iter().any(|seen| seen.request == request) {
            wanted.push(request);
        }
    }
    wanted
}

/// The settled form of an attempt.
pub fn judge(mut run: InHand, said: Said) -> Finished {
    let said = match said {
        Said::Outcome(outcome) => match id_conflict(&run, &outcome) {
            Some(reason) => Said::Outcome(Outcome::Rejected(Fault { code: "id-conflict".to_owned(), message: reason, ..Fault::default() })),
            None => Said::Outcome(outcome),
        },
        said => said,
    };
    let mut settled = blank(&run);
    run.revisit = revisit(&run, &said);
    fill(&run, said, &mut settled);
    let handled = settled.work.is_none() && settled.end.as_ref().is_none_or(|end| end.status == Status::Handled);
    settled.drops_older = handled && run.feed.policy(&run.message.table) == Policy::NewestWins;
    settled.answers = kept_answers(&run, &settled);
    let blocks = settled.work.as_ref().is_some_and(|row| row.blocks);
    Finished { run, settled, blocks }
}

/// A message that the cursor passes while it goes on running: a row in `work` that is due to nobody but a next owner.
pub fn running(run: &Run) -> Settled {
    let row = WorkRow { cause: run.context.cause, ..row(run, Status::Pending, String::new(), String::new()) };
    Settled { work: Some(row), ..blank(run) }
}

fn blank(run: &Run) -> Settled {
    Settled {
        run: run.run,
        activation: run.active.as_ref().map(|active| active.activation),
        had_work: run.row.is_some(),
        ..Settled::of(&run.message)
    }
}

fn fill(run: &Run, said: Said, settled: &mut Settled) {
    match said {
        Said::Outcome(Outcome::Translated(translation)) => {
            settled.outputs = match run.errand.as_ref().and_then(|errand| errand.published.as_ref()) {
                Some(published) => published.changed(translation.outputs),
                None => translation.outputs,
            };
            settled.writes = translation.writes;
            settled.bindings = with_derived(run, translation.bindings);
            // Simply handled at its first attempt: the range says it all, or the action.
            let plain = run.is_new() || run.row.is_none() && run.errand.as_ref().is_some_and(|errand| errand.plain);
            if !plain || translation.note.is_some() || run.message.delivery.is_some() {
                settled.end = Some(end(run, Status::Handled, String::new(), translation.note.unwrap_or_default()));
            }
        }
        Said::Outcome(Outcome::Ignored(dismissal)) => {
            settled.writes = dismissal.writes;
            settled.bindings = with_derived(run, dismissal.bindings);
            settled.end = Some(end(run, Status::Ignored, dismissal.code, dismissal.reason));
        }
        Said::Outcome(Outcome::Rejected(fault)) => settled.end = Some(end(run, Status::Invalid, fault.code.clone(), sentence(&fault))),
        Said::Outcome(Outcome::Failed(fault)) => settled.work = Some(failed(run, fault.code.clone(), sentence(&fault))),
        Said::Outcome(Outcome::Retry(fault)) => {
            settled.work = Some(retry(run, fault.code.clone(), sentence(&fault), fault.after_ms));
        }
        Said::Outcome(Outcome::Waiting(wait)) => settled.work = Some(waiting(run, wait)),
        Said::Outcome(Outcome::Needs(_)) => {
            settled.work = Some(failed(run, "no-progress".to_owned(), "needs are never an end".to_owned()));
        }
        Said::Attempt { code, reason, after_ms } => settled.work = Some(retry(run, code, reason, after_ms)),
        Said::Parked { code, reason, after_ms, on } => {
            let (due_ms, cause) = (Some(run.ended_ms().saturating_add_unsigned(after_ms)), Cause::Retry);
            settled.work = Some(WorkRow { due_ms, cause, waits: on, ..row(run, Status::Retry, code.to_owned(), reason) });
        }
        Said::Trouble { code, reason } => settled.work = Some(trouble(run, code, reason)),
        Said::Held { reason } => {
            settled.work = Some(WorkRow { cause: run.context.cause, ..row(run, Status::Held, "held".to_owned(), reason) });
        }
        Said::Prejudged { status, code, reason } => settled.end = Some(end(run, status, code, reason)),
        Said::Ordered(Ordered { kind, why, .. }) => match kind {
            ActionKind::Stop => settled.work = Some(row(run, Status::Stopped, "stopped".to_owned(), why)),
            ActionKind::Ignore => settled.end = Some(end(run, Status::Ignored, "operator".to_owned(), why)),
            _ => settled.end = Some(end(run, Status::Finished, "operator".to_owned(), why)),
        },
        Said::Behind => {
            let reason = "an earlier message of its key is not done".to_owned();
            settled.work = Some(WorkRow { cause: run.context.cause, ..row(run, Status::Behind, "behind".to_owned(), reason) });
        }
    }
}

/// The ids made for a message and those it binds; a bound id wins.
fn with_derived(run: &Run, bindings: Vec<Binding>) -> Vec<Binding> {
    let bound = |made: &&Binding| !bindings.iter().any(|binding| binding.namespace == made.namespace && binding.key == made.key);
    let mut all: Vec<Binding> = run.derived.iter().filter(bound).cloned().collect();
    all.extend(bindings);
    all
}

/// A row that blocks its key as the policy says, with what the message brought along.
fn row(run: &Run, status: Status, code: String, reason: String) -> WorkRow {
    let blocks = blocks(&run.feed, &run.message.table, status);
    WorkRow {
        place: run.message.place,
        run: run.run,
        key_hash: run.message.key_hash,
        status,
        blocks,
        attempts: run.attempts(),
        due_ms: None,
        cause: Cause::First,
        waiting_since_ms: run.row.as_ref().and_then(|row| row.waiting_since_ms),
        code,
        reason,
        activation: run.active.as_ref().map(|active| active.activation),
        pinned: run.pinned,
        waits: Vec::new(),
    }
}

/// Whether a row of this status holds back later messages of its key.
pub fn blocks(feed: &Feed, table: &str, status: Status) -> bool {
    match feed.policy(table) {
        Policy::Strict => true,
        Policy::Skip => !matches!(status, Status::Failed | Status::Stopped),
        Policy::NewestWins => false,
    }
}

/// When a translated message asks to be run again, and what it has published by then.
fn revisit(run: &Run, said: &Said) -> Option<(i64, String)> {
    let Said::Outcome(Outcome::Translated(translation)) = said else { return None };
    let at = translation.revisit_at_ms?;
    Some((at, Published::of(run.run, &translation.outputs).text()))
}

/// A row of a message that a person must decide on; tried again by itself after the feed's quarantine, where it has one.
fn failed(run: &Run, code: String, reason: String) -> WorkRow {
    let quarantine = run.feed.config.retry.quarantine_ms;
    let due_ms = quarantine.map(|after| run.context.now_ms.saturating_add_unsigned(after));
    WorkRow { due_ms, cause: Cause::Retry, ..row(run, Status::Failed, code, reason) }
}

/// A row that is tried again; by the class of its code, where the feed has one.
fn retry(run: &Run, code: String, reason: String, after_ms: Option<u64>) -> WorkRow {
    let config = &run.feed.config.retry;
    let class = config.classes.get(&code);
    let attempts = run.attempts() + 1;
    if attempts.cast_unsigned() >= class.and_then(|class| class.attempts_max).unwrap_or(config.attempts_max) {
        return WorkRow { attempts, ..failed(run, code, reason) };
    }
    let backoff_ms = class.and_then(|class| class.backoff_ms.as_ref()).unwrap_or(&config.backoff_ms);
    let step = usize::try_from(attempts - 1).unwrap_or(0).min(backoff_ms.len().saturating_sub(1));
    let after = after_ms.or_else(|| backoff_ms.get(step).copied()).unwrap_or(1_000);
    let due = run.ended_ms().saturating_add_unsigned(after);
    WorkRow { attempts, due_ms: Some(due), cause: Cause::Retry, ..row(run, Status::Retry, code, reason) }
}

/// A plugin or call at fault fails at once, unless the feed says that its class is tried again.
fn trouble(run: &Run, code: String, reason: String) -> WorkRow {
    // Never by itself: each try may end a host.
    if code == KILLED_HOST {
        return WorkRow { due_ms: None, ..failed(run, code, reason) };
    }
    if run.feed.config.retry.classes.contains_key(&code) { retry(run, code, reason, None) } else { failed(run, code, reason) }
}

fn waiting(run: &Run, wait: Wait) -> WorkRow {
    let timeout = wait.timeout_ms.unwrap_or(run.feed.config.wait_timeout_ms);
    let row = row(run, Status::Waiting, wait.code, wait.reason);
    WorkRow {
        due_ms: Some(run.context.now_ms.saturating_add_unsigned(timeout)),
        cause: Cause::Woken,
        waiting_since_ms: row.waiting_since_ms.or(Some(run.context.now_ms)),
        waits: wait.on.into_iter().filter(|request| !matches!(request, Request::Call(_))).collect(),
        ..row
    }
}

fn end(run: &Run, status: Status, code: String, reason: String) -> End {
    let activation = run.active.as_ref().map(|active| active.activation);
    End { status, code, reason, attempts: run.attempts(), activation, now_ms: run.context.now_ms }
}

fn sentence(fault: &Fault) -> String {
    match &fault.field {
        Some(field) => format!("{} (field {field})", fault.message),
        None => fault.message.clone(),
    }
}

/// A binding that conflicts, either way, with what is stored or bound by an earlier message.
fn id_conflict(run: &Run, outcome: &Outcome) -> Option<String> {
    let bindings = match outcome {
        Outcome::Translated(translation) => &translation.bindings,
        Outcome::Ignored(dismissal) => &dismissal.bindings,
        _ => return None,
    };
    let known = |request: &Request| run.hidden.iter().chain(&run.context.answers).find(|answer| answer.request == *request);
    bindings.iter().find_map(|binding| {
        let Binding { namespace, key, id } = binding;
        let by_key = known(&Request::KnownId { namespace: namespace.clone(), key: key.clone() });
        if let Some(Reply::KnownId(Some(other))) = by_key.map(|answer| &answer.reply)
            && !other.eq_ignore_ascii_case(id)
        {
            return Some(format!("the binding of {namespace} \"{key}\" to {id} conflicts: it is bound to {other}"));
        }
        let by_id = known(&Request::KeyOf { namespace: namespace.clone(), id: id.clone() });
        match by_id.map(|answer| &answer.reply) {
            Some(Reply::KeyOf(Some(other))) if other != key => {
                Some(format!("the binding of {namespace} \"{key}\" to {id} conflicts: that id belongs to \"{other}\""))
            }
            _ => None,
        }
    })
}

fn kept_answers(run: &Run, settled: &Settled) -> Option<Bytes> {
    if run.context.answers.is_empty() {
        return None;
    }
    let well = settled.work.is_none() && settled.end.as_ref().is_none_or(|end| matches!(end.status, Status::Handled | Status::Ignored));
    match run.feed.config.keep_answers {
        KeepAnswers::None => None,
        KeepAnswers::Failed if well => None,
        KeepAnswers::All | KeepAnswers::Failed => Some(super::answers::pack(&run.context.answers)),
    }
}
