//! How the engine does what operators ask of messages: what is in hand ends at its next step, what stands in `work` gets another row, what is
//! done runs again behind nobody newer. Every result is part of a settlement, so that it cannot race with the message itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::engine::{Engine, Event};
use super::judge::{self, Said};
use super::lanes::Open;
use super::revisit;
use super::run::{Finished, InHand, Run, Seq};
use super::settle::Settling;
use crate::message::{FeedId, Map, Place, Set, Status};
use crate::plugin::Cause;
use crate::registry::Active;
use crate::store::{self, ActionKind, ActionResult, Applied, BlockedKey, End, HandledRun, OpenAction, Settled, WorkRow};

/// Actions that are read at one time.
const ACTIONS_MAX: i64 = 8_000;

/// What is asked of a message in hand: it ends so at its next step.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// The action.
    pub id: i64,
    /// `Ignore`, `Stop` or `Finish`.
    pub kind: ActionKind,
    /// Why.
    pub why: String,
}

/// The action that a run in hand carries out.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The action.
    pub id: i64,
    /// Fingerprints of what was published before, where only what changed goes out.
    pub published: Option<revisit::Published>,
    /// Whether it needs no outcome where it is simply handled.
    pub plain: bool,
}

/// Actions that came back, with the plugins that some were told to run with.
pub(super) struct Opened {
    pub actions: Vec<OpenAction>,
    pub pinned: HashMap<i64, Arc<Active>>,
    pub now_ms: i64,
}

/// The newest of some messages of each key. An older one may run again before them, not after.
#[derive(Default)]
struct Newest(Map<BlockedKey, i64>);

impl Newest {
    fn note(&mut self, key: BlockedKey, n: i64) {
        let newest = self.0.entry(key).or_insert(n);
        *newest = n.max(*newest);
    }

    fn is_newer(&self, key: &BlockedKey, n: i64) -> bool {
        self.0.get(key).is_some_and(|newest| *newest > n)
    }
}

/// What left our hands since the question that is under way: its answer may be from before.
#[derive(Default)]
struct Since {
    messages: Set<Place>,
    /// Keys whose older messages were dropped.
    keys: Set<BlockedKey>,
    lanes: Set<(FeedId, i32)>,
}

impl Since {
    fn outdates(&self, action: &OpenAction) -> bool {
        let place = action.message.place;
        self.messages.contains(&place) || self.keys.contains(&action.key()) || self.lanes.contains(&(place.feed, place.lane))
    }
}

/// What the engine knows of actions.
#[derive(Default)]
pub struct Desk {
    /// Actions in hand, and of which message.
    known: Map<i64, Place>,
    /// What is asked of messages that are not fetched yet.
    ahead: Map<Place, Ordered>,
    /// Results without a message in the settlement.
    pub(super) applied: Vec<(Applied, Place)>,
    asking: bool,
    asked: Option<Instant>,
    /// Messages taken in hand since the last question, while it matters: they may have been handled meanwhile.
    recent: Option<Newest>,
    track: bool,
    since: Option<Since>,
    /// Keys of a page with a message that cannot run again yet: the later ones of the key wait with it, to keep their order.
    left: Set<BlockedKey>,
}

impl Desk {
    /// A message was taken in hand.
    pub(super) fn took(&mut self, key: BlockedKey, n: i64) {
        if let Some(recent) = &mut self.recent {
            recent.note(key, n);
        }
    }

    /// A message left our hands, its settlement made true.
    pub(super) fn released(&mut self, settled: &Settled) {
        if let Some(since) = &mut self.since {
            since.messages.insert(settled.place);
            if settled.drops_older {
                let Place { feed, lane, .. } = settled.place;
                since.keys.insert(BlockedKey { feed, lane, key_hash: settled.key_hash });
            }
        }
    }

    /// What is asked of a message that was just fetched.
    pub(super) fn ordered(&mut self, place: &Place) -> Option<Ordered> {
        if self.ahead.is_empty() { None } else { self.ahead.remove(place) }
    }

    /// A lane is another host's: so are the actions on it.
    pub(super) fn forget(&mut self, feed: FeedId, lane: i32) {
        let stays = |place: &Place| (place.feed, place.lane) != (feed, lane);
        self.known.retain(|_, place| stays(place));
        self.ahead.retain(|place, _| stays(place));
        self.applied.retain(|(_, place)| stays(place));
        if let Some(since) = &mut self.since {
            since.lanes.insert((feed, lane));
        }
    }

    /// An action is settled.
    pub(super) fn done(&mut self, id: i64) {
        self.known.remove(&id);
    }
}

impl OpenAction {
    fn runs_again(&self) -> bool {
        matches!(self.kind, ActionKind::Retry | ActionKind::Restart | ActionKind::Replay | ActionKind::Revisit)
    }

    fn key(&self) -> BlockedKey {
        let Place { feed, lane, .. } = self.message.place;
        BlockedKey { feed, lane, key_hash: self.message.key_hash }
    }
}

impl Engine {
    /// Asks for actions every `poll`.
    pub(super) fn ask_actions(&mut self) {
        let due = self.desk.asked.is_none_or(|asked| asked.elapsed() >= self.parts.actions_every);
        if self.desk.asking || !due {
            return;
        }
        self.desk.asked = Some(Instant::now());
        if self.lanes.names().is_empty() {
            return;
        }
        self.desk.asking = true;
        self.desk.since = Some(Since::default());
        self.desk.recent = self.desk.track.then(Newest::default);
        let (store, sender, registry) = (self.parts.store.clone(), self.sender.clone(), self.parts.registry.clone());
        let (lanes, known) = (self.lanes.names(), self.desk.known.keys().copied().collect::<Vec<_>>());
        let bytes = (self.parts.memory_bytes_max / 8) as i64;
        tokio::spawn(async move {
            let opened = async {
                let actions = store.open_actions(&lanes, &known, ACTIONS_MAX, bytes).await?;
                let mut pinned = HashMap::new();
                for activation in actions.iter().filter_map(|action| action.pinned) {
                    if !pinned.contains_key(&activation)
                        && let Some(active) = registry.pinned(activation).await
                    {
                        pinned.insert(activation, active);
                    }
                }
                Ok(Opened { actions, pinned, now_ms: store.now_ms().await? })
            };
            let _ = sender.send(Event::Actions(opened.await));
        });
    }

    /// Asks for actions at the next step.
    pub(super) fn ask_actions_now(&mut self) {
        self.desk.asked = None;
    }

    /// Whether actions are being asked for, or results wait for a settlement.
    pub(super) fn has_actions(&self) -> bool {
        self.desk.asking || self.desk.asked.is_none() || !self.desk.applied.is_empty()
    }

    pub(super) fn opened(&mut self, opened: store::Result<Opened>) {
        self.desk.asking = false;
        let since = self.desk.since.take().unwrap_or_default();
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return self.failed(error, false, false),
        };
        self.now_ms = self.now_ms.max(opened.now_ms);
        let (full, before) = (opened.actions.len() as i64 >= ACTIONS_MAX, self.desk.known.len());
        let unsettled = self.unsettled(!opened.actions.is_empty());
        self.desk.left.clear();
        let mut track = false;
        for action in opened.actions {
            let place = action.message.place;
            if !self.lanes.has(place.feed, place.lane) || self.desk.known.contains_key(&action.id) {
                continue;
            }
            if since.outdates(&action) {
                // What the answer says of it is over: the next one finds what became of it.
                self.desk.left.insert(action.key());
                continue;
            }
            track |= self.act(action, &opened.pinned, &unsettled);
        }
        // More may wait behind a full page, unless it waits itself.
        if full && self.desk.known.len() > before && self.may_run_again() || track && !self.desk.track {
            self.desk.asked = None;
        }
        self.desk.track = track;
    }

    /// Whether there is room for a done message that runs again: for a page of them beside what is taken in at most.
    fn may_run_again(&self) -> bool {
        self.runs.len() + self.finished.len() < 3 * self.parts.settle_messages_max && self.bytes < self.parts.memory_bytes_max
    }

    /// What is finished and not settled yet.
    fn unsettled(&self, wanted: bool) -> Newest {
        let mut newest = Newest::default();
        if wanted {
            let settling = self.settling.iter().flat_map(Settling::runs);
            for run in self.finished.iter().map(|done| &done.run).chain(settling) {
                newest.note(run.key(), run.message.place.n);
            }
        }
        newest
    }

    /// Does what one action asks for, or leaves it open for the next time. True: it must be asked for again with an eye on its key.
    fn act(&mut self, action: OpenAction, pinned: &HashMap<i64, Arc<Active>>, unsettled: &Newest) -> bool {
        let place = action.message.place;
        // Whatever it would lead to, an older one that was asked for before it runs first.
        if action.runs_again() && self.desk.left.contains(&action.key()) {
            return false;
        }
        match self.in_hand(&place) {
            Stand::Run(seq) => self.order_in_hand(seq, &action),
            // Its settlement is under way: the next question finds what became of it.
            Stand::Finished => {
                self.desk.left.insert(action.key());
            }
            Stand::No if !action.passed => self.order_ahead(&action),
            Stand::No => match action.row.clone() {
                Some(row) => self.act_on_row(action, *row),
                None => return self.act_on_done(action, pinned, unsettled),
            },
        }
        false
    }

    fn in_hand(&mut self, place: &Place) -> Stand {
        let seq = match self.lanes.held(place) {
            Some(seq) => seq,
            None => match self.lanes.get(place.feed, place.lane).and_then(|lane| lane.open.get(&place.n).copied()) {
                Some(Open::Running(seq)) => seq,
                Some(Open::Finished) => return Stand::Finished,
                None => return Stand::No,
            },
        };
        if self.runs.contains_key(&seq) { Stand::Run(seq) } else { Stand::Finished }
    }

    fn order_in_hand(&mut self, seq: Seq, action: &OpenAction) {
        let place = action.message.place;
        match action.kind {
            ActionKind::Ignore | ActionKind::Stop | ActionKind::Finish => {
                let run = self.runs.get_mut(&seq).expect("it is in hand");
                if run.ordered.is_some() || run.errand.is_some() {
                    return;
                }
                run.ordered = Some(Ordered { id: action.id, kind: action.kind, why: action.why.to_string() });
                self.desk.known.insert(action.id, place);
                if self.is_first(seq) {
                    self.finish_ordered(seq);
                }
            }
            // It is being tried, or will be when its turn comes.
            _ => self.answer(action.id, place, ActionResult::NotNeeded, Status::Pending),
        }
    }

    fn order_ahead(&mut self, action: &OpenAction) {
        let place = action.message.place;
        match action.kind {
            ActionKind::Ignore | ActionKind::Stop | ActionKind::Finish => {
                self.desk.known.insert(action.id, place);
                let ordered = Ordered { id: action.id, kind: action.kind, why: action.why.to_string() };
                if let Some(before) = self.desk.ahead.insert(place, ordered) {
                    self.answer(before.id, place, ActionResult::NotNeeded, Status::Pending);
                }
            }
            _ => self.answer(action.id, place, ActionResult::NotNeeded, Status::Pending),
        }
    }

    /// Ends a message in hand as an operator ordered; it is the first of its key.
    pub(super) fn finish_ordered(&mut self, seq: Seq) {
        let run = self.runs.get_mut(&seq).expect("it is in hand");
        run.seen.clear();
        run.stale = false;
        if let Some(ordered) = run.ordered.clone() {
            self.finish(seq, Said::Ordered(ordered));
        }
    }

    fn answer(&mut self, id: i64, place: Place, result: ActionResult, became: Status) {
        self.desk.known.insert(id, place);
        self.desk.applied.push((Applied { id, result, became, handled: None }, place));
        self.first_finished.get_or_insert_with(Instant::now);
    }

    /// A message that stands in `work` and is not in hand.
    fn act_on_row(&mut self, action: OpenAction, row: WorkRow) {
        let place = action.message.place;
        let status = row.status;
        let fresh = || WorkRow { due_ms: None, waits: Vec::new(), waiting_since_ms: None, ..row.clone() };
        let again = |attempts| WorkRow {
            status: Status::Behind,
            blocks: true,
            cause: Cause::Retry,
            attempts,
            code: "behind".to_owned(),
            reason: "ordered to be tried again".to_owned(),
            pinned: action.pinned.or(row.pinned),
            ..fresh()
        };
        let changed = match action.kind {
            ActionKind::Retry | ActionKind::Restart | ActionKind::Replay => match status {
                Status::Pending | Status::Behind | Status::Held => return self.answer(action.id, place, ActionResult::NotNeeded, status),
                _ if action.superseded_by.is_some() => Err((ActionResult::Superseded, superseded(&action))),
                Status::Failed | Status::Stopped => Ok(again(0)),
                _ if action.kind == ActionKind::Restart => Ok(again(0)),
                _ => Ok(again(row.attempts)),
            },
            ActionKind::Revisit => return self.answer(action.id, place, ActionResult::NotNeeded, status),
            ActionKind::Stop if status == Status::Stopped => return self.answer(action.id, place, ActionResult::Already, status),
            ActionKind::Stop => {
                let feed = &self.feeds[&place.feed];
                let blocks = judge::blocks(feed, &action.message.table, Status::Stopped);
                let reason = action.why.to_string();
                Ok(WorkRow { status: Status::Stopped, blocks, code: "stopped".to_owned(), reason, ..fresh() })
            }
            ActionKind::Ignore => Err((ActionResult::Applied, (Status::Ignored, "operator".to_owned(), action.why.to_string()))),
            ActionKind::Finish => Err((ActionResult::Applied, (Status::Finished, "operator".to_owned(), action.why.to_string()))),
        };
        let mut settled = Settled { run: row.run, activation: None, had_work: true, ..Settled::of(&action.message) };
        let (result, became) = match changed {
            // It counts as pending from here on: whether it must stand behind another one is for the store to say.
            Ok(changed) => {
                let became = if changed.status == Status::Behind { Status::Pending } else { changed.status };
                settled.work = Some(changed);
                (ActionResult::Applied, became)
            }
            Err((result, (status, code, reason))) => {
                settled.end = Some(self.end_of(&row, status, code, reason));
                (result, status)
            }
        };
        self.set_aside(action, Some(row), settled, result, became);
    }

    /// A message that is done. True: it may run again, once it is certain that nothing newer of its key was handled meanwhile.
    fn act_on_done(&mut self, action: OpenAction, pinned: &HashMap<i64, Arc<Active>>, unsettled: &Newest) -> bool {
        let place = action.message.place;
        let status = action.last.map_or(Status::Handled, |(_, status)| status);
        match action.kind {
            ActionKind::Ignore | ActionKind::Stop | ActionKind::Finish => {
                let closes = match action.kind {
                    ActionKind::Ignore => status == Status::Invalid,
                    ActionKind::Finish => matches!(status, Status::Invalid | Status::Ignored),
                    _ => false,
                };
                if !closes {
                    self.answer(action.id, place, ActionResult::Already, status);
                    return false;
                }
                let became = if action.kind == ActionKind::Ignore { Status::Ignored } else { Status::Finished };
                let mut settled = Settled { run: action.last.map_or(0, |(run, _)| run), ..Settled::of(&action.message) };
                settled.end = Some(End {
                    status: became,
                    code: "operator".to_owned(),
                    reason: action.why.to_string(),
                    attempts: 0,
                    activation: None,
                    now_ms: self.now_ms,
                });
                self.set_aside(action, None, settled, ActionResult::Applied, became);
                false
            }
            _ if status == Status::Finished => {
                self.answer(action.id, place, ActionResult::Refused, status);
                false
            }
            _ if action.superseded_by.is_some() => {
                self.answer(action.id, place, ActionResult::Superseded, status);
                false
            }
            _ => self.run_again(action, status, pinned, unsettled),
        }
    }

    fn run_again(&mut self, action: OpenAction, status: Status, pinned: &HashMap<i64, Arc<Active>>, unsettled: &Newest) -> bool {
        let place = action.message.place;
        let last_run = action.last.map_or(0, |(run, _)| run);
        let published = action.detail.as_deref().and_then(revisit::Published::parse);
        if action.kind == ActionKind::Revisit && (status != Status::Handled || published.as_ref().is_none_or(|p| p.run != last_run)) {
            self.answer(action.id, place, ActionResult::NotNeeded, status);
            return false;
        }
        let key = action.key();
        // Only older ones that run again themselves may stand before it.
        let alone = self.lanes.line(&key).is_none_or(|chain| {
            let older = |seq: &Seq| self.runs.get(seq).is_some_and(|run| run.errand.is_some() && run.message.place.n < place.n);
            chain.line.iter().all(older)
        });
        if !alone || unsettled.is_newer(&key, place.n) || self.desk.left.contains(&key) || !self.may_run_again() {
            self.desk.left.insert(key);
            return true;
        }
        if self.lanes.held_back(&key) {
            self.stand_behind(action, last_run + 1);
            return false;
        }
        if !action.force && self.desk.recent.as_ref().is_none_or(|recent| recent.is_newer(&key, place.n)) {
            self.desk.left.insert(key);
            return true;
        }
        let active = match action.pinned {
            None => None,
            Some(activation) => match pinned.get(&activation) {
                Some(active) => Some(active.clone()),
                None => {
                    self.answer(action.id, place, ActionResult::Refused, status);
                    return false;
                }
            },
        };
        let seq = self.next_seq;
        self.next_seq += 1;
        let feed = self.feeds[&place.feed].clone();
        let mut run = Run::new(seq, action.message, feed, last_run + 1, None, self.now_ms);
        run.context.cause = match action.kind {
            ActionKind::Revisit => Cause::Revisit,
            ActionKind::Retry | ActionKind::Restart => Cause::Retry,
            _ => Cause::Replay,
        };
        run.errand = Some(Errand { id: action.id, published, plain: action.plain });
        run.pinned = action.pinned;
        if let Some(active) = active {
            self.pin(&mut run, active);
        }
        self.desk.known.insert(action.id, place);
        self.lanes.hold(place, seq);
        self.admit(run, true);
        true
    }

    /// A run that must wait for a message in `work`: it stands there too, in its place.
    fn stand_behind(&mut self, action: OpenAction, run: i32) {
        let row = WorkRow {
            place: action.message.place,
            run,
            key_hash: action.message.key_hash,
            status: Status::Behind,
            blocks: true,
            attempts: 0,
            due_ms: None,
            cause: Cause::Replay,
            waiting_since_ms: None,
            code: "behind".to_owned(),
            reason: "ordered to run again; an earlier message of its key is not done".to_owned(),
            activation: None,
            pinned: action.pinned,
            waits: Vec::new(),
        };
        let settled = Settled { run, work: Some(row), ..Settled::of(&action.message) };
        self.set_aside(action, None, settled, ActionResult::Applied, Status::Behind);
    }

    fn end_of(&self, row: &WorkRow, status: Status, code: String, reason: String) -> End {
        End { status, code, reason, attempts: row.attempts, activation: row.activation, now_ms: self.now_ms }
    }

    /// Puts the result for a message that is not in hand among what is finished.
    fn set_aside(&mut self, action: OpenAction, row: Option<WorkRow>, settled: Settled, result: ActionResult, became: Status) {
        let place = action.message.place;
        let seq = self.next_seq;
        self.next_seq += 1;
        let feed = self.feeds[&place.feed].clone();
        let mut run = Run::new(seq, action.message, feed, settled.run, row, self.now_ms);
        run.aside = true;
        self.bytes += run.message.size();
        let blocks = settled.work.as_ref().is_some_and(|row| row.blocks);
        self.lanes.hold(place, seq);
        self.desk.known.insert(action.id, place);
        self.desk.applied.push((Applied { id: action.id, result, became, handled: None }, place));
        self.finished.push(Finished { run, settled, blocks });
        self.first_finished.get_or_insert_with(Instant::now);
    }

    /// What the settlement says of the actions of these messages.
    pub(super) fn applied(runs: &[InHand], settled: &[Settled]) -> Vec<Applied> {
        let one = |(run, settled): (&InHand, &Settled)| {
            let id = run.action()?;
            let status = settled.work.as_ref().map(|row| row.status).or_else(|| settled.end.as_ref().map(|end| end.status));
            let became = status.unwrap_or(Status::Handled);
            // One that had to stand behind another is not as it was ordered yet.
            let waits = run.ordered.is_some() && became == Status::Behind;
            let plain = run.errand.is_some() && settled.work.is_none() && settled.end.is_none();
            let handled = run.active.as_ref().filter(|_| plain).map(|active| HandledRun {
                run: settled.run,
                activation: active.activation,
                now_ms: run.context.now_ms,
            });
            (!waits).then_some(Applied { id, result: ActionResult::Applied, became, handled })
        };
        runs.iter().zip(settled).filter_map(one).collect()
    }
}

enum Stand {
    Run(Seq),
    Finished,
    No,
}

fn superseded(action: &OpenAction) -> (Status, String, String) {
    let newer = action.superseded_by.unwrap_or_default();
    let reason = format!("a newer message of its key (number {newer} of lane {}) was handled", action.message.place.lane);
    (Status::Ignored, "superseded".to_owned(), reason)
}
