//! Moves outputs from the store to their sinks, in settlement order, one cursor per target. Knows nothing of translators.

mod pace;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::sink::{Sent, Sink};
use crate::store::{self, OutputCursor, OutputRow, Parked, Store, TargetLease};
use crate::trouble::Pause;
use pace::{Chosen, Pace};

/// Rows and bytes of one send.
const ROWS_MAX: i64 = 5_000;
const BYTES_MAX: i64 = 16 << 20;

/// How a target's publishing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It was told to finish, and everything that was settled by then is out.
    Finished,
    /// Another host has the target.
    Fenced,
}

/// The publisher of one target by its one owner.
pub struct Publish {
    /// Our lease: where publishing goes on.
    pub lease: TargetLease,
    /// Where outputs go.
    pub sink: Arc<dyn Sink>,
    /// Where they come from.
    pub store: Arc<dyn Store>,
    /// Told of each settlement: a hint.
    pub settled: watch::Receiver<i64>,
    /// How often the store is asked when hints are missing.
    pub poll: Duration,
    /// The least time between two outputs of a key; zero: none.
    pub min_key_interval: Duration,
    /// Outputs published so far.
    pub count: Arc<AtomicU64>,
}

impl Publish {
    /// Publishes until told to stop or fenced, or to finish and has. Trouble is waited out and said.
    pub async fn run(&mut self, finish: CancellationToken, stop: CancellationToken) -> Ended {
        if self.lease.taken_over {
            // The last owner's sends may still be under way; ours must come after them.
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                () = tokio::time::sleep(Duration::from_millis(self.sink.settle_ms())) => {}
            }
        }
        let mut cursor = self.lease.cursor;
        let mut pause = Pause::default();
        let mut pace = Pace::new(self.min_key_interval, Instant::now());
        while !stop.is_cancelled() {
            // Other hosts go on settling: what they add after this is theirs to wait for.
            let upto = finish.is_cancelled().then(|| *self.settled.borrow());
            if upto.is_some_and(|upto| cursor.settlement > upto) {
                return Ended::Finished;
            }
            self.settled.mark_unchanged();
            match self.step(cursor, &mut pace).await {
                Ok(Step::Moved(to)) => {
                    cursor = to;
                    pause.reset();
                }
                Ok(Step::Idle) if upto.is_some() => return Ended::Finished,
                Ok(Step::Idle) => {
                    pause.reset();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = finish.cancelled() => {}
                        Ok(()) = self.settled.changed() => {}
                        () = tokio::time::sleep(self.poll) => {}
                    }
                }
                Ok(Step::Held(to, next)) => {
                    cursor = to;
                    pause.reset();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        Ok(()) = self.settled.changed() => {}
                        () = tokio::time::sleep_until(next.into()) => {}
                    }
                }
                Ok(Step::Fenced) => return Ended::Fenced,
                Ok(Step::Away(to, reason)) => {
                    cursor = to;
                    pause.wait(&self.lease.target, &SinkAway(reason), &stop).await;
                }
                Err(error) => pause.wait(&self.lease.target, &error, &stop).await,
            }
        }
        Ended::Stopped
    }

    async fn step(&self, cursor: OutputCursor, pace: &mut Pace) -> Result<Step, store::Error> {
        let target = &self.lease.target;
        let (rows, looked_at) = self.store.outputs(target, cursor, ROWS_MAX, BYTES_MAX).await?;
        if rows.is_empty() {
            let passed = OutputCursor { settlement: looked_at, index: i32::MAX };
            // Nothing for us up to there: remember it now and then, so that a restart does not look again.
            if looked_at > cursor.settlement + 1_000 {
                return Ok(if self.store.published(target, self.lease.epoch, passed, &[]).await? {
                    Step::Moved(passed)
                } else {
                    Step::Fenced
                });
            }
            return Ok(Step::Idle);
        }
        let blocked: HashSet<Option<Bytes>> = self.store.parked_keys(target).await?.into_iter().collect();
        let looked: Vec<OutputCursor> = rows.iter().map(|row| row.cursor).collect();
        let (sendable, mut parked) = part(rows, &blocked);
        let Chosen { rows: sendable, held, next } = pace.choose(sendable, Instant::now());
        let sent = self.sink.send(target, &sendable).await;
        crate::faults::step("publish", "sent").await;
        let (done, away) = judge(&sendable, &sent, cursor, &mut parked);
        let last = match &away {
            Some(_) => held.map_or(done, |held| pace.reach(done, Some(held), &looked).min(done)),
            None => pace.reach(parked.last().map(|parked| parked.cursor).max(Some(done)).unwrap_or(done), held, &looked),
        };
        let out = sendable.iter().zip(&sent).filter(|(_, sent)| **sent == Sent::Done).map(|(row, _)| row);
        pace.sent(out, last.max(cursor), Instant::now());
        parked.retain(|parked| parked.cursor <= last);
        if last > cursor {
            if !self.store.published(target, self.lease.epoch, last, &parked).await? {
                return Ok(Step::Fenced);
            }
            self.count.fetch_add(sent.iter().filter(|sent| **sent == Sent::Done).count() as u64, Ordering::Relaxed);
        }
        for refused in &parked {
            tracing::warn!(target, position = ?refused.cursor, reason = refused.reason, "parked: the sink refused it; its message shows failed");
        }
        let last = last.max(cursor);
        Ok(match (away, next) {
            (Some(reason), _) => Step::Away(last, reason),
            (None, Some(next)) => Step::Held(last, next),
            (None, None) => Step::Moved(last),
        })
    }
}

enum Step {
    Moved(OutputCursor),
    Idle,
    /// Outputs are held back until then.
    Held(OutputCursor, Instant),
    Fenced,
    Away(OutputCursor, String),
}

#[derive(Debug, thiserror::Error)]
#[error("send to the sink: {0}")]
struct SinkAway(String);

/// Parts what may be sent from what stands behind a parked output of its key.
fn part(rows: Vec<OutputRow>, blocked: &HashSet<Option<Bytes>>) -> (Vec<OutputRow>, Vec<Parked>) {
    if blocked.is_empty() {
        return (rows, Vec::new());
    }
    let (behind, sendable): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.key.is_some() && blocked.contains(&row.key));
    let parked = behind
        .into_iter()
        .map(|row| Parked { cursor: row.cursor, reason: "an earlier output of its key is parked at this target".to_owned() })
        .collect();
    (sendable, parked)
}

/// How far a send got: the last output that is done or refused, and why it went no further. Refused outputs join `parked`, and so do
/// later ones of their keys in the same send that the sink did take: they are out, so they are not parked.
fn judge(rows: &[OutputRow], sent: &[Sent], from: OutputCursor, parked: &mut Vec<Parked>) -> (OutputCursor, Option<String>) {
    let mut done = from;
    let mut away = None;
    for (row, sent) in rows.iter().zip(sent) {
        match sent {
            Sent::Done => done = row.cursor,
            Sent::Refused(reason) => {
                parked.push(Parked { cursor: row.cursor, reason: reason.clone() });
                done = row.cursor;
            }
            Sent::Away(reason) => {
                away = Some(reason.clone());
                break;
            }
        }
    }
    parked.sort_by_key(|parked| parked.cursor);
    (done, away)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{FeedId, Place};
    use crate::plugin::Action;

    pub(super) fn row(index: i32, key: &'static str) -> OutputRow {
        OutputRow {
            cursor: OutputCursor { settlement: 1, index },
            event_id: uuid::Uuid::nil(),
            place: Place { feed: FeedId(1), lane: 0, n: i64::from(index) },
            feed: "f".to_owned(),
            digest: None,
            action: Action::Put,
            key: Some(Bytes::from_static(key.as_bytes())),
            payload: None,
            headers: Vec::new(),
            version: None,
        }
    }

    #[test]
    fn what_follows_a_parked_key_is_parked_and_the_rest_goes_on() {
        let blocked = HashSet::from([Some(Bytes::from_static(b"a"))]);
        let (sendable, parked) = part(vec![row(0, "a"), row(1, "b"), row(2, "a")], &blocked);
        assert_eq!(sendable.iter().map(|row| row.cursor.index).collect::<Vec<_>>(), [1]);
        assert_eq!(parked.iter().map(|parked| parked.cursor.index).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_send_counts_up_to_the_first_output_that_is_away() {
        let rows = [row(0, "a"), row(1, "b"), row(2, "c"), row(3, "d")];
        let mut parked = Vec::new();
        let sent = [Sent::Done, Sent::Refused("too large".to_owned()), Sent::Away("gone".to_owned()), Sent::Done];
        let (done, away) = judge(&rows, &sent, OutputCursor::default(), &mut parked);
        assert_eq!((done.index, away.as_deref()), (1, Some("gone")));
        assert_eq!(parked.iter().map(|parked| parked.cursor.index).collect::<Vec<_>>(), [1]);
    }
}
