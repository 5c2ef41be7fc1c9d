//! What eviction needs to know and to do outside of the table.

use std::ops::Range;
use std::time::Duration;

use pg_quorum_types::{Lsn, RelFileNode, RelFork};

/// A point of a monotonic clock in hundredths of a second; it wraps after 497 days. Chunks in use are told apart by it, so it
/// is finer than the time in which all of them are touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tick(pub u32);

impl Tick {
    pub const PER_SECOND: u32 = 100;

    /// Ticks since `earlier`; huge if that is later.
    pub fn since(self, earlier: Tick) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The point so long before this one.
    pub fn before(self, duration: Duration) -> Tick {
        let ticks = duration.as_millis() * u128::from(Tick::PER_SECOND) / 1000;
        Tick(self.0.wrapping_sub(ticks as u32))
    }
}

/// What runs when a page is written, as far as the page may have to wait for its end.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// The next transaction id, 64 bits: every one that runs is lower.
    pub next_xid: u64,
    /// The round (see [`Ended::backends_rounds`]) behind whose end nothing is left of what runs in any backend.
    pub backends_round: u64,
}

/// What has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The lowest top-level transaction id that a backend has; the next one if none has any. Prepared
    /// transactions do not count: nobody continues them.
    pub oldest_running_xid: u64,
    /// Rounds over all backends that are complete: each begins after the one before it and ends when everything
    /// that ran at its beginning has ended.
    pub backends_rounds: u64,
}

/// The server and the files around the table.
pub trait Surroundings {
    fn now(&self) -> Tick;
    fn ended(&self) -> Ended;
    /// The end of the last record that was inserted.
    fn insert_lsn(&self) -> Lsn;
    /// Whether the relation has an init fork.
    fn is_unlogged(&self, rel: RelFileNode) -> bool;
    /// Gives the disk space of blocks of one chunk back; false if that is not possible.
    fn punch(&self, fork: RelFork, blocks: Range<u32>) -> bool;
}
