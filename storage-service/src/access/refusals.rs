//! Refusals as figures, and how often the log hears of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines in the log: whoever is refused tries again at once, from six connections.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Requests that were refused since the process began.
#[derive(Debug, Default)]
pub struct Refusals {
    unauthenticated: AtomicU64,
    not_permitted: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// Without a token that counts.
    pub fn unauthenticated(&self) -> u64 {
        self.unauthenticated.load(Ordering::Relaxed)
    }

    /// With a token of another volume, or for less.
    pub fn not_permitted(&self) -> u64 {
        self.not_permitted.load(Ordering::Relaxed)
    }

    pub(super) fn count_unauthenticated(&self) {
        self.unauthenticated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_not_permitted(&self) {
        self.not_permitted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were not told of since the last one that was, if this one is to be told.
    pub(super) fn tell_now(&self) -> Option<u64> {
        let mut told = self.told.lock();
        if told.at.is_some_and(|at| at.elapsed() < TELL_INTERVAL) {
            told.untold += 1;
            return None;
        }
        told.at = Some(Instant::now());
        Some(std::mem::take(&mut told.untold))
    }
}
