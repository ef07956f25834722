//! What an endpoint has done so far, for `doctor`, the admin API and metrics. Since the start of this host.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// The counters of one endpoint.
#[derive(Default)]
pub struct Counts {
    /// Calls.
    pub calls: AtomicU64,
    /// Requests sent, those for tokens not among them.
    pub sent: AtomicU64,
    /// Calls answered from the cache.
    pub cached: AtomicU64,
    /// Calls that shared another one under way.
    pub shared: AtomicU64,
    /// Calls that failed their attempt.
    pub failed: AtomicU64,
    /// Calls that parked, or told a lenient caller that nobody is there.
    pub away: AtomicU64,
}

/// The counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SoFar {
    /// Calls.
    pub calls: u64,
    /// Requests sent, those for tokens not among them.
    pub sent: u64,
    /// Calls answered from the cache.
    pub cached: u64,
    /// Calls that shared another one under way.
    pub shared: u64,
    /// Calls that failed their attempt.
    pub failed: u64,
    /// Calls that parked, or told a lenient caller that nobody is there.
    pub away: u64,
}

impl Counts {
    /// Counts one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn so_far(&self) -> SoFar {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SoFar {
            calls: of(&self.calls),
            sent: of(&self.sent),
            cached: of(&self.cached),
            shared: of(&self.shared),
            failed: of(&self.failed),
            away: of(&self.away),
        }
    }
}
