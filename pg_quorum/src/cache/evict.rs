//! Making room: which chunk is dropped, and how.
//!
//! The chunk is the one that has not been touched for longest among a few that a shared hand passes; one that was
//! used again after it came counts as younger, so that a scan does not push out what is in use. Whoever makes the
//! cache larger than its limit makes room at once. The limit is soft: what may not be dropped stays.

use pg_quorum_types::ForkNumber;

use super::surroundings::{Surroundings, Tick};
use super::table::ChunkTable;
use super::{BLOCKS_PER_CHUNK, ChunkKey};

/// Chunks that are compared.
const SAMPLE: usize = 8;
/// Entries that are looked at for a sample.
const LOOK_AT_MOST: u32 = 4096;
/// Chunks that one caller drops at most: it has something else to do.
const CHUNKS_AT_ONCE: u32 = 16;
/// A hot chunk's age counts as this part of it.
const HOT_AGE_DIVISOR: u32 = 4;

/// Drops chunks, a few at a time, until the table holds no more than `limit` pages. If nothing is found that may be
/// dropped, nobody tries again for a second, or until the cache has grown by a chunk. How many pages were dropped.
pub fn make_room(table: ChunkTable, limit: u64, around: &impl Surroundings) -> u64 {
    let mut dropped = 0;
    for _ in 0..CHUNKS_AT_ONCE {
        if table.cached_pages() <= limit {
            break;
        }
        let now = around.now();
        if table.is_room_making_futile(now) {
            break;
        }
        match oldest(table, now) {
            Some(Oldest { entry, key, .. }) => match drop_chunk(table, entry, key, around) {
                0 => table.entry(entry).set_stuck(now),
                pages => dropped += pages,
            },
            None => table.set_room_making_futile(now),
        }
    }
    dropped
}

/// Drops every chunk of the forks that `wanted` accepts, as far as it may be. How many pages were dropped.
pub fn drop_all(table: ChunkTable, around: &impl Surroundings, wanted: impl Fn(ChunkKey) -> bool) -> u64 {
    table
        .chunks()
        .filter(|(_, key)| wanted(*key))
        .map(|(entry, key)| drop_chunk(table, entry, key, around))
        .sum()
}

/// What is to be dropped next.
pub(super) struct Oldest {
    entry: u32,
    key: ChunkKey,
    pub touched: Tick,
}

pub(super) fn oldest(table: ChunkTable, now: Tick) -> Option<Oldest> {
    let mut best: Option<(u32, Oldest)> = None;
    let mut seen = 0;
    for _ in 0..table.used().min(LOOK_AT_MOST) {
        let index = table.advance_hand();
        let entry = table.entry(index);
        let Some(key) = table.key_of(index) else { continue };
        if entry.candidates() == 0 || entry.is_stuck(now) {
            continue;
        }
        let touched = entry.touched();
        let age = now.since(touched);
        let age = if entry.is_hot() {
            age / HOT_AGE_DIVISOR
        } else {
            age
        };
        if best.as_ref().is_none_or(|(oldest, _)| age > *oldest) {
            let entry = index;
            best = Some((age, Oldest { entry, key, touched }));
        }
        seen += 1;
        if seen == SAMPLE {
            break;
        }
    }
    best.map(|(_, oldest)| oldest)
}

/// Zero if the chunk is in use, or all that it has must stay.
fn drop_chunk(table: ChunkTable, index: u32, key: ChunkKey, around: &impl Surroundings) -> u64 {
    if key.fork.fork == ForkNumber::Init {
        return 0;
    }
    let Some(held) = table.try_hold_for_drop(index, key) else {
        return 0;
    };
    let entry = table.entry(index);
    if !entry.is_logged() && around.is_unlogged(key.fork.rel) {
        return 0;
    }
    let blocks = entry.droppable(|| around.ended());
    if blocks == 0 {
        return 0;
    }
    let were_present = entry.drop_blocks(blocks, around.insert_lsn());
    let mut kept = 0;
    for run in holes(blocks, entry.in_file()) {
        let first = key.chunk * BLOCKS_PER_CHUNK;
        if !around.punch(key.fork, first + run.start..first + run.end) {
            kept |= mask(run) & were_present;
        }
    }
    entry.restore_blocks(kept);
    drop(held);
    let dropped = (blocks & !kept).count_ones();
    table.count_gone(dropped);
    u64::from(dropped)
}

/// What to punch so that `dropped` blocks go and those that are `present` stay: from the first to the last dropped one of
/// each stretch without a present one. Absent blocks between them have nothing in the file.
fn holes(dropped: u128, present: u128) -> impl Iterator<Item = std::ops::Range<u32>> {
    runs(!present).filter_map(move |run| {
        let dropped = dropped & mask(run);
        (dropped != 0).then(|| dropped.trailing_zeros()..BLOCKS_PER_CHUNK - dropped.leading_zeros())
    })
}

/// The runs of set bits.
fn runs(bits: u128) -> impl Iterator<Item = std::ops::Range<u32>> {
    let mut rest = bits;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let start = rest.trailing_zeros();
        let length = (!(rest >> start)).trailing_zeros();
        let run = start..start + length;
        rest &= !mask(run.clone());
        Some(run)
    })
}

/// The bits of a run that is not empty.
fn mask(run: std::ops::Range<u32>) -> u128 {
    let length = run.end - run.start;
    u128::MAX >> (BLOCKS_PER_CHUNK - length) << run.start
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use pg_quorum_types::{Lsn, RelFileNode, RelFork};

    use super::super::pinned::{Awaits, Origin, Written};
    use super::super::surroundings::{Ended, Running};
    use super::super::table::tests::{fork, has, table};
    use super::*;

    struct Server {
        now: Cell<u32>,
        oldest_running_xid: Cell<u64>,
        backends_rounds: Cell<u64>,
        unlogged: Option<RelFileNode>,
        can_punch: bool,
        punched: RefCell<Vec<(RelFork, std::ops::Range<u32>)>>,
    }

    fn server() -> Server {
        Server {
            now: Cell::new(1000),
            oldest_running_xid: Cell::new(0),
            backends_rounds: Cell::new(0),
            unlogged: None,
            can_punch: true,
            punched: RefCell::default(),
        }
    }

    impl Surroundings for Server {
        fn now(&self) -> Tick {
            Tick(self.now.get())
        }
        fn ended(&self) -> Ended {
            Ended {
                oldest_running_xid: self.oldest_running_xid.get(),
                backends_rounds: self.backends_rounds.get(),
            }
        }
        fn insert_lsn(&self) -> Lsn {
            Lsn(777)
        }
        fn is_unlogged(&self, rel: RelFileNode) -> bool {
            self.unlogged == Some(rel)
        }
        fn punch(&self, fork: RelFork, blocks: std::ops::Range<u32>) -> bool {
            self.punched.borrow_mut().push((fork, blocks));
            self.can_punch
        }
    }

    const LOGGED: Written = Written {
        origin: Origin::Logged,
        awaits: None,
    };

    fn write(table: ChunkTable, rel: u32, block: u32, written: Written, now: u32) {
        let running = Running {
            next_xid: 50,
            backends_round: 3,
        };
        let held = table.hold(ChunkKey::of(fork(rel), block)).unwrap();
        held.put_written(block, written, true, running);
        held.touch(Tick(now));
    }

    #[test]
    fn the_chunk_that_was_not_touched_for_longest_goes_and_is_asked_for_at_the_insert_position() {
        let (table, server) = (table(16, 100), server());
        for (rel, touched) in [(1, 500), (2, 100), (3, 900)] {
            write(table, rel, 5, LOGGED, touched);
        }
        assert_eq!(make_room(table, 2, &server), 1);
        assert!(has(table, fork(1), 5) && !has(table, fork(2), 5) && has(table, fork(3), 5));
        let dropped = table.hold_existing(ChunkKey::of(fork(2), 5)).unwrap();
        assert_eq!(dropped.not_modified_since(), Lsn(777));
        assert_eq!(*server.punched.borrow(), [(fork(2), 5..6)]);
    }

    #[test]
    fn a_chunk_that_is_used_again_outlives_a_scan() {
        let (table, server) = (table(16, 100), server());
        write(table, 1, 0, LOGGED, 100);
        write(table, 1, 0, LOGGED, 880);
        write(table, 2, 0, LOGGED, 890);
        server.now.set(1000);
        make_room(table, 1, &server);
        assert!(has(table, fork(1), 0) && !has(table, fork(2), 0));
    }

    #[test]
    fn pages_that_only_this_server_has_stay() {
        let (table, mut server) = (table(16, 100), server());
        let sequence = Written {
            origin: Origin::Sequence,
            awaits: None,
        };
        write(table, 1, 0, Written::ZEROS, 1);
        write(table, 2, 0, sequence, 1);
        write(table, 3, 0, LOGGED, 1);
        server.unlogged = Some(fork(3).rel);
        assert_eq!(make_room(table, 0, &server), 0);
        assert!([1, 2, 3].into_iter().all(|rel| has(table, fork(rel), 0)));
        write(table, 1, 0, LOGGED, 1);
        server.now.set(1000 + 2 * Tick::PER_SECOND);
        assert_eq!(make_room(table, 0, &server), 1, "it has been logged meanwhile");
        assert!(!has(table, fork(1), 0));
    }

    #[test]
    fn an_imported_page_without_an_lsn_can_be_had_again() {
        let (table, server) = (table(16, 100), server());
        let held = table.hold(ChunkKey::of(fork(1), 0)).unwrap();
        held.set_present(0);
        let running = Running {
            next_xid: 50,
            backends_round: 3,
        };
        held.put_written(0, Written::ZEROS, false, running);
        drop(held);
        assert_eq!(make_room(table, 0, &server), 1);
    }

    #[test]
    fn a_page_that_awaits_transactions_or_backends_goes_when_they_have_ended() {
        for awaits in [Awaits::Transactions, Awaits::Backends] {
            let (table, server) = (table(16, 100), server());
            let written = Written {
                origin: Origin::Logged,
                awaits: Some(awaits),
            };
            write(table, 1, 3, written, 1);
            write(table, 1, 4, LOGGED, 1);
            server.oldest_running_xid.set(49);
            server.backends_rounds.set(2);
            assert_eq!(drop_all(table, &server, |_| true), 1, "block 4 only");
            assert!(has(table, fork(1), 3) && !has(table, fork(1), 4));
            server.oldest_running_xid.set(50);
            server.backends_rounds.set(3);
            assert_eq!(drop_all(table, &server, |_| true), 1);
            assert!(!has(table, fork(1), 3));
        }
    }

    #[test]
    fn what_was_asked_for_before_a_drop_is_not_installed_after_it() {
        let (table, server) = (table(16, 100), server());
        write(table, 1, 3, LOGGED, 1);
        let seen = table.hold(ChunkKey::of(fork(1), 4)).unwrap().leave();
        drop_all(table, &server, |_| true);
        assert!(table.hold_for_install(seen).is_none());
    }

    #[test]
    fn what_makes_the_cache_grow_looks_again_although_there_was_nothing_to_drop() {
        let (table, server) = (table(16, 100), server());
        write(table, 1, 0, Written::ZEROS, 1);
        assert_eq!(make_room(table, 0, &server), 0);
        for block in 0..BLOCKS_PER_CHUNK {
            write(table, 2, block, LOGGED, 1);
        }
        assert_eq!(make_room(table, 0, &server), u64::from(BLOCKS_PER_CHUNK));
    }

    #[test]
    fn a_chunk_that_somebody_holds_is_left_alone() {
        let (table, server) = (table(16, 100), server());
        write(table, 1, 3, LOGGED, 1);
        let held = table.hold(ChunkKey::of(fork(1), 3)).unwrap();
        assert_eq!(drop_all(table, &server, |_| true), 0);
        assert!(held.is_present(3));
    }

    #[test]
    fn a_filesystem_without_holes_keeps_what_it_has() {
        let (table, mut server) = (table(16, 100), server());
        server.can_punch = false;
        write(table, 1, 3, LOGGED, 1);
        assert_eq!(make_room(table, 0, &server), 0);
        assert!(has(table, fork(1), 3));
        assert_eq!(table.cached_pages(), 1);
    }

    #[test]
    fn truncation_and_removal_are_counted() {
        let table = table(16, 100);
        for block in [0, 1, 200] {
            write(table, 1, block, LOGGED, 1);
        }
        assert_eq!(table.cached_pages(), 3);
        table.truncate(fork(1), 1);
        assert_eq!(table.cached_pages(), 1);
        table.remove_fork(fork(1));
        assert_eq!(table.cached_pages(), 0);
    }

    #[test]
    fn one_hole_takes_what_no_present_block_stands_between() {
        let found = |dropped, present| holes(dropped, present).collect::<Vec<_>>();
        assert_eq!(found(1 << 3 | 1 << 9 | 1 << 127, 1 << 50), [3..10, 127..128]);
        assert_eq!(found(1 << 3 | 1 << 9 | 1 << 12, 1 << 10), [3..10, 12..13]);
        assert!(found(0, 1 << 10).is_empty());
        let (table, server) = (table(16, 100), server());
        write(table, 1, 2, LOGGED, 1);
        write(table, 1, 5, Written::ZEROS, 1);
        for block in [4, 6, 90] {
            write(table, 1, block, LOGGED, 1);
        }
        assert_eq!(drop_all(table, &server, |_| true), 4);
        assert!(has(table, fork(1), 5));
        assert_eq!(*server.punched.borrow(), [(fork(1), 2..5), (fork(1), 6..91)]);
    }

    #[test]
    fn runs_of_blocks_are_found() {
        let found = |bits| runs(bits).collect::<Vec<_>>();
        assert!(found(0).is_empty());
        assert_eq!(found(u128::MAX).first(), Some(&(0..128)));
        assert_eq!(found(0b1100_1011 | 1 << 127), [0..2, 3..4, 6..8, 127..128]);
    }
}
