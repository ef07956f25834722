//! The engine's way into the store: gathers what is finished into one settlement, and makes true in memory what the store says of it.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::engine::{Engine, Event};
use super::judge;
use super::lanes::Open;
use super::overlay::Fate;
use super::run::{Finished, InHand, Run, Seq};
use crate::message::{FeedId, Map, Place, Set, Status};
use crate::store::{self, Applied, BlockedKey, End, LaneStep, NewRevisit, Range, Read, Settled, Settlement, Store, Verdict, WorkRow};

/// A settlement under way.
pub(super) struct Settling {
    /// The messages, in the order of `Settlement::settled`.
    runs: Vec<InHand>,
    /// Messages in hand that get a row in `work` because the cursor passes them; they stand after `runs` in `settled`. Named by place: one that
    /// runs again meanwhile has another number.
    running: Vec<Place>,
    /// Rows of its messages were due before it came back: they are asked for again then.
    met_due: bool,
    /// Results of actions without a message of their own.
    applied: Vec<(Applied, Place)>,
    /// The places of its messages, once somebody asks: there may be as many who ask.
    places: OnceCell<Set<Place>>,
}

impl Settling {
    /// The messages whose settlement is under way.
    pub(super) fn runs(&self) -> &[InHand] {
        &self.runs
    }
}

impl Engine {
    /// Whether a message is in the settlement under way.
    pub(super) fn is_settling(&mut self, place: &Place) -> bool {
        let Some(settling) = &mut self.settling else { return false };
        let places = settling.places.get_or_init(|| settling.runs.iter().map(|run| run.message.place).collect());
        let is = places.contains(place);
        settling.met_due |= is;
        is
    }

    /// Starts a settlement when there is reason to: time, number, or nothing else to wait for.
    pub(super) fn settle_if_due(&mut self) {
        if self.settling.is_some() || (self.finished.is_empty() && self.desk.applied.is_empty()) {
            return;
        }
        let waited = self.first_finished.is_some_and(|since| since.elapsed() >= self.parts.settle_every);
        let full = self.finished.len() >= self.parts.settle_messages_max;
        if waited || full || self.runs.is_empty() {
            self.start_settlement();
        }
    }

    fn start_settlement(&mut self) {
        let finished = self.take_settleable();
        self.first_finished = (!self.finished.is_empty()).then(Instant::now);
        let applied = std::mem::take(&mut self.desk.applied);
        if finished.is_empty() && applied.is_empty() {
            return;
        }
        let (mut settled, mut runs) = (Vec::new(), Vec::new());
        for Finished { run, settled: mut one, .. } in finished {
            one.reads = reads(&run);
            settled.push(one);
            runs.push(run);
        }
        let lanes = self.steps(&settled, &applied);
        let mut actions = Self::applied(&runs, &settled);
        actions.extend(applied.iter().map(|(applied, _)| *applied));
        let revisit = |run: &InHand| run.revisit.clone().map(|(due_ms, detail)| NewRevisit { place: run.message.place, due_ms, detail });
        let revisits = runs.iter().filter_map(revisit).collect();
        let running = self.passed(&lanes);
        let ranges = ranges(&mut settled, &runs, &lanes);
        settled.extend(running.iter().map(|seq| judge::running(&self.runs[seq])));
        let running = running.iter().map(|seq| self.runs[seq].message.place).collect();
        let lanes = lanes.into_iter().map(|(_, step)| step).collect();
        self.next_batch += 1;
        let batch = (i64::from(self.parts.host.number) << 32) | i64::from(self.next_batch);
        let settlement = Box::new(Settlement { lanes, settled, ranges, actions, revisits });
        self.settling = Some(Settling { runs, running, met_due: false, applied, places: OnceCell::new() });
        let (store, sender, host) = (self.parts.store.clone(), self.sender.clone(), self.parts.host.clone());
        tokio::spawn(async move {
            let result = settle(&store, &host, batch, &settlement).await;
            let _ = sender.send(Event::Settled(settlement, result));
        });
    }

    /// Takes what is to be settled now. What is finished behind a message of its lane that will be done in a moment stays for the next
    /// settlement: else the cursor would pass that message, which costs it a row in `work` and its key a stop.
    fn take_settleable(&mut self) -> Vec<Finished> {
        let mut limits: Map<(FeedId, i32), Option<i64>> = Map::default();
        for done in &self.finished {
            let Place { feed, lane, n } = done.settled.place;
            let soon = || self.lanes.running(feed, lane).find(|(_, seq)| self.is_brief(*seq)).map(|(n, _)| n);
            let limit = limits.entry((feed, lane)).or_insert_with(soon);
            // Others may have read what it wrote: then it settles before them, or with them.
            let alone = done.settled.writes.is_empty() && done.settled.bindings.is_empty();
            if !alone && !done.settled.had_work && limit.is_some_and(|limit| n > limit) {
                *limit = None;
            }
        }
        if limits.values().all(Option::is_none) {
            return std::mem::take(&mut self.finished);
        }
        let goes = |done: &mut Finished| {
            let Place { feed, lane, n } = done.settled.place;
            done.settled.had_work || limits[&(feed, lane)].is_none_or(|limit| n < limit)
        };
        self.finished.extract_if(.., goes).collect()
    }

    /// Whether a message will be done in a moment, as far as one can tell: neither it nor the head of its key has asked for anything.
    fn is_brief(&self, seq: Seq) -> bool {
        let asks = |run: &Run| run.rounds > 0 || run.open > 0 || run.conflicts > 0;
        let Some(run) = self.runs.get(&seq) else { return false };
        let head = self.lanes.line(&run.key()).and_then(|chain| self.runs.get(chain.line.front()?));
        !asks(run) && head.is_some_and(|head| !asks(head))
    }

    /// The lanes touched, each with its cursor before and its step.
    fn steps(&mut self, settled: &[Settled], applied: &[(Applied, Place)]) -> Vec<(i64, LaneStep)> {
        let lane = |(_, place): &(Applied, Place)| ((place.feed, place.lane), 0);
        let mut highest: BTreeMap<(FeedId, i32), i64> = applied.iter().map(lane).collect();
        for one in settled {
            let end = highest.entry((one.place.feed, one.place.lane)).or_insert(0);
            if !one.had_work {
                *end = (*end).max(one.place.n);
            }
        }
        let step = |((feed, lane), highest): ((FeedId, i32), i64)| {
            let known = self.lanes.get(feed, lane)?;
            Some((known.cursor, LaneStep { feed, lane, epoch: known.epoch, cursor: highest.max(known.cursor) }))
        };
        highest.into_iter().filter_map(step).collect()
    }

    /// The messages still in hand that the cursors pass.
    fn passed(&mut self, lanes: &[(i64, LaneStep)]) -> Vec<Seq> {
        let mut passed = Vec::new();
        for (_, step) in lanes.iter().filter(|_| !crate::faults::mutant("cursor-over-unsettled")) {
            let Some(lane) = self.lanes.get(step.feed, step.lane) else { continue };
            for open in lane.open.range(..=step.cursor).map(|(_, open)| open) {
                if let Open::Running(seq) = open {
                    passed.push(*seq);
                }
            }
        }
        passed
    }

    /// What the store said of the settlement under way.
    pub(super) fn settled(&mut self, settlement: Settlement, result: store::Result<Verdict>) {
        let Some(settling) = self.settling.take() else { return };
        match result {
            Ok(Verdict::Committed { settlement: number, still_blocked, woken }) => {
                self.pause = 0;
                self.committed(settlement, settling, number, still_blocked.into_iter().collect(), woken);
            }
            Ok(Verdict::Fenced(lanes)) => {
                self.parts.counts.fenced.fetch_add(lanes.len() as u64, Ordering::Relaxed);
                self.restore(settlement, settling);
                lanes.into_iter().for_each(|(feed, lane)| self.lose(feed, lane));
                self.rerun(&Set::default());
            }
            Ok(Verdict::Stale(stale)) => {
                let places: Set<(Place, i32)> =
                    stale.iter().map(|stale| &settlement.settled[stale.index]).map(|one| (one.place, one.run)).collect();
                self.restore(settlement, settling);
                self.rerun(&places);
            }
            Err(error) => {
                self.restore(settlement, settling);
                self.failed(error, false, false);
            }
        }
    }

    /// Puts the messages of a settlement that did not happen back in front of what finished since.
    fn restore(&mut self, settlement: Settlement, settling: Settling) {
        self.desk.applied.splice(0..0, settling.applied);
        let mut finished: Vec<Finished> = settlement
            .settled
            .into_iter()
            .zip(settling.runs)
            .map(|(settled, run)| {
                let blocks = settled.work.as_ref().is_some_and(|row| row.blocks);
                Finished { run, settled, blocks }
            })
            .collect();
        finished.append(&mut self.finished);
        self.finished = finished;
        if !self.finished.is_empty() {
            self.first_finished.get_or_insert_with(Instant::now);
        }
    }

    /// Runs stale messages again, with those that read their unsettled writes and the later ones of their keys.
    pub(super) fn rerun(&mut self, stale: &Set<(Place, i32)>) {
        // Keys with a dropped message, and whether the first of them was a new row: then all of its line was in hand.
        let mut dirty: Map<BlockedKey, bool> = Map::default();
        let mut back: Map<BlockedKey, Vec<InHand>> = Map::default();
        let mut kept = Vec::new();
        for done in std::mem::take(&mut self.finished) {
            let key = done.run.key();
            let hit = stale.contains(&(done.settled.place, done.settled.run));
            if done.run.aside {
                kept.push(done);
                continue;
            }
            let read_dropped = done.run.seen.iter().flat_map(|seen| &seen.cells).any(|cell| cell.fate() == Fate::Dropped);
            let behind = done.settled.work.as_ref().is_some_and(|row| row.status == Status::Behind);
            let follows = dirty.get(&key).is_some_and(|whole_line| *whole_line || !behind);
            if !(hit || read_dropped || follows) {
                kept.push(done);
                continue;
            }
            dirty.entry(key).or_insert(done.run.row.is_none());
            self.overlay.remove(&done.settled.writes, &done.settled.bindings, &done.run.cell);
            done.run.cell.drop_writes();
            back.entry(key).or_default().push(done.run);
        }
        self.finished = kept;
        for (key, runs) in back {
            if dirty[&key] {
                self.lanes.set_blocked(key, false);
            }
            self.put_back(key, runs);
        }
    }

    /// Puts messages back at the front of their key's line, to run again.
    fn put_back(&mut self, key: BlockedKey, runs: Vec<InHand>) {
        // One that has a row in the store may have others behind it there.
        let in_store = runs.iter().any(|run| run.row.is_some());
        let mut seqs = Vec::new();
        for mut run in runs {
            let seq = self.next_seq;
            self.next_seq += 1;
            let place = run.message.place;
            run.again(seq);
            self.parts.counts.conflicts.fetch_add(1, Ordering::Relaxed);
            if !run.is_new() {
                self.lanes.hold(place, seq);
            } else if let Some(lane) = self.lanes.get(place.feed, place.lane) {
                lane.open.insert(place.n, Open::Running(seq));
            }
            self.runs.insert(seq, run);
            seqs.push(seq);
        }
        self.lanes.push_front(key, &seqs);
        if in_store {
            self.lanes.set_more_behind(key, true);
        }
        self.ready.extend(seqs.first());
    }

    fn committed(&mut self, settlement: Settlement, settling: Settling, number: i64, still: Set<BlockedKey>, woken: usize) {
        let Settling { runs, running, met_due, .. } = settling;
        settlement.actions.iter().for_each(|applied| self.desk.done(applied.id));
        self.ask_due |= !settlement.actions.is_empty();
        self.parts.counts.settlements.fetch_add(1, Ordering::Relaxed);
        self.parts.counts.messages.fetch_add(runs.len() as u64, Ordering::Relaxed);
        // Versions tell settlements apart, not the writes within one: who saw a write of this settlement that a later one of it replaced must
        // learn so now, while the overlay still knows.
        runs.iter().for_each(|run| run.cell.settle(number));
        for run in self.runs.values_mut().filter(|run| !run.stale) {
            run.stale = run.seen.iter().any(|seen| self.overlay.replaced(seen));
        }
        let replaced = |done: &&Finished| done.run.seen.iter().any(|seen| self.overlay.replaced(seen));
        let stale: Set<(Place, i32)> = self.finished.iter().filter(replaced).map(|done| (done.settled.place, done.settled.run)).collect();
        let mut released: Set<BlockedKey> = Set::default();
        for (place, one) in running.iter().zip(&settlement.settled[runs.len()..]) {
            self.now_in_work(*place, one.work.clone());
        }
        for step in &settlement.lanes {
            if let Some(lane) = self.lanes.get(step.feed, step.lane) {
                lane.cursor = lane.cursor.max(step.cursor);
                lane.open = lane.open.split_off(&(step.cursor + 1));
            }
        }
        let unsettled: Set<BlockedKey> = if settlement.settled.iter().any(|one| one.drops_older) {
            self.finished.iter().map(|done| done.run.key()).collect()
        } else {
            Set::default()
        };
        for one in settlement.settled.iter().filter(|one| one.drops_older) {
            self.drop_older(one, &unsettled);
        }
        for (run, one) in runs.into_iter().zip(settlement.settled) {
            self.overlay.remove(&one.writes, &one.bindings, &run.cell);
            self.lanes.release(&one.place);
            self.desk.released(&one);
            self.parked(&one);
            let key = run.key();
            match &one.work {
                Some(row) if row.blocks => self.lanes.set_blocked(key, true),
                Some(_) if one.had_work => {
                    released.insert(key);
                }
                Some(_) => {}
                None if one.had_work => {
                    released.insert(key);
                }
                None => {}
            }
            self.forget(&run);
        }
        // A key that is free in the store may be held back by what finished since and is not settled yet.
        let ours: Set<BlockedKey> = self.finished.iter().filter(|done| done.holds_back()).map(|done| done.run.key()).collect();
        let mut free = Set::default();
        for key in released {
            if ours.contains(&key) && !still.contains(&key) {
                self.draining.remove(&key);
            } else if still.contains(&key) {
                self.lanes.set_blocked(key, true);
                self.draining.insert(key);
                self.ask_due = true;
            } else {
                self.draining.remove(&key);
                self.lanes.set_blocked(key, false);
                self.lanes.set_more_behind(key, false);
                free.insert(key);
            }
        }
        self.free(&free);
        if !stale.is_empty() {
            self.rerun(&stale);
        }
        self.ask_due |= met_due || woken > 0;
        self.parts.settled.send_replace(number);
    }

    /// Newest wins: older messages of the key left `work` with this settlement; those of them in hand are let go.
    fn drop_older(&mut self, newer: &Settled, unsettled: &Set<BlockedKey>) {
        let key = BlockedKey { feed: newer.place.feed, lane: newer.place.lane, key_hash: newer.key_hash };
        let older = |run: &InHand| run.key() == key && run.message.place.n < newer.place.n && run.row.is_some() && run.run <= newer.run;
        let line = self.lanes.line(&key).into_iter().flat_map(|chain| chain.line.iter().copied());
        let gone: Vec<Seq> = line.filter(|seq| self.runs.get(seq).is_some_and(older)).collect();
        // What finished of its key is looked for only where there may be some: this is done for each message.
        let looked_for = unsettled.contains(&key) || !gone.is_empty();
        for seq in gone {
            let run = self.runs.remove(&seq).expect("it was just found");
            self.lanes.release(&run.message.place);
            let was_first = self.lanes.line(&key).is_some_and(|chain| chain.line.front() == Some(&seq));
            self.lanes.remove(&key, seq);
            self.forget(&run);
            if was_first && let Some(next) = self.lanes.line(&key).and_then(|chain| chain.line.front().copied()) {
                self.advance(next);
            }
        }
        if !looked_for {
            return;
        }
        let (gone, kept) = std::mem::take(&mut self.finished).into_iter().partition::<Vec<_>, _>(|done| older(&done.run));
        self.finished = kept;
        for done in gone {
            self.overlay.remove(&done.settled.writes, &done.settled.bindings, &done.run.cell);
            done.run.cell.drop_writes();
            self.lanes.release(&done.settled.place);
            self.forget(&done.run);
        }
    }

    /// A message that the cursor has passed has a row in `work` now, be it still running or finished meanwhile.
    fn now_in_work(&mut self, place: Place, row: Option<WorkRow>) {
        let open = self.lanes.get(place.feed, place.lane).and_then(|lane| lane.open.get(&place.n).copied());
        let seq = match open {
            Some(Open::Running(seq)) => {
                let Some(run) = self.runs.get_mut(&seq) else { return };
                run.row = row;
                seq
            }
            Some(Open::Finished) => {
                let Some(done) = self.finished.iter_mut().find(|done| done.settled.place == place) else { return };
                done.run.row = row;
                done.settled.had_work = true;
                // Its stretch was settled without it, so it needs an end of its own.
                if done.settled.work.is_none() && done.settled.end.is_none() {
                    done.settled.end = Some(handled(&done.run));
                }
                done.run.seq
            }
            // Its lane was lost.
            None => return,
        };
        self.lanes.hold(place, seq);
    }

    /// Keys are free in the store: what finished as `behind` meanwhile, and is not settled, has nobody to stand behind. All keys at once: there
    /// may be as many as there are messages.
    fn free(&mut self, keys: &Set<BlockedKey>) {
        let behind = |done: &mut Finished| {
            let is_behind = !done.run.aside && done.settled.work.as_ref().is_some_and(|row| row.status == Status::Behind);
            is_behind && keys.contains(&done.run.key())
        };
        if keys.is_empty() {
            return;
        }
        let mut back: Vec<(BlockedKey, Vec<InHand>)> = Vec::new();
        let mut places: Map<BlockedKey, usize> = Map::default();
        for done in self.finished.extract_if(.., behind) {
            let key = done.run.key();
            let at = *places.entry(key).or_insert(back.len());
            if at == back.len() {
                back.push((key, Vec::new()));
            }
            back[at].1.push(done.run);
        }
        back.into_iter().for_each(|(key, runs)| self.put_back(key, runs));
    }
}

/// Settles until the store says what became of it. A batch's number is never given twice, so that a commit of unknown fate cannot happen
/// a second time: the retry waits for it and then fails on the number.
async fn settle(store: &Arc<dyn Store>, host: &store::Host, batch: i64, settlement: &Settlement) -> store::Result<Verdict> {
    let mut tries = 0_u32;
    loop {
        let error = match store.settle(host, batch, settlement).await {
            Ok(verdict) => return Ok(verdict),
            Err(error) => error,
        };
        if tries.is_power_of_two() || tries == 0 {
            tracing::warn!(error = %crate::trouble::Chain(&error), tries, "a settlement did not come back; asking what became of it");
        }
        loop {
            tokio::time::sleep(Duration::from_millis(50 << tries.min(6))).await;
            tries += 1;
            // Until its fate is known, and if it is committed until that is told, no error may leave: what is settled again under another
            // number would be there twice.
            let known = match store.settled(batch).await {
                Ok(Some(number)) => recovered(store, settlement, number).await,
                Ok(None) => break,
                Err(error) => Err(error),
            };
            match known {
                Ok(verdict) => return Ok(verdict),
                Err(error) if tries.is_power_of_two() => {
                    tracing::warn!(error = %crate::trouble::Chain(&error), tries, "what became of a settlement is not known yet");
                }
                Err(_) => {}
            }
        }
    }
}

/// The verdict of a commit whose answer was lost.
async fn recovered(store: &Arc<dyn Store>, settlement: &Settlement, number: i64) -> store::Result<Verdict> {
    let lanes: Vec<(FeedId, i32)> = settlement.lanes.iter().map(|step| (step.feed, step.lane)).collect();
    let still_blocked = store.blocked(&lanes).await?;
    Ok(Verdict::Committed { settlement: number, still_blocked, woken: 1 })
}

/// What a message read, as the store validates it. What it read of this very settlement needs no validation.
fn reads(run: &Run) -> Vec<Read> {
    let mut reads = Vec::with_capacity(run.seen.len());
    for seen in &run.seen {
        let settled = seen.cells.iter().filter_map(|cell| match cell.fate() {
            Fate::Settled(number) => Some(number),
            Fate::Unsettled | Fate::Dropped => None,
        });
        if let Some(at) = seen.at.or(settled.max()) {
            reads.push(Read { request: seen.request.clone(), at });
        }
    }
    reads
}

/// Provenance of the stretches that the cursors pass. A message whose plugin differs from its stretch's gets an outcome row of its own.
fn ranges(settled: &mut [Settled], runs: &[InHand], lanes: &[(i64, LaneStep)]) -> Vec<Range> {
    let mut order: Vec<usize> = (0..settled.len()).filter(|i| !settled[*i].had_work).collect();
    order.sort_unstable_by_key(|i| settled[*i].place);
    let mut ranges: Vec<Range> = Vec::new();
    for i in order {
        let (one, run) = (&settled[i], &runs[i]);
        let plain = one.work.is_none() && one.end.is_none() && run.errand.is_none();
        let Some(active) = run.active.as_ref().filter(|_| plain) else { continue };
        let Place { feed, lane, n } = one.place;
        let fits = ranges.last_mut().filter(|range| (range.feed, range.lane, range.now_ms) == (feed, lane, run.context.now_ms));
        match fits {
            Some(range) => {
                let known = range.activations.iter().find(|(table, _)| *table == run.message.table).map(|(_, activation)| *activation);
                match known {
                    Some(activation) if activation != active.activation => {
                        settled[i].end = Some(handled(run));
                        continue;
                    }
                    Some(_) => {}
                    None => range.activations.push((run.message.table.clone(), active.activation)),
                }
                range.to = n;
            }
            None => ranges.push(Range {
                feed,
                lane,
                from: n,
                to: n,
                now_ms: run.context.now_ms,
                activations: vec![(run.message.table.clone(), active.activation)],
            }),
        }
    }
    debug_assert!(ranges.iter().all(|range| lanes.iter().any(|(_, step)| step.feed == range.feed && step.cursor >= range.to)));
    ranges
}

fn handled(run: &Run) -> End {
    End {
        status: Status::Handled,
        code: String::new(),
        reason: String::new(),
        attempts: run.attempts(),
        activation: run.active.as_ref().map(|active| active.activation),
        now_ms: run.context.now_ms,
    }
}
