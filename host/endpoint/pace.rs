//! The time that endpoints go by: the machine's, or in tests one that nobody has to wait for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whose time back-off, breaker and cache go by. Time-outs of requests are always real.
#[derive(Clone, Default)]
pub enum Pace {
    /// The machine's.
    #[default]
    Real,
    /// A test's.
    Ahead(Arc<Ahead>),
}

/// A time that runs ahead of the machine's: a wait passes at once, and is written down.
#[derive(Default)]
pub struct Ahead {
    ahead_ns: AtomicU64,
    waits: Mutex<Vec<Duration>>,
}

impl Pace {
    /// Now.
    pub fn now(&self) -> Instant {
        match self {
            Self::Real => Instant::now(),
            Self::Ahead(ahead) => Instant::now() + Duration::from_nanos(ahead.ahead_ns.load(Ordering::SeqCst)),
        }
    }

    /// Waits.
    pub async fn wait(&self, wait: Duration) {
        match self {
            Self::Real => tokio::time::sleep(wait).await,
            Self::Ahead(ahead) => {
                ahead.waits.lock().unwrap_or_else(PoisonError::into_inner).push(wait);
                ahead.pass(wait);
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Ahead {
    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.ahead_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// The waits so far.
    pub fn waits(&self) -> Vec<Duration> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
