//! The translate loop of one host: takes rows in hand, runs rounds, finishes messages in the order of their keys and settles them in bulk.
//! Everything slow happens in tasks that come back as events; this task alone owns the state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};

use super::actions::{Desk, Opened};
use super::away::Away;
use super::judge::Said;
use super::lanes::{Lanes, Open};
use super::overlay::Overlay;
use super::pace::Pace;
use super::run::{Feed, Finished, InHand, Run, Seq};
use crate::endpoint::{Called, Caller};
use crate::message::{FeedId, Map, Message, Place, Set, Status};
use crate::plugin::{Call, Request, Verdict};
use crate::registry::Registry;
use crate::runtime::{Runtime, Trouble};
use crate::store::{self, BlockedKey, Host, LaneLease, Pausable, Paused, Store, WorkMessage};

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
    /// How often the store is asked for operators' actions.
    pub actions_every: Duration,
    /// What is paused.
    pub pauses: Arc<ArcSwap<Vec<Paused>>>,
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
    /// Actions of operators.
    Actions(store::Result<Opened>),
    /// Due rows.
    Due(store::Result<(Vec<WorkMessage>, i64)>),
    /// Guests have run.
    Ran(Vec<(Seq, Result<Verdict, Trouble>)>),
    /// Reads have come back.
    Read(Vec<(Seq, Request, bool)>, store::Result<store::Snapshot>),
    /// A call has come back.
    Called(Seq, Call, Called),
    /// It was told, or not, that these endpoints answer again.
    Told(Vec<String>, store::Result<()>),
    /// The store knows, or not, that these lanes are calm.
    Calmed(Vec<(FeedId, i32)>, store::Result<()>),
    /// A settlement has come back.
    Settled(Box<store::Settlement>, store::Result<store::Verdict>),
}

/// The loop's state.
pub struct Engine {
    pub(super) parts: Parts,
    pub(super) feeds: Map<FeedId, Arc<Feed>>,
    pub(super) lanes: Lanes,
    pub(super) runs: Map<Seq, InHand>,
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
    pub(super) calming: bool,
    pub(super) ask_new: bool,
    pub(super) ask_due: bool,
    pub(super) now_ms: i64,
    /// Messages in hand per registry revision.
    pub(super) revisions: BTreeMap<i64, usize>,
    pub(super) reported: i64,
    pub(super) trouble: Option<store::Error>,
    pub(super) pause: u32,
    /// Keys whose blocking row left while later rows remain: those are taken in hand many at a time.
    pub(super) draining: Set<BlockedKey>,
    /// Activations that ask for things: their messages are not run ahead.
    pub(super) asking: Set<i64>,
    /// Operators' actions.
    pub(super) desk: Desk,
    /// Endpoints that messages have parked for.
    pub(super) away: Away,
    /// When keys ended last.
    pub(super) pace: Pace,
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
            runs: Map::default(),
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
            calming: false,
            ask_new: true,
            ask_due: true,
            now_ms: 0,
            revisions: BTreeMap::new(),
            reported: -1,
            trouble: None,
            pause: 0,
            draining: Set::default(),
            asking: Set::default(),
            desk: Desk::default(),
            away: Away::default(),
            pace: Pace::default(),
            last_due: Instant::now(),
            found_none: false,
            events,
            sender,
        }
    }

    /// Takes the lanes we own now, forgets those we do not.
    pub async fn own(&mut self, leases: &[LaneLease]) -> store::Result<()> {
        let known = self.lanes.epochs();
        let now: Map<(FeedId, i32), i64> = leases.iter().map(|lease| ((lease.feed, lease.lane), lease.epoch)).collect();
        let lost: Vec<(FeedId, i32)> = known.iter().filter(|(name, epoch)| now.get(name) != Some(epoch)).map(|(name, _)| *name).collect();
        lost.iter().for_each(|(feed, lane)| self.lose(*feed, *lane));
        if !lost.is_empty() {
            // What is finished in other lanes may have read what was dropped with these.
            self.rerun(&Set::default());
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
        self.now_ms = self.now_ms.max(self.parts.store.now_ms().await?);
        for lease in fresh {
            self.lanes.take(lease);
            self.pace.took(lease.feed, lease.lane, self.now_ms);
        }
        self.tell_suspects();
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
        self.ask_actions_now();
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
        std::mem::take(&mut self.found_none)
            && !self.has_actions()
            && self.runs.is_empty()
            && self.finished.is_empty()
            && self.settling.is_none()
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
            tracing::warn!(error = %crate::trouble::Chain(error), "translate waits for the store; nothing is lost");
        }
        self.pause += 1;
        tokio::time::sleep(pause).await;
    }

    fn idle(&self) -> bool {
        let busy = self.fetching || self.asking_due || self.ask_new || self.ask_due || self.settling.is_some() || self.has_actions();
        let busy = busy || self.away.is_telling();
        !busy && self.runs.is_empty() && self.finished.is_empty()
    }

    fn step(&mut self, new: bool, due: bool) {
        self.ask_new &= new;
        self.ask_due &= due;
        self.intake();
        self.ask_actions();
        self.dispatch();
        self.send_reads();
        self.tell_recovered();
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
                        let none = rows.is_empty();
                        self.take_rows(rows, false);
                        if none {
                            self.calm_lanes();
                        }
                    }
                    Err(error) => self.failed(error, false, true),
                }
            }
            Event::Actions(opened) => self.opened(opened),
            Event::Ran(results) => results.into_iter().for_each(|(seq, result)| self.ran(seq, result)),
            Event::Read(wanted, Ok(snapshot)) => self.read(wanted, snapshot),
            Event::Read(wanted, Err(error)) => {
                self.wanted.extend(wanted);
                self.failed(error, false, false);
            }
            Event::Called(seq, call, called) => self.called(seq, call, called),
            Event::Told(endpoints, told) => self.told(endpoints, told),
            Event::Calmed(lanes, calmed) => self.calmed(&lanes, calmed),
            Event::Settled(settlement, result) => self.settled(*settlement, result),
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
            let (mut lanes, in_hand) = (self.lanes.names(), self.lanes.in_hand());
            lanes.retain(|(feed, _)| !self.is_paused(*feed));
            let draining: Vec<BlockedKey> = self.draining.iter().take(DRAINED_KEYS).copied().collect();
            draining.iter().for_each(|key| {
                self.draining.remove(key);
            });
            tokio::spawn(async move {
                let rows = async {
                    let mut rows = store.due(&lanes, &in_hand, room as i64, bytes).await?;
                    let known: Set<Place> = in_hand.iter().copied().chain(rows.iter().map(|row| row.message.place)).collect();
                    for key in draining {
                        // Up to the first that must wait for something else: what stands behind it stays there.
                        let behind = store.behind(key, 0, BEHIND_ROWS).await?;
                        let next = behind.into_iter().filter(|row| !known.contains(&row.message.place));
                        rows.extend(next.take_while(|row| !row.row.blocks || row.row.status == Status::Behind));
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
            let (mut reads, per_lane) = self.lanes.reads(room);
            reads.retain(|read| !self.is_paused(read.feed));
            tokio::spawn(async move {
                let rows = async { Ok((store.fetch(&reads, per_lane, bytes).await?, store.now_ms().await?)) };
                let _ = sender.send(Event::Fetched(rows.await));
            });
        }
    }

    /// Whether a whole feed is paused: its messages stay where they are.
    pub(super) fn is_paused(&self, feed: FeedId) -> bool {
        let pauses = self.parts.pauses.load();
        let name = || self.feeds.get(&feed).map_or("", |feed| feed.name.as_str());
        pauses.iter().any(|paused| matches!(&paused.of, Pausable::Feed { feed } if feed == name()))
    }

    fn take_new(&mut self, messages: Vec<Message>, now_ms: i64) {
        self.now_ms = now_ms;
        self.pause = 0;
        // More may be there: ask until nothing comes.
        self.ask_new |= !messages.is_empty();
        self.found_none = messages.is_empty();
        let mut busy = Set::default();
        for message in messages {
            let place = message.place;
            let Some(lane) = self.lanes.get(place.feed, place.lane) else { continue };
            // A lane that was lost and taken again while this fetch was under way reads again from its cursor.
            if place.n != lane.read + 1 {
                continue;
            }
            let key = BlockedKey { feed: place.feed, lane: place.lane, key_hash: message.key_hash };
            if crate::faults::mutant("limit-before-filter") && self.lanes.held_back(&key) {
                continue;
            }
            let Some(lane) = self.lanes.get(place.feed, place.lane) else { continue };
            busy.insert((place.feed, place.lane));
            let seq = self.next_seq;
            self.next_seq += 1;
            lane.read = place.n;
            lane.open.insert(place.n, Open::Running(seq));
            let feed = self.feeds[&place.feed].clone();
            let mut run = Run::new(seq, message, feed, 0, None, now_ms);
            run.ordered = self.desk.ordered(&place);
            self.desk.took(run.key(), run.message.place.n);
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
            // Its settlement is committed, and we have not heard of it yet: that will say that it left our hands.
            if self.is_settling(&place) {
                continue;
            }
            if running || !self.lanes.has(place.feed, place.lane) || self.lanes.holds(&place) {
                continue;
            }
            // A row that stands behind comes along with its key's head alone. If that left our hands meanwhile, the store says what comes next.
            let key = BlockedKey { feed: place.feed, lane: place.lane, key_hash: message.key_hash };
            if row.status == Status::Behind && !by_hand && self.lanes.line(&key).is_none_or(|chain| chain.line.is_empty()) {
                continue;
            }
            let seq = self.next_seq;
            self.next_seq += 1;
            self.lanes.hold(place, seq);
            let feed = self.feeds[&place.feed].clone();
            let run = Run::new(seq, message, feed, row.run, Some(row), self.now_ms);
            // Its key has rows in the store that are not in hand: new messages stand behind them.
            self.admit(run, true);
            self.lanes.set_more_behind(key, true);
        }
    }

    pub(super) fn admit(&mut self, run: InHand, head: bool) {
        let (seq, key) = (run.seq, run.key());
        self.bytes += run.message.size();
        self.runs.insert(seq, run);
        if !head && self.lanes.held_back(&key) {
            self.finish(seq, Said::Behind);
        } else if self.lanes.push(key, seq) {
            self.ready.push(seq);
        }
    }
}
