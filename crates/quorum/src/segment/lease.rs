//! How long an owner counts as alive.
//!
//! A lease keeps a second compute from taking the volume of a living one by mistake. It is politeness, not
//! safety: two writers are kept apart by epochs alone, whatever the clocks do.

use std::time::Duration;

use crate::Monotonic;

/// The lease of the owner to whom a segment's epoch is promised.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    length: Duration,
    end: Monotonic,
}

impl Lease {
    /// A lease that has ended.
    pub fn new(length: Duration) -> Lease {
        Lease {
            length,
            end: Monotonic::default(),
        }
    }

    /// The owner has shown that it lives.
    pub fn renew(&mut self, now: Monotonic) {
        self.end = self.end.max(now.after(self.length));
    }

    /// How long the owner still counts as alive.
    pub fn remaining(&self, now: Monotonic) -> Duration {
        now.until(self.end)
    }
}
