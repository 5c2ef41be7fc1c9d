//! Time as an input.

use std::time::Duration;

/// A reading of one process's monotonic clock. Only leases look at it; no rule of safety does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// The reading `later` after this one.
    #[must_use]
    pub fn after(self, later: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(later))
    }

    /// What is left from this reading to `end`, zero if it has passed.
    pub fn until(self, end: Monotonic) -> Duration {
        end.0.saturating_sub(self.0)
    }
}
