//! What a crash leaves of the cache, and how it is known which of it is good.
//!
//! After a crash on the same boot the md files are what the server's processes have written, and nobody else has written
//! the volume since. Let R be the redo position of the last checkpoint that this server has completed, and E where the
//! volume's log ends after the cut of what was not durable.
//!
//! 1. As in a stock crash recovery, every change at or below R is in the files, or the block's bit is clear: the checkpoint
//!    has written all buffers that were dirty at R, and who writes a page sets its bit. So a block is behind only if a
//!    record of (R, E] changes it. The nodes have an index of that, by page.
//! 2. A page may be ahead of E: it may bear records that were cut, or hint bits and prunings that only they justify
//!    (dirty pages are evicted while the quorum is away; `XLogNeedsFlush` looks at the local log). Each entry has the insert
//!    LSN of its last write, read after the write and under the same hold: what is on a page is at or below it. A chunk
//!    that was written behind E is void.
//! 3. A write, a fetched page or a hole that was torn by SIGKILL is of a chunk that somebody held, since a hold that nobody
//!    releases stays in the entry. Such a chunk is void, too. One whose holder has left by an error or a FATAL while it
//!    wrote counts as written at the end of time.
//! 4. What is in no log ([`super::pinned`]: local blocks) is not kept. What a block awaited has ended.
//!
//! Nobody enumerates (R, E] at the start. All that is left becomes *kept*: such a block is not present, so that whoever
//! does not know of kept ones takes it for absent; but its page is in the file, which counts towards the cache's limit. The
//! first read of one asks a segment for all of its chunk which blocks no record has changed that ends above R, in a log that
//! reaches E. These become present, the others absent. The segment looks at all that it has: what this server
//! has changed since E counts as changed, which costs a fetch and cannot be wrong. A write of a block makes it present, a
//! truncation, a drop or an eviction absent, and the generation is raised as ever, so that a late answer settles nothing.
//!
//! The checkpoint record that an attach begins with is a checkpoint like every other for what is present then, since
//! nothing is dirty: a second crash, before or behind the next checkpoint, makes present blocks kept with the new R. Blocks
//! that are kept still have not been changed meanwhile without a write of theirs or a record behind the new R. They keep
//! the old R, which is lower. So an entry has its own, and takes the lower one.
//!
//! R above E (the checkpoint itself was cut) says that (R, E] is empty; R becomes E then, because records of the next epoch
//! get the numbers behind E again.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use pg_quorum_types::{Lsn, RelFork};

use super::entry::{ChunkEntry, add, first_blocks, keep_only, load};
use super::table::{ChunkTable, Held, TableFull};
use super::{BLOCKS_PER_CHUNK, ChunkKey};

/// Where a crash has left the server's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crash {
    /// The redo position of the last completed checkpoint.
    pub redo: Lsn,
    /// The end of the log that counts.
    pub end: Lsn,
}

/// Pages that a crash has left.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Kept {
    /// They are good unless the log has changed them.
    pub pages: u64,
    /// They are in the files, and no good.
    pub void_pages: u64,
}

/// What has become of a chunk's kept blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settled {
    pub good: u32,
    pub gone: u32,
}

impl ChunkEntry {
    fn is_kept(&self, block: u32) -> bool {
        load(&self.kept) & 1 << (block % BLOCKS_PER_CHUNK) != 0
    }

    /// At a start: all that is in the file becomes kept, of the first `blocks` blocks, which the file has.
    fn keep_after_crash(&self, crash: Crash, blocks: u32) -> Kept {
        let kept_before = load(&self.kept);
        let is_void = self.is_held() || self.written_at.load(Ordering::Acquire) > crash.end.0;
        let since = match kept_before {
            _ if is_void => Lsn::INVALID,
            0 => crash.redo.min(crash.end),
            _ => crash
                .redo
                .min(crash.end)
                .min(Lsn(self.kept_since.load(Ordering::Acquire))),
        };
        let kept = self.in_file() & !load(&self.local) & first_blocks(blocks);
        for bits in [&self.bits, &self.local, &self.kept] {
            keep_only(bits, 0);
        }
        add(&self.kept, kept);
        self.kept_since.store(since.0, Ordering::Release);
        self.begin_anew();
        let pages = u64::from(kept.count_ones());
        match since.is_valid() {
            true => Kept { pages, void_pages: 0 },
            false => Kept {
                pages: 0,
                void_pages: pages,
            },
        }
    }

    /// Kept blocks that are `unchanged` are present from now on, the others absent. Under an exclusive hold.
    fn settle_kept(&self, unchanged: u128) -> Settled {
        let kept = load(&self.kept);
        let good = kept & unchanged;
        keep_only(&self.kept, 0);
        add(&self.bits, good);
        Settled {
            good: good.count_ones(),
            gone: (kept & !good).count_ones(),
        }
    }
}

impl Held {
    /// Whether the md file holds the page as a crash has left it.
    pub fn is_kept(&self, block: u32) -> bool {
        debug_assert_eq!(block / BLOCKS_PER_CHUNK, self.key().chunk);
        self.entry().is_kept(block)
    }

    /// Whether the md file holds the page, good or not.
    pub fn is_in_file(&self, block: u32) -> bool {
        self.is_present(block) || self.is_kept(block)
    }

    /// Kept blocks are good if no record that ends above this has changed them. `None`: they are not, in any case.
    pub fn kept_since(&self) -> Option<Lsn> {
        Some(Lsn(self.entry().kept_since.load(Ordering::Acquire))).filter(|since| since.is_valid())
    }

    /// Those of the chunk's kept blocks are good whose bits are set. Under an exclusive hold for an install.
    pub fn settle_kept(&self, unchanged: u128) -> Settled {
        let settled = self.entry().settle_kept(unchanged);
        self.table().count_gone(settled.gone);
        settled
    }

    /// A page has been put into the md file, when the log had been inserted up to `insert_lsn` at most. Under the hold of
    /// the write.
    pub fn note_written_at(&self, insert_lsn: Lsn) {
        self.entry().written_at.fetch_max(insert_lsn.0, Ordering::AcqRel);
    }
}

impl ChunkTable {
    /// Takes the table over from a run that has ended cleanly.
    ///
    /// # Errors
    /// See [`TableFull`].
    pub fn begin_anew(&self) -> Result<(), TableFull> {
        self.rebuild(|entry, _| {
            entry.begin_anew();
            true
        })
    }

    /// Takes the table over from a run that has crashed. `blocks_of` says how many blocks of a fork are the volume's and in
    /// its files; `None`: the fork is not the volume's, or its files are new.
    ///
    /// # Errors
    /// See [`TableFull`]; the table is void then.
    pub fn keep_after_crash(
        &self,
        crash: Crash,
        blocks_of: impl Fn(RelFork) -> Option<u32>,
    ) -> Result<Kept, TableFull> {
        let mut all = Kept::default();
        self.rebuild(|entry, key| {
            let first = key.chunk * BLOCKS_PER_CHUNK;
            let blocks = blocks_of(key.fork).unwrap_or(0).saturating_sub(first);
            let kept = entry.keep_after_crash(crash, blocks);
            all.pages += kept.pages;
            all.void_pages += kept.void_pages;
            entry.block_count() > 0
        })?;
        Ok(all)
    }

    /// Makes the index of the entries anew, without those that `keeps` does not want. At a start: a process that was
    /// killed may have left any lock locked and any chain half done; entries are whole, since a key is written last.
    fn rebuild(&self, mut keeps: impl FnMut(&ChunkEntry, ChunkKey) -> bool) -> Result<(), TableFull> {
        self.clear_index();
        let mut extents: HashMap<RelFork, u32> = HashMap::new();
        let mut in_file = 0;
        for index in 0..self.used() {
            let entry = self.entry(index);
            match self.key_of(index).filter(|key| keeps(entry, *key)) {
                Some(key) => {
                    let extent = extents.entry(key.fork).or_default();
                    *extent = (*extent).max(key.chunk + 1);
                    in_file += u64::from(entry.block_count());
                    self.chain_at_start(index);
                }
                None => {
                    entry.clear_at_start();
                    self.give_free(index);
                }
            }
        }
        for (fork, chunks) in extents {
            self.insert_extent(fork, chunks)?;
        }
        self.set_cached_pages(in_file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pinned::{Origin, Written};
    use super::super::surroundings::Running;
    use super::super::table::tests::{fork, has, table};
    use super::super::table::{Parts, Seen};
    use super::*;

    const CRASH: Crash = Crash {
        redo: Lsn(500),
        end: Lsn(900),
    };
    const LOGGED: Written = Written {
        origin: Origin::Logged,
        awaits: None,
    };

    fn write(table: ChunkTable, rel: u32, block: u32, written: Written, insert_lsn: u64) {
        let running = Running {
            next_xid: 50,
            backends_round: 3,
        };
        let held = table.hold(ChunkKey::of(fork(rel), block)).unwrap();
        held.put_written(block, written, true, running);
        held.note_written_at(Lsn(insert_lsn));
    }

    fn is_kept(table: ChunkTable, rel: u32, block: u32) -> bool {
        let held = table.hold_existing(ChunkKey::of(fork(rel), block));
        held.is_some_and(|held| held.is_kept(block))
    }

    fn kept_since(table: ChunkTable, rel: u32, block: u32) -> Option<Lsn> {
        table
            .hold_existing(ChunkKey::of(fork(rel), block))
            .unwrap()
            .kept_since()
    }

    fn look(table: ChunkTable, rel: u32, block: u32) -> Seen {
        table.hold(ChunkKey::of(fork(rel), block)).unwrap().leave()
    }

    fn keep_all(table: ChunkTable, crash: Crash) -> Kept {
        table.keep_after_crash(crash, |_| Some(u32::MAX)).unwrap()
    }

    #[test]
    fn what_a_crash_leaves_is_not_present_until_it_is_settled() {
        let table = table(4, 100);
        for block in [0, 1, 2, 200] {
            write(table, 1, block, LOGGED, 700);
        }
        assert_eq!(
            keep_all(table, CRASH),
            Kept {
                pages: 4,
                void_pages: 0
            }
        );
        assert_eq!(table.cached_pages(), 4);
        assert!(
            [0, 1, 2, 200]
                .into_iter()
                .all(|block| !has(table, fork(1), block))
        );
        assert_eq!(kept_since(table, 1, 0), Some(CRASH.redo));
        let held = table.hold_for_install(look(table, 1, 0)).unwrap();
        assert_eq!(held.settle_kept(0b101), Settled { good: 2, gone: 1 });
        drop(held);
        assert!(has(table, fork(1), 0) && !has(table, fork(1), 1) && has(table, fork(1), 2));
        assert!(!is_kept(table, 1, 1) && is_kept(table, 1, 200));
        assert_eq!(table.cached_pages(), 3);
    }

    #[test]
    fn what_was_written_behind_the_cut_is_void() {
        let table = table(4, 100);
        write(table, 1, 0, LOGGED, 900);
        write(table, 2, 0, LOGGED, 901);
        write(table, 2, 1, LOGGED, 10);
        let kept = keep_all(table, CRASH);
        assert_eq!((kept.pages, kept.void_pages), (1, 2));
        assert_eq!(
            (kept_since(table, 1, 0), kept_since(table, 2, 1)),
            (Some(Lsn(500)), None)
        );
        // A second crash does not make it better.
        assert_eq!(keep_all(table, CRASH).void_pages, 2);
    }

    #[test]
    fn what_somebody_held_is_void_and_keeps_nobody_out() {
        let table = table(4, 100);
        write(table, 1, 0, LOGGED, 1);
        write(table, 2, 0, LOGGED, 1);
        std::mem::forget(table.hold(ChunkKey::of(fork(1), 0)).unwrap());
        std::mem::forget(table.hold_for_install(look(table, 2, 0)).unwrap());
        assert_eq!(keep_all(table, CRASH).void_pages, 2);
        assert!(table.hold_for_install(look(table, 1, 0)).is_some());
        assert!(table.hold_for_install(look(table, 2, 0)).is_some());
    }

    #[test]
    fn a_hold_that_ends_by_a_panic_counts_as_a_write_at_the_end_of_time() {
        let table = table(4, 100);
        write(table, 1, 0, LOGGED, 1);
        let held = table.hold(ChunkKey::of(fork(1), 0)).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = held;
            panic!("the write has failed half way");
        }));
        assert!(panicked.is_err());
        assert_eq!(keep_all(table, CRASH).void_pages, 1);
    }

    #[test]
    fn what_is_in_no_log_and_what_the_volume_does_not_have_is_not_kept() {
        let table = table(8, 100);
        write(table, 1, 0, Written::ZEROS, 1);
        write(table, 1, 1, LOGGED, 1);
        for block in [5, 6, 300] {
            write(table, 2, block, LOGGED, 1);
        }
        write(table, 3, 0, LOGGED, 1);
        let blocks_of = |of: RelFork| match of {
            of if of == fork(1) => Some(10),
            of if of == fork(2) => Some(6),
            _ => None,
        };
        let kept = table.keep_after_crash(CRASH, blocks_of).unwrap();
        assert_eq!((kept.pages, table.cached_pages()), (2, 2));
        assert!(is_kept(table, 1, 1) && is_kept(table, 2, 5));
        assert!(
            ![(1, 0), (2, 6), (2, 300), (3, 0)]
                .into_iter()
                .any(|(rel, block)| is_kept(table, rel, block))
        );
        assert_eq!(table.live_entries(), 4, "two chunks and two extents");
    }

    #[test]
    fn a_second_crash_keeps_the_older_redo_position_where_something_is_not_settled() {
        let table = table(4, 100);
        write(table, 1, 0, LOGGED, 1);
        write(table, 2, 0, LOGGED, 1);
        keep_all(table, CRASH);
        let held = table.hold_for_install(look(table, 1, 0)).unwrap();
        held.settle_kept(u128::MAX);
        drop(held);
        write(table, 2, 1, LOGGED, 950);
        let second = Crash {
            redo: Lsn(1000),
            end: Lsn(1200),
        };
        assert_eq!(keep_all(table, second).pages, 3);
        assert_eq!(kept_since(table, 1, 0), Some(Lsn(1000)));
        assert_eq!(kept_since(table, 2, 0), Some(Lsn(500)));
    }

    #[test]
    fn a_checkpoint_behind_the_cut_says_no_more_than_the_cut() {
        let table = table(4, 100);
        write(table, 1, 0, LOGGED, 1);
        let crash = Crash {
            redo: Lsn(2000),
            ..CRASH
        };
        keep_all(table, crash);
        assert_eq!(kept_since(table, 1, 0), Some(CRASH.end));
    }

    #[test]
    fn a_write_a_truncation_and_a_drop_end_what_is_kept() {
        let table = table(8, 100);
        for block in [0, 1, 2] {
            write(table, 1, block, LOGGED, 1);
        }
        keep_all(table, CRASH);
        let seen = look(table, 1, 0);
        write(table, 1, 0, LOGGED, 950);
        assert!(has(table, fork(1), 0) && !is_kept(table, 1, 0));
        assert_eq!(table.cached_pages(), 3, "it was counted before");
        table.truncate(fork(1), 2);
        assert!(!is_kept(table, 1, 2) && is_kept(table, 1, 1));
        assert!(
            table.hold_for_install(seen).is_none(),
            "a late answer settles nothing"
        );
        table.remove_fork(fork(1));
        assert_eq!(table.cached_pages(), 0);
        write(table, 1, 5, LOGGED, 960);
        assert!(!is_kept(table, 1, 1));
    }

    #[test]
    fn the_index_is_whole_again_after_a_process_was_killed_with_its_locks() {
        let table = table(1, 40);
        for rel in 1..=5 {
            write(table, rel, 0, LOGGED, 1);
        }
        let Parts { buckets, header, .. } = table.parts();
        buckets[0].fetch_or(1 << 31, Ordering::SeqCst);
        header.lock_allocator();
        keep_all(table, CRASH);
        for rel in 1..=5 {
            assert!(is_kept(table, rel, 0));
            table.remove_fork(fork(rel));
        }
        assert_eq!(table.live_entries(), 0);
        for rel in 10..25 {
            write(table, rel, 0, LOGGED, 1);
        }
        assert!((10..25).all(|rel| has(table, fork(rel), 0)));
    }

    #[test]
    fn a_clean_stop_leaves_present_what_is_present_and_kept_what_is_kept() {
        let table = table(4, 100);
        write(table, 1, 0, LOGGED, 1);
        keep_all(table, CRASH);
        write(table, 1, 1, LOGGED, 990);
        table.begin_anew().unwrap();
        assert!(has(table, fork(1), 1) && is_kept(table, 1, 0));
        assert_eq!(
            (kept_since(table, 1, 0), table.cached_pages()),
            (Some(Lsn(500)), 2)
        );
    }
}
