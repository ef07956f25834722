//! A breaker: failures in a row open it; while it is open nothing is sent; then one probe at a time decides. Knows nothing of HTTP, and
//! is told the time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Calls turned away in each turn of the breaker that may come back for the next probe; all others come later, or when they are told.
const EARLY_MAX: u32 = 3;
/// How many turns of the breaker the others stay away...
const LATE_TURNS: u32 = 5;
/// ...but no longer than this, or one turn.
const LATE_MAX: Duration = Duration::from_secs(60);

/// The breaker of one endpoint.
#[derive(Debug)]
pub struct Breaker {
    /// Failures in a row that open it; 0: it never opens.
    failures_max: u32,
    open_for: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Raised at every change of state: what a call of an earlier generation reports is old news.
    generation: u64,
    /// Calls turned away early in this generation.
    early: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    Probing,
}

/// What people see of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Calls go out.
    Closed,
    /// Nothing goes out until a probe may, after this long.
    Open { probe_after: Duration },
    /// One call is out to see whether the endpoint is back.
    Probing,
}

/// No leave: the breaker is open, or a probe is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When the next probe goes, if no other one is under way.
    pub probe_after: Duration,
    /// When to come back.
    pub after: Duration,
    /// Whether it is to come back for the probe.
    pub early: bool,
}

/// Leave to make one call. Dropped without a report (the call was given up), it counts as nothing, and frees the probe.
#[derive(Debug)]
pub struct Leave<'a> {
    breaker: &'a Breaker,
    generation: u64,
    probe: bool,
    reported: bool,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(failures_max: u32, open_for: Duration) -> Self {
        Self { failures_max, open_for, inner: Mutex::new(Inner { state: State::Closed, failures: 0, generation: 0, early: 0 }) }
    }

    /// Leave for a call, or when to ask again.
    pub fn ask(&self, now: Instant) -> Result<Leave<'_>, Refusal> {
        if let Some(refusal) = self.refuse(now) {
            return Err(refusal);
        }
        let mut inner = self.lock();
        let probe = match inner.state {
            State::Closed => false,
            State::Open { .. } => true,
            // Another one was quicker.
            State::Probing => return Err(self.refusal(&mut inner, self.open_for)),
        };
        if probe {
            inner.change(State::Probing);
        }
        Ok(Leave { breaker: self, generation: inner.generation, probe, reported: false })
    }

    /// When to ask for leave, where asking now cannot help.
    pub fn refuse(&self, now: Instant) -> Option<Refusal> {
        let mut inner = self.lock();
        let probe_after = match inner.state {
            State::Open { until } if until > now => until - now,
            State::Probing => self.open_for,
            State::Closed | State::Open { .. } => return None,
        };
        Some(self.refusal(&mut inner, probe_after))
    }

    fn refusal(&self, inner: &mut Inner, probe_after: Duration) -> Refusal {
        let early = inner.early < EARLY_MAX;
        inner.early += u32::from(early);
        let late = (self.open_for * LATE_TURNS).min(LATE_MAX.max(self.open_for));
        Refusal { probe_after, after: if early { probe_after } else { probe_after + late }, early }
    }

    /// Its state, and its failures in a row.
    pub fn seen(&self, now: Instant) -> (Seen, u32) {
        let inner = self.lock();
        let seen = match inner.state {
            State::Closed => Seen::Closed,
            State::Open { until } => Seen::Open { probe_after: until.saturating_duration_since(now) },
            State::Probing => Seen::Probing,
        };
        (seen, inner.failures)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn change(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
        self.early = 0;
    }
}

impl Leave<'_> {
    /// Whether this call is a probe.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// The endpoint answered sensibly.
    pub fn succeeded(mut self) {
        self.reported = true;
        let mut inner = self.breaker.lock();
        if inner.generation != self.generation {
            return;
        }
        inner.failures = 0;
        if self.probe {
            inner.change(State::Closed);
        }
    }

    /// It did not; returns the failures in a row.
    pub fn failed(mut self, now: Instant) -> u32 {
        self.reported = true;
        let mut inner = self.breaker.lock();
        if inner.generation != self.generation {
            return inner.failures;
        }
        inner.failures = inner.failures.saturating_add(1);
        let full = self.breaker.failures_max > 0 && inner.failures >= self.breaker.failures_max;
        if self.probe || full {
            inner.change(State::Open { until: now + self.breaker.open_for });
        }
        inner.failures
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut inner = self.breaker.lock();
        if !self.reported && self.probe && inner.generation == self.generation {
            // A probe that nobody waits for says nothing: the next call may be the probe.
            inner.change(State::Open { until: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(5);

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(3, OPEN);
        for _ in 0..3 {
            breaker.ask(now).unwrap().failed(now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let now = Instant::now();
        let breaker = Breaker::new(3, OPEN);
        breaker.ask(now).unwrap().failed(now);
        breaker.ask(now).unwrap().failed(now);
        breaker.ask(now).unwrap().succeeded();
        breaker.ask(now).unwrap().failed(now);
        breaker.ask(now).unwrap().failed(now);
        assert_eq!(breaker.seen(now), (Seen::Closed, 2));
        breaker.ask(now).unwrap().failed(now);
        assert_eq!(breaker.seen(now), (Seen::Open { probe_after: OPEN }, 3));
        let refusal = breaker.ask(now + Duration::from_secs(2)).unwrap_err();
        assert_eq!((refusal.probe_after, refusal.after), (Duration::from_secs(3), Duration::from_secs(3)));
    }

    #[test]
    fn one_probe_at_a_time_and_its_success_closes() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + OPEN;
        let probe = breaker.ask(later).unwrap();
        assert!(probe.is_probe());
        assert!(breaker.ask(later).is_err(), "a second probe");
        probe.succeeded();
        assert_eq!(breaker.seen(later), (Seen::Closed, 0));
        assert!(!breaker.ask(later).unwrap().is_probe());
    }

    #[test]
    fn a_few_come_back_for_the_probe_and_the_others_later() {
        let now = Instant::now();
        let breaker = opened(now);
        let turned_away = |at: Instant| (0..10).map(|_| breaker.refuse(at).unwrap()).filter(|refusal| refusal.early).count();
        assert_eq!(turned_away(now), 3);
        let late = breaker.refuse(now).unwrap();
        assert_eq!((late.probe_after, late.after), (OPEN, 6 * OPEN));
        let probe = breaker.ask(now + OPEN).unwrap();
        assert_eq!(turned_away(now + OPEN), 3, "each turn anew");
        probe.failed(now + OPEN);
        assert_eq!(turned_away(now + OPEN), 3);
        breaker.ask(now + 2 * OPEN).unwrap().succeeded();
        assert_eq!(breaker.refuse(now + 2 * OPEN), None);
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + OPEN;
        assert_eq!(breaker.ask(later).unwrap().failed(later), 4);
        assert_eq!(breaker.seen(later).0, Seen::Open { probe_after: OPEN });
    }

    #[test]
    fn a_probe_given_up_lets_the_next_one_go() {
        let now = Instant::now();
        let breaker = opened(now - OPEN);
        drop(breaker.ask(now).unwrap());
        assert!(breaker.ask(Instant::now()).unwrap().is_probe());
    }

    #[test]
    fn late_reports_of_an_earlier_generation_are_old_news() {
        let now = Instant::now();
        let breaker = Breaker::new(1, OPEN);
        let (slow, slower) = (breaker.ask(now).unwrap(), breaker.ask(now).unwrap());
        breaker.ask(now).unwrap().failed(now);
        slow.succeeded();
        assert!(matches!(breaker.seen(now).0, Seen::Open { .. }));
        breaker.ask(now + OPEN).unwrap().succeeded();
        slower.failed(now + OPEN);
        assert_eq!(breaker.seen(now).0, Seen::Closed);
    }

    #[test]
    fn without_a_limit_it_never_opens() {
        let now = Instant::now();
        let breaker = Breaker::new(0, OPEN);
        for _ in 0..100 {
            breaker.ask(now).unwrap().failed(now);
        }
        assert_eq!(breaker.seen(now), (Seen::Closed, 100));
    }
}
