//! The least time between two outputs of a key at a target: which outputs may go now, which are held back, and how far the cursor may move
//! meanwhile. A new owner waits one interval for every key, as it does not know what went out just before. Pure bookkeeping.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::store::{OutputCursor, OutputRow};

/// Keys that are remembered before those that no longer matter are forgotten.
const KEYS_MAX: usize = 100_000;

/// The pace of one target.
pub struct Pace {
    interval: Duration,
    began: Instant,
    sent: HashMap<Bytes, Instant>,
    /// Outputs beyond the cursor that are out already.
    ahead: BTreeSet<OutputCursor>,
}

/// What may go now.
pub struct Chosen {
    /// These.
    pub rows: Vec<OutputRow>,
    /// The first that is held back: the cursor stays before it.
    pub held: Option<OutputCursor>,
    /// When the first of those held back may go.
    pub next: Option<Instant>,
}

impl Pace {
    /// A pace that begins now.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, began: now, sent: HashMap::new(), ahead: BTreeSet::new() }
    }

    /// Parts what may go from what must wait; of each key at most one output, the first.
    pub fn choose(&self, rows: Vec<OutputRow>, now: Instant) -> Chosen {
        let mut chosen = Chosen { rows: Vec::new(), held: None, next: None };
        if self.interval.is_zero() {
            return Chosen { rows, ..chosen };
        }
        let mut taken: HashSet<Bytes> = HashSet::new();
        for row in rows {
            if self.ahead.contains(&row.cursor) {
                continue;
            }
            let Some(key) = row.key.clone() else {
                chosen.rows.push(row);
                continue;
            };
            let until = *self.sent.get(&key).unwrap_or(&self.began) + self.interval;
            if taken.insert(key) && until <= now {
                chosen.rows.push(row);
                continue;
            }
            let until = if until <= now { now + self.interval } else { until };
            chosen.held.get_or_insert(row.cursor);
            chosen.next = Some(chosen.next.map_or(until, |next| next.min(until)));
        }
        chosen
    }

    /// These are out; `reached` is where the cursor stands now.
    pub fn sent<'a>(&mut self, rows: impl Iterator<Item = &'a OutputRow>, reached: OutputCursor, now: Instant) {
        if self.interval.is_zero() {
            return;
        }
        for row in rows {
            self.sent.extend(row.key.clone().map(|key| (key, now)));
            self.ahead.insert(row.cursor);
        }
        self.ahead = self.ahead.split_off(&OutputCursor { index: reached.index.saturating_add(1), ..reached });
        if self.sent.len() >= KEYS_MAX {
            let interval = self.interval;
            self.sent.retain(|_, sent| *sent + interval > now);
        }
    }

    /// How far the cursor may move: over what is done, and over what went out before, but not over what is held back.
    pub fn reach(&self, done: OutputCursor, held: Option<OutputCursor>, looked_at: &[OutputCursor]) -> OutputCursor {
        match held {
            None => looked_at.iter().copied().filter(|at| self.ahead.contains(at)).max().map_or(done, |ahead| ahead.max(done)),
            Some(held) => {
                looked_at.iter().copied().filter(|at| *at < held).max().map_or(OutputCursor::default(), |before| before.min(held))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: i32, key: Option<&'static str>) -> OutputRow {
        OutputRow { key: key.map(|key| Bytes::from_static(key.as_bytes())), ..crate::publish::tests::row(index, "") }
    }

    fn indexes(rows: &[OutputRow]) -> Vec<i32> {
        rows.iter().map(|row| row.cursor.index).collect()
    }

    #[test]
    fn one_output_of_a_key_goes_and_the_next_waits_while_others_pass() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::new(second, start);
        let rows = || vec![row(0, Some("a")), row(1, Some("a")), row(2, Some("b")), row(3, None)];
        let all: Vec<_> = rows().iter().map(|row| row.cursor).collect();
        let first = pace.choose(rows(), start);
        assert_eq!(indexes(&first.rows), [3], "a new owner waits one interval for every key");
        let now = start + second;
        let chosen = pace.choose(rows(), now);
        assert_eq!((indexes(&chosen.rows), chosen.held.unwrap().index), (vec![0, 2, 3], 1));
        assert_eq!(chosen.next, Some(now + second));
        let reached = pace.reach(all[3], chosen.held, &all);
        assert_eq!(reached.index, 0);
        pace.sent(chosen.rows.iter(), reached, now);
        let later = pace.choose(rows().split_off(1), now + second);
        assert_eq!((indexes(&later.rows), later.held), (vec![1], None), "what is out already is not sent again");
        assert_eq!(pace.reach(all[1], None, &all[1..]).index, 3);
    }

    #[test]
    fn without_an_interval_everything_goes() {
        let now = Instant::now();
        let chosen = Pace::new(Duration::ZERO, now).choose(vec![row(0, Some("a")), row(1, Some("a"))], now);
        assert_eq!((indexes(&chosen.rows), chosen.held), (vec![0, 1], None));
    }
}
