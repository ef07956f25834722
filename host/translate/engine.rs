//! The translate loop of one host: takes rows in hand, runs rounds, finishes messages in the order of their keys and settles them in bulk.
//! Everything slow happens in tasks that come back as events; this task alone owns the state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use super::judge::{self, Said};
use super::lanes::{Lanes, Open};
use super::overlay::Overlay;
use super::resolve::resolve;
use super::run::{Feed, Finished, Run, Seq};
use crate::endpoint::{Called, Caller};
use crate::message::{FeedId, Message, Place, Status};
use crate::plugin::{Answer, Call, Outcome, Reply, Request, Verdict};
use crate::registry::{Registry, Snapshot};
use crate::runtime::{Runtime, Trouble};
use crate::store::{self, BlockedKey, Host, LaneLease, Store, WorkMessage};

/// Messages that one CPU task runs.
const TASK_MESSAGES: usize = 64;
/// Messages of one key that are run ahead in one CPU task.
const AHEAD: usize = 32;
/// Rows of a drained key that are taken in hand at once.
const BEHIND_ROWS: i64 = 500;
/// Keys that are drained at one time.
const DRAINED_KEYS: usize = 16;

/// What the loop works with.
pub struct Parts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The engine of guests.
    pub runtime: Arc<Runtime>,
    /// Active plugins.
    pub registry: Arc<Registry>,
    /// Who answers calls.
    pub caller: Arc<dyn Caller>,
    /// The feeds.
    pub feeds: Vec<Arc<Feed>>,
    /// This host.
    pub host: Host,
    /// The installation's secret.
    pub secret: [u8; 32],
    /// Messages of a settlement.
    pub settle_messages_max: usize,
    /// How long finished messages may wait for others.
    pub settle_every: Duration,
    /// Bytes in hand at most.
    pub memory_bytes_max: usize,
    /// Rung after each settlement: a hint for publish.
    pub settled: watch::Sender<i64>,
    /// What was done so far.
    pub counts: Arc<Counts>,
}

/// What the loop has done so far.
#[derive(Default)]
pub struct Counts {
    /// Messages settled, whatever became of them.
    pub messages: AtomicU64,
    /// Settlements committed.
    pub settlements: AtomicU64,
    /// Messages that ran again because their reads were stale.
    pub conflicts: AtomicU64,
    /// Lanes lost to another host.
    pub fenced: AtomicU64,
}

/// What to take in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    /// New rows and due ones: a host at work.
    All,
    /// New rows only.
    New,
    /// These rows of `work`, due or not.
    Rows(Vec<Place>),
}

/// What comes back to the loop.
pub(super) enum Event {
    /// New rows.
    Fetched(store::Result<(Vec<Message>, i64)>),
    /// Due rows.
    Due(store::Result<(Vec<WorkMessage>, i64)>),
    /// Guests have run.
    Ran(Vec<(Seq, Result<Verdict, Trouble>)>),
    /// Reads have come back.
    Read(Vec<(Seq, Request, bool)>, store::Result<store::Snapshot>),
    /// A call has come back.
    Called(Seq, Call, Called),
    /// A settlement has come back.
    Settled(Box<store::Settlement>, store::Result<store::Verdict>),
}

/// The loop's state.
pub struct Engine {
    pub(super) parts: Parts,
    pub(super) feeds: HashMap<FeedId, Arc<Feed>>,
    pub(super) lanes: Lanes,
    pub(super) runs: HashMap<Seq, Run>,
    pub(super) overlay: Overlay,
    pub(super) finished: Vec<Finished>,
    /// The settlement under way: its batch, its messages, its lanes' cursors.
    pub(super) settling: Option<super::settle::Settling>,
    pub(super) first_finished: Option<Instant>,
    pub(super) ready: Vec<Seq>,
    pub(super) wanted: Vec<(Seq, Request, bool)>,
    pub(super) bytes: usize,
    pub(super) next_seq: Seq,
    pub(super) next_batch: u32,
    pub(super) fetching: bool,
    pub(super) asking_due: bool,
    pub(super) ask_new: bool,
    pub(super) ask_due: bool,
    pub(super) now_ms: i64,
    /// Messages in hand per registry revision.
    pub(super) revisions: BTreeMap<i64, usize>,
    pub(super) reported: i64,
    pub(super) trouble: Option<store::Error>,
    pub(super) pause: u32,
    /// Keys whose blocking row left while later rows remain: those are taken in hand many at a time.
    pub(super) draining: HashSet<BlockedKey>,
    /// Activations that ask for things: their messages are not run ahead.
    asking: HashSet<i64>,
    last_due: Instant,
    found_none: bool,
    events: mpsc::UnboundedReceiver<Event>,
    pub(super) sender: mpsc::UnboundedSender<Event>,
}

impl Engine {
    /// A loop that owns nothing yet.
    pub fn new(parts: Parts) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let feeds = parts.feeds.iter().map(|feed| (feed.id, feed.clone())).collect();
        Self {
            parts,
            feeds,
            lanes: Lanes::default(),
            runs: HashMap::new(),
            overlay: Overlay::default(),
            finished: Vec::new(),
            settling: None,
            first_finished: None,
            ready: Vec::new(),
            wanted: Vec::new(),
            bytes: 0,
            next_seq: 1,
            next_batch: 0,
            fetching: false,
            asking_due: false,
            ask_new: true,
            ask_due: true,
            now_ms: 0,
            revisions: BTreeMap::new(),
            reported: -1,
            trouble: None,
            pause: 0,
            draining: HashSet::new(),
            asking: HashSet::new(),
            last_due: Instant::now(),
            found_none: false,
            events,
            sender,
        }
    }

    /// Takes the lanes we own now, forgets those we do not.
    pub async fn own(&mut self, leases: &[LaneLease]) -> store::Result<()> {
        let known = self.lanes.epochs();
        let now: HashMap<(FeedId, i32), i64> = leases.iter().map(|lease| ((lease.feed, lease.lane), lease.epoch)).collect();
        for (name, epoch) in &known {
            if now.get(name) != Some(epoch) {
                self.lose(name.0, name.1);
            }
        }
        let fresh: Vec<&LaneLease> = leases
            .iter()
            .filter(|lease| self.feeds.contains_key(&lease.feed) && known.get(&(lease.feed, lease.lane)) != Some(&lease.epoch))
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let names: Vec<(FeedId, i32)> = fresh.iter().map(|lease| (lease.feed, lease.lane)).collect();
        self.parts.store.resume(&names).await?;
        let blocked = self.parts.store.blocked(&names).await?;
        for lease in fresh {
            self.lanes.take(lease);
        }
        for key in blocked {
            self.lanes.set_blocked(key, true);
        }
        self.ask_new = true;
        self.ask_due = true;
        Ok(())
    }

    /// Works until nothing is left to do: for tests, acceptance and single runs. Due rows are taken as `intake` says.
    pub async fn work(&mut self, intake: Intake) -> store::Result<()> {
        if let Intake::Rows(places) = &intake {
            let rows = self.parts.store.rows(places).await?;
            self.now_ms = self.parts.store.now_ms().await?;
            self.take_rows(rows, true);
        }
        let fetch = !matches!(intake, Intake::Rows(_));
        self.ask_new = fetch;
        self.ask_due = intake == Intake::All;
        loop {
            self.step(fetch, intake == Intake::All);
            if let Some(error) = self.trouble.take() {
                return Err(error);
            }
            if self.idle() {
                return Ok(());
            }
            let event = self.events.recv().await.expect("the loop holds a sender");
            self.take(event);
        }
    }

    /// One turn of a host at work: everything that can be done now, then the next event, hint or time. True: it asked for new rows, found
    /// none and has nothing in hand.
    pub async fn turn(&mut self, hint: &Notify, poll: Duration) -> bool {
        self.ask_due |= self.last_due.elapsed() >= poll;
        self.step(true, true);
        if let Some(error) = self.trouble.take() {
            self.wait_out(&error).await;
        }
        let wait = if self.first_finished.is_some() { self.parts.settle_every } else { poll };
        tokio::select! {
            biased;
            event = self.events.recv() => self.take(event.expect("the loop holds a sender")),
            () = hint.notified() => self.ask_new = true,
            () = tokio::time::sleep(wait) => {
                self.ask_new = true;
                self.ask_due = true;
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        std::mem::take(&mut self.found_none) && self.runs.is_empty() && self.finished.is_empty() && self.settling.is_none()
    }

    /// Lets what is in hand finish, without taking anything new: a graceful stop.
    pub async fn drain(&mut self, until: Instant) {
        while !(self.runs.is_empty() && self.finished.is_empty() && self.settling.is_none()) && Instant::now() < until {
            self.step(false, false);
            if let Some(error) = self.trouble.take() {
                self.wait_out(&error).await;
            }
            let left = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.events.recv()).await {
                Ok(Some(event)) => self.take(event),
                _ => return,
            }
        }
    }

    async fn wait_out(&mut self, error: &store::Error) {
        let pause = Duration::from_millis(100 << self.pause.min(5));
        if self.pause.is_power_of_two() || self.pause == 0 {
            tracing::warn!(error = %crate::ingest::Chain(error), "translate waits for the store; nothing is lost");
        }
        self.pause += 1;
        tokio::time::sleep(pause).await;
    }

    fn idle(&self) -> bool {
        let busy = self.fetching || self.asking_due || self.ask_new || self.ask_due || self.settling.is_some();
        !busy && self.runs.is_empty() && self.finished.is_empty()
    }

    fn step(&mut self, new: bool, due: bool) {
        self.ask_new &= new;
        self.ask_due &= due;
        self.intake();
        self.dispatch();
        self.send_reads();
        self.settle_if_due();
        // A settlement that was just built may have put nothing in flight; what it freed can run.
        self.dispatch();
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Fetched(result) => {
                self.fetching = false;
                match result {
                    Ok((messages, now_ms)) => self.take_new(messages, now_ms),
                    Err(error) => self.failed(error, true, false),
                }
            }
            Event::Due(result) => {
                self.asking_due = false;
                match result {
                    Ok((rows, now_ms)) => {
                        self.now_ms = now_ms;
                        self.take_rows(rows, false);
                    }
                    Err(error) => self.failed(error, false, true),
                }
            }
            Event::Ran(results) => results.into_iter().for_each(|(seq, result)| self.ran(seq, result)),
            Event::Read(wanted, Ok(snapshot)) => self.read(wanted, snapshot),
            Event::Read(wanted, Err(error)) => {
                self.wanted.extend(wanted);
                self.failed(error, false, false);
            }
            Event::Called(seq, call, called) => self.called(seq, call, called),
            Event::Settled(settlement, result) => self.settled(settlement, result),
        }
    }

    pub(super) fn failed(&mut self, error: store::Error, new: bool, due: bool) {
        self.ask_new |= new;
        self.ask_due |= due;
        self.trouble = Some(error);
    }

    // ------------------------------------------------------------ intake

    fn intake(&mut self) {
        let room = (2 * self.parts.settle_messages_max).saturating_sub(self.runs.len() + self.finished.len());
        let bytes = self.parts.memory_bytes_max.saturating_sub(self.bytes);
        if room < self.parts.settle_messages_max / 2 || bytes < self.parts.memory_bytes_max / 4 || self.lanes.names().is_empty() {
            if self.lanes.names().is_empty() {
                (self.ask_new, self.ask_due) = (false, false);
            }
            return;
        }
        let bytes = (bytes / 4).min(16 << 20) as i64;
        if self.ask_due && !self.asking_due {
            (self.ask_due, self.asking_due) = (false, true);
            let (store, sender) = (self.parts.store.clone(), self.sender.clone());
            self.last_due = Instant::now();
            let (lanes, in_hand) = (self.lanes.names(), self.lanes.in_hand());
            let draining: Vec<BlockedKey> = self.draining.iter().take(DRAINED_KEYS).copied().collect();
            draining.iter().for_each(|key| {
                self.draining.remove(key);
            });
            tokio::spawn(async move {
                let rows = async {
                    let mut rows = store.due(&lanes, &in_hand, room as i64, bytes).await?;
                    let known: HashSet<Place> = in_hand.iter().copied().chain(rows.iter().map(|row| row.message.place)).collect();
                    for key in draining {
                        let behind = store.behind(key, 0, BEHIND_ROWS).await?;
                        rows.extend(behind.into_iter().filter(|row| !known.contains(&row.message.place)));
                    }
                    // In the order of their numbers, so that a key's line is in order too.
                    rows.sort_by_key(|row| row.message.place);
                    Ok((rows, store.now_ms().await?))
                };
                let _ = sender.send(Event::Due(rows.await));
            });
        }
        if self.ask_new && !self.fetching {
            (self.ask_new, self.fetching) = (false, true);
            let (store, sender) = (self.parts.store.clone(), self.sender.clone());
            let (reads, per_lane) = self.lanes.reads(room);
            tokio::spawn(async move {
                let rows = async { Ok((store.fetch(&reads, per_lane, bytes).await?, store.now_ms().await?)) };
                let _ = sender.send(Event::Fetched(rows.await));
            });
        }
    }

    fn take_new(&mut self, messages: Vec<Message>, now_ms: i64) {
        self.now_ms = now_ms;
        self.pause = 0;
        // More may be there: ask until nothing comes.
        self.ask_new |= !messages.is_empty();
        self.found_none = messages.is_empty();
        let mut busy = std::collections::HashSet::new();
        for message in messages {
            let place = message.place;
            let Some(lane) = self.lanes.get(place.feed, place.lane) else { continue };
            // A lane that was lost and taken again while this fetch was under way reads again from its cursor.
            if place.n != lane.read + 1 {
                continue;
            }
            busy.insert((place.feed, place.lane));
            let seq = self.next_seq;
            self.next_seq += 1;
            lane.read = place.n;
            lane.open.insert(place.n, Open::Running(seq));
            let feed = self.feeds[&place.feed].clone();
            let run = Run::new(seq, message, feed, 0, None, now_ms);
            self.admit(run, false);
        }
        if !busy.is_empty() {
            self.lanes.set_busy(busy.len());
        }
    }

    pub(super) fn take_rows(&mut self, rows: Vec<WorkMessage>, by_hand: bool) {
        for WorkMessage { row, message } in rows {
            let place = message.place;
            // A pending row without a due time is running: in our own hands, under another number.
            let running = row.status == Status::Pending && row.due_ms.is_none() && !by_hand;
            if running || !self.lanes.has(place.feed, place.lane) || self.lanes.holds(&place) {
                continue;
            }
            let seq = self.next_seq;
            self.next_seq += 1;
            self.lanes.hold(place, seq);
            let feed = self.feeds[&place.feed].clone();
            let run = Run::new(seq, message, feed, row.run, Some(row), self.now_ms);
            let key = run.key();
            // Its key has rows in the store that are not in hand: new messages stand behind them.
            self.admit(run, true);
            self.lanes.set_more_behind(key, true);
        }
    }

    fn admit(&mut self, run: Run, head: bool) {
        let (seq, key) = (run.seq, run.key());
        self.bytes += run.message.size();
        self.runs.insert(seq, run);
        if !head && self.lanes.held_back(&key) {
            self.finish(seq, Said::Behind);
        } else if self.lanes.push(key, seq) {
            self.ready.push(seq);
        }
    }

    // ------------------------------------------------------------ guests

    fn dispatch(&mut self) {
        while !self.ready.is_empty() {
            let snapshot = self.parts.registry.snapshot();
            let mut task = Vec::new();
            let mut tasks = Vec::new();
            for seq in std::mem::take(&mut self.ready) {
                self.gather(seq, &snapshot, &mut task);
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
        }
    }

    /// Puts the head of a key, and what may be run ahead behind it, into a CPU task; settles at once what needs no guest.
    fn gather(&mut self, head: Seq, snapshot: &Snapshot, task: &mut Vec<Vec<Work>>) {
        let Some(run) = self.runs.get(&head) else { return };
        let key = run.key();
        let line: Vec<Seq> = self.lanes.line(&key).map(|chain| chain.line.iter().take(AHEAD).copied().collect()).unwrap_or_default();
        let mut works = Vec::new();
        for seq in line {
            let Some(run) = self.runs.get_mut(&seq) else { break };
            let ahead = seq != head;
            if run.running || run.open > 0 || (ahead && (run.rounds > 0 || run.judged.is_some())) {
                break;
            }
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
        if !works.is_empty() {
            task.push(works);
        }
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

    fn want_translator(&mut self, seq: Seq) {
        let run = self.runs.get_mut(&seq).expect("it was there");
        let (feed, table) = (&run.feed.name, &run.message.table);
        let on = judge::translator_entries(feed, table);
        let reason =
            format!("no plugin is active for feed \"{feed}\" table \"{table}\"; `tolk activate PLUGIN --feed {feed} --table {table}`");
        let wait = crate::plugin::Wait { code: "no-translator".to_owned(), reason, on, timeout_ms: None };
        self.conclude(seq, Outcome::Waiting(wait));
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
        tokio::spawn(async move {
            let run = move |instances: &mut crate::runtime::Instances| {
                let mut results = Vec::with_capacity(task.len());
                for line in task {
                    let mut ended = false;
                    for work in line {
                        // Behind a message that did not end, a later one of its key must not have run.
                        let result = if ended {
                            None
                        } else {
                            let translator = &work.active.translator;
                            Some(translator.translate(instances, &work.message, &work.feed.name, &work.context))
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
                if !rest.is_empty() {
                    let back = rest.into_iter().map(|(seq, _)| (seq, Err(Trouble { code: NOT_RUN, text: String::new() }))).collect();
                    let _ = sender.send(Event::Ran(back));
                }
            }
        });
    }

    fn ran(&mut self, seq: Seq, result: Result<Verdict, Trouble>) {
        let Some(run) = self.runs.get_mut(&seq) else { return };
        run.running = false;
        let verdict = match result {
            Ok(verdict) => verdict,
            Err(trouble) if trouble.code == NOT_RUN || !self.is_first(seq) => return self.revive(seq),
            Err(trouble) => return self.finish(seq, Said::Trouble { code: trouble.code.to_owned(), reason: trouble.text }),
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

    fn is_first(&self, seq: Seq) -> bool {
        let key = self.runs[&seq].key();
        self.lanes.line(&key).and_then(|chain| chain.line.front()) == Some(&seq)
    }

    /// A message that was taken along but not run: if it is first in its line by now, it runs.
    fn revive(&mut self, seq: Seq) {
        if self.is_first(seq) {
            self.ready.push(seq);
        }
    }

    // ------------------------------------------------------------ needs

    fn needs(&mut self, seq: Seq, requests: Vec<Request>) {
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
        tokio::spawn(async move {
            let called = caller.call(&call).await;
            let _ = sender.send(Event::Called(seq, call, called));
        });
    }

    fn called(&mut self, seq: Seq, call: Call, called: Called) {
        let Some(run) = self.runs.get_mut(&seq) else { return };
        let reply = match called {
            Called::Response(response) => Reply::Response(response),
            Called::Away { reason, .. } if call.lenient => Reply::Unreachable(reason),
            Called::Failed { reason, .. } if call.lenient => Reply::Unreachable(reason),
            Called::Failed { code, reason, after_ms } => return self.finish(seq, Said::Attempt { code, reason, after_ms }),
            Called::Away { reason, after_ms } => return self.finish(seq, Said::Parked { reason, after_ms }),
            Called::Wrong { reason } => return self.finish(seq, Said::Trouble { code: "bad-call".to_owned(), reason }),
        };
        if let Reply::Response(response) = &reply {
            self.bytes += response.body.len();
        }
        run.context.answers.push(Answer { request: Request::Call(call), reply });
        run.open -= 1;
        self.resume(seq);
    }

    fn send_reads(&mut self) {
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

    fn read(&mut self, wanted: Vec<(Seq, Request, bool)>, snapshot: store::Snapshot) {
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
        match run.judged.take() {
            Some(outcome) => self.finish(seq, Said::Outcome(outcome)),
            None if !run.running => self.ready.push(seq),
            None => {}
        }
    }

    // ------------------------------------------------------------ ends

    /// An outcome, once what the host must read for it is read.
    fn conclude(&mut self, seq: Seq, outcome: Outcome) {
        let run = self.runs.get_mut(&seq).expect("it just ran");
        let reads = judge::host_reads(run, &outcome);
        if reads.is_empty() {
            return self.finish(seq, Said::Outcome(outcome));
        }
        run.open += reads.len();
        run.judged = Some(outcome);
        self.wanted.extend(reads.into_iter().map(|request| (seq, request, false)));
    }

    pub(super) fn finish(&mut self, seq: Seq, said: Said) {
        let Some(run) = self.runs.get(&seq) else { return };
        if run.seen.iter().any(|seen| self.overlay.outdated(seen)) {
            return self.again(seq);
        }
        let run = self.runs.remove(&seq).expect("it was there");
        let (key, place, behind) = (run.key(), run.message.place, matches!(said, Said::Behind));
        // A row that stands behind as it did before needs no settlement.
        if behind && run.row.as_ref().is_some_and(|row| row.status == Status::Behind) {
            self.bytes = self.bytes.saturating_sub(run.message.size());
            self.lanes.release(&place);
            return;
        }
        let finished = judge::judge(run, said);
        self.overlay.apply(&finished.settled.writes, &finished.settled.bindings, &finished.run.cell);
        if finished.run.row.is_none()
            && let Some(lane) = self.lanes.get(place.feed, place.lane)
        {
            lane.open.insert(place.n, Open::Finished);
        }
        let blocks = finished.blocks && !behind;
        self.finished.push(finished);
        self.first_finished.get_or_insert_with(Instant::now);
        if behind {
            return;
        }
        if blocks {
            self.lanes.set_blocked(key, true);
            let mut line = self.lanes.drain(&key);
            line.retain(|other| *other != seq);
            line.into_iter().for_each(|other| self.finish_behind(other));
        } else if let Some(next) = self.lanes.pop(&key, seq) {
            self.advance(next);
        }
    }

    fn finish_behind(&mut self, seq: Seq) {
        if let Some(run) = self.runs.get_mut(&seq) {
            run.seen.clear();
            self.finish(seq, Said::Behind);
        }
    }

    /// The next of a key: what was run ahead for it counts now, else it runs.
    pub(super) fn advance(&mut self, seq: Seq) {
        let Some(run) = self.runs.get_mut(&seq) else { return };
        if run.open > 0 || run.running {
            return;
        }
        match run.judged.take() {
            Some(outcome) => self.conclude(seq, outcome),
            None => self.ready.push(seq),
        }
    }

    /// A message whose reads are stale runs again, in its place.
    fn again(&mut self, seq: Seq) {
        let mut run = self.runs.remove(&seq).expect("it was there");
        let key = run.key();
        let fresh = self.next_seq;
        self.next_seq += 1;
        let had_work = run.row.is_some();
        let place = run.message.place;
        run.again(fresh);
        self.parts.counts.conflicts.fetch_add(1, Ordering::Relaxed);
        if had_work {
            self.lanes.hold(place, fresh);
        } else if let Some(lane) = self.lanes.get(place.feed, place.lane) {
            lane.open.insert(place.n, Open::Running(fresh));
        }
        self.runs.insert(fresh, run);
        self.lanes.pop(&key, seq);
        self.lanes.push_front(key, &[fresh]);
        self.ready.push(fresh);
    }

    /// Forgets a lane with all its messages: another host has it.
    pub(super) fn lose(&mut self, feed: FeedId, lane: i32) {
        tracing::info!(feed = self.feeds.get(&feed).map_or("", |feed| feed.name.as_str()), lane, "gave up the lane");
        self.lanes.forget(feed, lane);
        let ours = |place: &Place| (place.feed, place.lane) == (feed, lane);
        let gone: Vec<Seq> = self.runs.values().filter(|run| ours(&run.message.place)).map(|run| run.seq).collect();
        for seq in gone {
            if let Some(run) = self.runs.remove(&seq) {
                self.forget(&run);
            }
        }
        let (lost, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.finished).into_iter().partition(|done| ours(&done.settled.place));
        self.finished = kept;
        for done in lost {
            self.overlay.remove(&done.settled.writes, &done.settled.bindings, &done.run.cell);
            done.run.cell.drop_writes();
            self.forget(&done.run);
        }
    }

    /// Takes a message off the books.
    pub(super) fn forget(&mut self, run: &Run) {
        self.bytes = self.bytes.saturating_sub(run.message.size() + answer_bytes(run));
        if run.active.is_some()
            && let Some(count) = self.revisions.get_mut(&run.revision)
        {
            *count -= 1;
            if *count == 0 {
                self.revisions.remove(&run.revision);
            }
        }
    }

    /// The oldest registry revision that anything in hand runs on.
    pub fn oldest_revision(&self) -> i64 {
        self.revisions.keys().next().copied().unwrap_or_else(|| self.parts.registry.snapshot().revision)
    }

    /// Tells the store the oldest revision in use, when it changed.
    pub async fn report(&mut self) -> store::Result<()> {
        let oldest = self.oldest_revision();
        if oldest != self.reported {
            self.parts.store.report_revision(&self.parts.host, oldest).await?;
            self.reported = oldest;
        }
        Ok(())
    }
}

/// The code of a message that was taken along in a CPU task but not run.
const NOT_RUN: &str = "not-run";

struct Work {
    seq: Seq,
    message: Arc<Message>,
    feed: Arc<Feed>,
    active: Arc<crate::registry::Active>,
    context: crate::plugin::Context,
}

fn answer_bytes(run: &Run) -> usize {
    let body = |answer: &Answer| match &answer.reply {
        Reply::Response(response) => response.body.len(),
        _ => 0,
    };
    run.context.answers.iter().map(body).sum()
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
