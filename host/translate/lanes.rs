//! The lanes a host owns: what was read of each, what is not settled yet, which keys are held back, which messages of a key are in hand.
//! Pure bookkeeping; the loop in `engine` asks and tells.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::run::Seq;
use crate::message::{FeedId, Map, Place, Set};
use crate::store::{BlockedKey, LaneLease, LaneRead};

/// A lane in hand.
pub struct Lane {
    /// The owner's epoch.
    pub epoch: i64,
    /// Every row up to this number is settled or has a row in `work`.
    pub cursor: i64,
    /// Every row up to this number was fetched.
    pub read: i64,
    /// Rows above the cursor in hand, with whether they are finished.
    pub open: BTreeMap<i64, Open>,
    /// The last row that an owner before may have had in hand.
    pub tail: i64,
    /// Owners that died since it was last calm.
    pub crashes: i32,
    /// Since when it is ours.
    pub taken: Instant,
}

/// A row above the cursor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Still in hand.
    Running(Seq),
    /// Finished, not settled.
    Finished,
}

/// The messages of one key in hand, in order; only the first may finish.
#[derive(Default)]
pub struct Chain {
    /// Their numbers.
    pub line: VecDeque<Seq>,
    /// The store holds later rows of this key that are not in hand: new ones must stand behind them.
    pub more_behind: bool,
}

/// All lanes.
#[derive(Default)]
pub struct Lanes {
    lanes: Map<(FeedId, i32), Lane>,
    chains: Map<BlockedKey, Chain>,
    blocked: Set<BlockedKey>,
    in_work: Map<Place, Seq>,
    busy: usize,
    first: usize,
}

impl Lanes {
    /// A lane.
    pub fn get(&mut self, feed: FeedId, lane: i32) -> Option<&mut Lane> {
        self.lanes.get_mut(&(feed, lane))
    }

    /// The messages of a lane above its cursor that are still in hand, in order.
    pub fn running(&self, feed: FeedId, lane: i32) -> impl Iterator<Item = (i64, Seq)> + '_ {
        let open = self.lanes.get(&(feed, lane)).into_iter().flat_map(|lane| &lane.open);
        open.filter_map(|(n, open)| match open {
            Open::Running(seq) => Some((*n, *seq)),
            Open::Finished => None,
        })
    }

    /// Whether a lane is ours.
    pub fn has(&self, feed: FeedId, lane: i32) -> bool {
        self.lanes.contains_key(&(feed, lane))
    }

    /// Takes a lane.
    pub fn take(&mut self, lease: &LaneLease) {
        let LaneLease { epoch, cursor, tail, crashes, .. } = *lease;
        let lane = Lane { epoch, cursor, read: cursor, open: BTreeMap::new(), tail, crashes, taken: Instant::now() };
        self.lanes.insert((lease.feed, lease.lane), lane);
    }

    /// Forgets a lane with all that is known of it.
    pub fn forget(&mut self, feed: FeedId, lane: i32) {
        self.lanes.remove(&(feed, lane));
        self.chains.retain(|key, _| (key.feed, key.lane) != (feed, lane));
        self.blocked.retain(|key| (key.feed, key.lane) != (feed, lane));
        self.in_work.retain(|place, _| (place.feed, place.lane) != (feed, lane));
    }

    /// The names of all lanes, in order.
    pub fn names(&self) -> Vec<(FeedId, i32)> {
        let mut names: Vec<_> = self.lanes.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// Owners of a lane that died since it was last calm.
    pub fn crashes(&self, feed: FeedId, lane: i32) -> i32 {
        self.lanes.get(&(feed, lane)).map_or(0, |lane| lane.crashes)
    }

    /// The lanes that are not calm: owners of them have died.
    pub fn restless(&self) -> impl Iterator<Item = ((FeedId, i32), &Lane)> {
        self.lanes.iter().filter(|(_, lane)| lane.crashes > 0).map(|(name, lane)| (*name, lane))
    }

    /// The epochs of all lanes.
    pub fn epochs(&self) -> Map<(FeedId, i32), i64> {
        self.lanes.iter().map(|(name, lane)| (*name, lane.epoch)).collect()
    }

    /// Where reading goes on, and how many rows a lane may give so that all together give about `room`.
    pub fn reads(&mut self, room: usize) -> (Vec<LaneRead>, i64) {
        let names = self.names().into_iter();
        let mut reads: Vec<LaneRead> = names.map(|(feed, lane)| LaneRead { feed, lane, after: self.lanes[&(feed, lane)].read }).collect();
        // A fetch that is cut by bytes serves the first lanes best: each time another one is first.
        if !reads.is_empty() {
            self.first = (self.first + 1) % reads.len();
            reads.rotate_left(self.first);
        }
        (reads, (room / self.busy.max(1)).max(64) as i64)
    }

    /// How many lanes had rows at the last fetch.
    pub fn set_busy(&mut self, lanes: usize) {
        self.busy = lanes;
    }

    /// Marks a key as held back, or not, by rows in the store.
    pub fn set_blocked(&mut self, key: BlockedKey, blocked: bool) {
        if blocked {
            self.blocked.insert(key);
        } else {
            self.blocked.remove(&key);
        }
    }

    /// Whether a new message of a key must stand behind rows in the store that are not in hand.
    pub fn held_back(&self, key: &BlockedKey) -> bool {
        match self.chains.get(key) {
            _ if crate::faults::mutant("no-parking") => false,
            Some(chain) => chain.more_behind,
            None => self.blocked.contains(key),
        }
    }

    /// Puts a message at the end of its key's line; true: it is the first and may run.
    pub fn push(&mut self, key: BlockedKey, seq: Seq) -> bool {
        let line = &mut self.chains.entry(key).or_default().line;
        line.push_back(seq);
        line.len() == 1
    }

    /// Puts messages back at the front of their key's line, in the order given.
    pub fn push_front(&mut self, key: BlockedKey, seqs: &[Seq]) {
        let line = &mut self.chains.entry(key).or_default().line;
        for seq in seqs.iter().rev() {
            line.push_front(*seq);
        }
    }

    /// The line of a key.
    pub fn line(&self, key: &BlockedKey) -> Option<&Chain> {
        self.chains.get(key)
    }

    /// Takes the first message off its key's line; returns the one after it.
    pub fn pop(&mut self, key: &BlockedKey, seq: Seq) -> Option<Seq> {
        let chain = self.chains.get_mut(key)?;
        if chain.line.front() == Some(&seq) {
            chain.line.pop_front();
        }
        let next = chain.line.front().copied();
        if next.is_none() && !chain.more_behind {
            self.chains.remove(key);
        }
        next
    }

    /// Takes one message out of its key's line, wherever it stands.
    pub fn remove(&mut self, key: &BlockedKey, seq: Seq) {
        if let Some(chain) = self.chains.get_mut(key) {
            chain.line.retain(|other| *other != seq);
            if chain.line.is_empty() && !chain.more_behind {
                self.chains.remove(key);
            }
        }
    }

    /// Takes the whole line of a key.
    pub fn drain(&mut self, key: &BlockedKey) -> Vec<Seq> {
        self.chains.remove(key).map(|chain| chain.line.into()).unwrap_or_default()
    }

    /// The store holds rows of this key behind those in hand (or no longer).
    pub fn set_more_behind(&mut self, key: BlockedKey, more: bool) {
        if more {
            self.chains.entry(key).or_default().more_behind = true;
        } else if let Some(chain) = self.chains.get_mut(&key) {
            chain.more_behind = false;
            if chain.line.is_empty() {
                self.chains.remove(&key);
            }
        }
    }

    /// A message with a row in `work` is in hand.
    pub fn hold(&mut self, place: Place, seq: Seq) {
        self.in_work.insert(place, seq);
    }

    /// It is no longer.
    pub fn release(&mut self, place: &Place) {
        self.in_work.remove(place);
    }

    /// The number of a message in hand that is not above its lane's cursor.
    pub fn held(&self, place: &Place) -> Option<Seq> {
        self.in_work.get(place).copied()
    }

    /// Whether a message with a row in `work` is in hand.
    pub fn holds(&self, place: &Place) -> bool {
        self.in_work.contains_key(place)
    }

    /// The messages with a row in `work` that are in hand.
    pub fn in_hand(&self) -> Vec<Place> {
        self.in_work.keys().copied().collect()
    }
}
