//! Which misses are one scan, and how far ahead of it to ask. No I/O.

use std::ops::Range;

use pg_quorum_types::RelFork;

/// Scans that one process may have under way, each recognized; of more, the one that has paused longest is
/// forgotten.
const SCANS: usize = 4;
/// Blocks ahead of a scan that has just been recognized: two megabytes a little later, see [`MAX_WINDOW`].
const FIRST_WINDOW: u32 = 16;
/// Blocks ahead of a scan at most.
const MAX_WINDOW: u32 = 128;

/// The scans of one process.
#[derive(Debug, Default)]
pub struct Scans {
    scans: [Option<Scan>; SCANS],
    misses: u64,
}

/// A miss, or several that follow each other.
#[derive(Clone, Copy, Debug)]
struct Scan {
    fork: RelFork,
    /// First block that the last miss did not bring.
    next: u32,
    /// First block that has not been asked for; not below `next`.
    asked_to: u32,
    /// Blocks to be ahead; zero: one miss only, no scan yet.
    window: u32,
    last_miss: u64,
}

impl Scan {
    /// A scan that is recognized may have skipped blocks that others had brought.
    fn goes_on_at(&self, fork: RelFork, block: u32) -> bool {
        self.fork == fork && (self.next == block || (self.next..self.asked_to).contains(&block))
    }
}

impl Scans {
    /// Whether a miss of `block` goes on with a scan.
    pub fn expect(&self, fork: RelFork, block: u32) -> bool {
        self.scans
            .iter()
            .flatten()
            .any(|scan| scan.goes_on_at(fork, block))
    }

    /// A miss, which brings `blocks`. The blocks behind them that are to be asked for now.
    pub fn on_miss(&mut self, fork: RelFork, blocks: Range<u32>) -> Range<u32> {
        self.misses += 1;
        let known = self
            .scans
            .iter_mut()
            .flatten()
            .find(|scan| scan.goes_on_at(fork, blocks.start));
        let Some(scan) = known else {
            self.begin(fork, blocks.end);
            return 0..0;
        };
        scan.last_miss = self.misses;
        scan.window = (scan.window * 2).clamp(FIRST_WINDOW, MAX_WINDOW);
        scan.next = blocks.end;
        let from = scan.asked_to.max(blocks.end);
        scan.asked_to = from.max(blocks.end.saturating_add(scan.window));
        from..scan.asked_to
    }

    /// The blocks from `block` on could not be asked for.
    pub fn stopped_at(&mut self, fork: RelFork, block: u32) {
        for scan in self.scans.iter_mut().flatten() {
            if scan.fork == fork && (scan.next..scan.asked_to).contains(&block) {
                scan.asked_to = block;
            }
        }
    }

    fn begin(&mut self, fork: RelFork, next: u32) {
        let scan = Scan {
            fork,
            next,
            asked_to: next,
            window: 0,
            last_miss: self.misses,
        };
        let oldest = self
            .scans
            .iter_mut()
            .min_by_key(|scan| scan.map_or(0, |scan| scan.last_miss));
        if let Some(place) = oldest {
            *place = Some(scan);
        }
    }
}

#[cfg(test)]
mod tests {
    use pg_quorum_types::{ForkNumber, RelFileNode};

    use super::*;

    fn fork(rel: u32) -> RelFork {
        RelFork {
            rel: RelFileNode { spc: 1, db: 2, rel },
            fork: ForkNumber::Main,
        }
    }

    #[test]
    fn the_window_grows_with_each_miss_that_follows() {
        let mut scans = Scans::default();
        assert!(scans.on_miss(fork(1), 0..1).is_empty());
        assert!(scans.expect(fork(1), 1) && !scans.expect(fork(1), 2));
        assert_eq!(scans.on_miss(fork(1), 1..17), 17..33);
        assert_eq!(scans.on_miss(fork(1), 17..33), 33..65);
        assert_eq!(scans.on_miss(fork(1), 33..49), 65..113);
        assert_eq!(scans.on_miss(fork(1), 49..65), 113..193);
        assert_eq!(
            scans.on_miss(fork(1), 65..81),
            193..209,
            "no further than the limit"
        );
    }

    #[test]
    fn lookups_all_over_a_table_are_no_scan() {
        let mut scans = Scans::default();
        for block in (0..1000).step_by(7) {
            assert!(scans.on_miss(fork(1), block..block + 1).is_empty());
        }
    }

    #[test]
    fn a_scan_is_recognized_among_others_and_among_lookups() {
        let mut scans = Scans::default();
        scans.on_miss(fork(1), 0..1);
        scans.on_miss(fork(2), 0..1);
        for step in 0..20 {
            let at = 1 + step * 16;
            assert!(!scans.on_miss(fork(1), at..at + 16).is_empty());
            assert!(!scans.on_miss(fork(2), at..at + 16).is_empty());
            scans.on_miss(fork(3), step * 100..step * 100 + 1);
        }
    }

    #[test]
    fn blocks_that_others_brought_are_skipped() {
        let mut scans = Scans::default();
        scans.on_miss(fork(1), 0..1);
        assert_eq!(scans.on_miss(fork(1), 1..17), 17..33);
        assert_eq!(scans.on_miss(fork(1), 25..33), 33..65);
    }

    #[test]
    fn what_could_not_be_asked_for_is_asked_for_later() {
        let mut scans = Scans::default();
        scans.on_miss(fork(1), 0..1);
        assert_eq!(scans.on_miss(fork(1), 1..17), 17..33);
        scans.stopped_at(fork(1), 20);
        assert_eq!(scans.on_miss(fork(1), 17..20), 20..52);
    }
}
