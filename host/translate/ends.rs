//! How the engine ends messages: in the order of their keys, seen by later ones at once, run again where their reads are stale, forgotten
//! where their lane is lost.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::engine::Engine;
use super::judge::{self, Said};
use super::lanes::Open;
use super::run::{Run, Seq};
use crate::message::{FeedId, Place, Status};
use crate::plugin::{Answer, Outcome, Reply};
use crate::store;

/// How soon a message is tried again whose plugin is active but not loaded here, in milliseconds.
const NOT_LOADED_MS: u64 = 1_000;

impl Engine {
    /// An outcome, once what the host must read for it is read.
    pub(super) fn conclude(&mut self, seq: Seq, outcome: Outcome) {
        let run = self.runs.get_mut(&seq).expect("it just ran");
        let reads = judge::host_reads(run, &outcome);
        if reads.is_empty() && judge::not_loaded(run, &outcome) {
            let reason = "a plugin was activated for its table, and this host has not loaded it; see its log".to_owned();
            return self.finish(seq, Said::Parked { code: "plugin-not-loaded", reason, after_ms: NOT_LOADED_MS, on: Vec::new() });
        }
        if reads.is_empty() {
            return self.finish(seq, Said::Outcome(outcome));
        }
        run.open += reads.len();
        run.judged = Some(outcome);
        self.wanted.extend(reads.into_iter().map(|request| (seq, request, false)));
    }

    pub(super) fn finish(&mut self, seq: Seq, said: Said) {
        let Some(run) = self.runs.get(&seq) else { return };
        if run.stale || run.seen.iter().any(|seen| self.overlay.outdated(seen)) {
            return self.again(seq);
        }
        let mut run = self.runs.remove(&seq).expect("it was there");
        run.took_ms = self.now_ms.saturating_sub(run.context.now_ms).max(0);
        let (key, place, behind) = (run.key(), run.message.place, matches!(said, Said::Behind));
        // A row that stands behind as it did before needs no settlement.
        if behind && run.row.as_ref().is_some_and(|row| row.status == Status::Behind) {
            self.forget(&run);
            self.lanes.release(&place);
            return;
        }
        let finished = judge::judge(run, said);
        self.overlay.apply(&finished.settled.writes, &finished.settled.bindings, &finished.run.cell);
        if finished.run.is_new()
            && let Some(lane) = self.lanes.get(place.feed, place.lane)
        {
            lane.open.insert(place.n, Open::Finished);
        }
        let interval = finished.run.feed.min_key_interval_ms(&finished.run.message.table);
        if interval > 0 && finished.settled.work.is_none() {
            self.pace.ended(key, interval, self.now_ms);
        }
        let blocks = finished.blocks && !behind;
        self.finished.push(finished);
        self.first_finished.get_or_insert_with(Instant::now);
        if behind {
            return;
        }
        if blocks && !crate::faults::mutant("no-parking") {
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
            run.stale = false;
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
            // Ordered while it waited for its turn.
            Some(_) if run.ordered.is_some() => self.finish_ordered(seq),
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
        let is_new = run.is_new();
        let place = run.message.place;
        run.again(fresh);
        self.parts.counts.conflicts.fetch_add(1, Ordering::Relaxed);
        if !is_new {
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
        self.desk.forget(feed, lane);
        self.pace.forget(feed, lane);
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
        // What was asked of it and not done is found open at the next question.
        run.action().into_iter().for_each(|id| self.desk.done(id));
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

    /// The oldest registry revision that anything runs on: what is in hand, and what a plugin that cannot be loaded here was to replace.
    pub fn oldest_revision(&self) -> i64 {
        let snapshot = self.parts.registry.snapshot();
        let in_hand = self.revisions.keys().next().copied().unwrap_or(snapshot.revision);
        snapshot.broken().iter().map(|(activation, _)| activation.id - 1).fold(in_hand, i64::min)
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

fn answer_bytes(run: &Run) -> usize {
    let body = |answer: &Answer| match &answer.reply {
        Reply::Response(response) => response.body.len(),
        _ => 0,
    };
    run.context.answers.iter().map(body).sum()
}
