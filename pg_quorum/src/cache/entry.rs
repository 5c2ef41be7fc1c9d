//! One chunk's entry in shared memory: key, presence bits, holds and generation; what must stay, how the chunk is used,
//! and what of it a crash has left ([`super::kept`]).
//!
//! ```text
//!  state  63 ........ 24 | 23..22 | 21     | 20        | 19 .......... 0
//!         generation     | unused | logged | exclusive | shared holders
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use pg_quorum_types::Lsn;

use super::BLOCKS_PER_CHUNK;
use super::pinned::{Awaits, Origin, Written};
use super::surroundings::{Ended, Running, Tick};

/// All zeros is a free entry. The first cache line has what a read and a write need, the second one the rest, the third
/// what a crash has left.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ChunkEntry {
    state: AtomicU64,
    /// See `table::pack_key`; zeros: free.
    key: [AtomicU64; 2],
    pub(super) bits: [AtomicU64; 2],
    /// The next entry of the hash chain or of the free list, its index plus one; zero: the last.
    pub(super) next: AtomicU32,
    /// 1: block 0 is a sequence's page that is ahead of its log record.
    is_ahead_of_log: AtomicU32,
    /// When a block was read or written last.
    touched: AtomicU32,
    /// How often the chunk was used: [`ABSENT`], [`CAME`] or [`HOT`].
    usage: AtomicU32,
    /// The insert LSN when a block was written or installed last: no block here bears witness to a record behind it.
    pub(super) written_at: AtomicU64,
    /// Blocks that are nowhere but here.
    pub(super) local: [AtomicU64; 2],
    /// Blocks that stay until what they await has ended.
    awaiting: [AtomicU64; 2],
    /// `next_xid` and `backends_round` of [`Running`] at the last write of an awaiting block.
    awaited_xid: AtomicU64,
    awaited_round: AtomicU64,
    /// The insert LSN when blocks were dropped last: none of them was changed behind it.
    dropped_at: AtomicU64,
    /// How many blocks were dropped last, and about how many have been passed by since.
    wanted_blocks: AtomicU32,
    /// Nothing could be dropped: not worth a look before this time.
    stuck_until: AtomicU32,
    /// Blocks that are in the file as a crash has left them: not present until it is known that they are good.
    pub(super) kept: [AtomicU64; 2],
    /// A kept block is good if no record has changed it that ends above this; invalid: it is not, whatever the log says.
    pub(super) kept_since: AtomicU64,
}

const _: () = assert!(size_of::<ChunkEntry>() == 192);
const _: () = assert!(BLOCKS_PER_CHUNK == 128);

/// A chunk that is touched that long after it was touched before is in use, not only passed by a scan.
const USED_AGAIN_AFTER: u32 = Tick::PER_SECOND;
/// A chunk of which nothing could be dropped is not looked at for that long.
const STUCK_FOR: u32 = Tick::PER_SECOND / 5;
/// Not touched since it was dropped.
const ABSENT: u32 = 0;
/// Touched when it came.
const CAME: u32 = 1;
/// Touched again some time after that.
const HOT: u32 = 2;

const HOLDERS: u64 = (1 << 20) - 1;
const EXCLUSIVE: u64 = 1 << 20;
const LOGGED: u64 = 1 << 21;
const ONE_GENERATION: u64 = 1 << 24;
const GENERATION_SHIFT: u32 = 24;

/// How an entry's generation looked: comparable, nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generation(u64);

impl ChunkEntry {
    pub(super) fn packed_key(&self) -> [u64; 2] {
        [
            self.key[0].load(Ordering::Acquire),
            self.key[1].load(Ordering::Acquire),
        ]
    }

    /// The second word is written last and removed first: a reader never sees a key that was not there.
    pub(super) fn set_packed_key(&self, key: [u64; 2]) {
        self.key[1].store(0, Ordering::Release);
        self.key[0].store(key[0], Ordering::Release);
        self.key[1].store(key[1], Ordering::Release);
    }

    /// Waits until no exclusive holder is there, then joins the shared ones.
    pub(super) fn hold_shared(&self) {
        let mut patience = Patience::default();
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if state & EXCLUSIVE == 0 && self.exchange(state, state + 1) {
                return;
            }
            patience.wait();
        }
    }

    pub(super) fn release_shared(&self) {
        let before = self.state.fetch_sub(1, Ordering::AcqRel);
        assert!(before & HOLDERS > 0, "a chunk's hold was released twice");
    }

    /// Keeps new holders out, then waits for those that are there. They do local file I/O only.
    pub(super) fn hold_exclusive(&self) {
        let mut patience = Patience::default();
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if state & EXCLUSIVE == 0 && self.exchange(state, state | EXCLUSIVE) {
                break;
            }
            patience.wait();
        }
        while self.state.load(Ordering::Acquire) & HOLDERS > 0 {
            patience.wait();
        }
    }

    pub(super) fn release_exclusive(&self) {
        let before = self.state.fetch_and(!EXCLUSIVE, Ordering::AcqRel);
        assert!(
            before & EXCLUSIVE != 0,
            "a chunk's exclusive hold was released twice"
        );
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.state
            .compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    pub(super) fn generation(&self) -> Generation {
        Generation(self.state.load(Ordering::Acquire) >> GENERATION_SHIFT)
    }

    /// Under an exclusive hold.
    pub(super) fn raise_generation(&self) {
        self.state.fetch_add(ONE_GENERATION, Ordering::AcqRel);
    }

    pub(super) fn is_present(&self, block: u32) -> bool {
        let (word, bit) = position(block);
        self.bits[word].load(Ordering::Acquire) & bit != 0
    }

    /// Under a hold. True if nothing was in the file before.
    pub(super) fn set_present(&self, block: u32) -> bool {
        let was_kept = clear(&self.kept, block);
        set(&self.bits, block) && !was_kept
    }

    /// The block has been written as `written` says, while `running` was. Under a hold, before [`Self::set_present`].
    ///
    /// A page without a record's LSN is in storage all the same if it has come from there: it was imported
    /// without one. Such a block is not `is_new`.
    pub(super) fn note_written(&self, block: u32, written: Written, is_new: bool, running: Running) {
        match written.origin {
            Origin::Logged => {
                clear(&self.local, block);
            }
            Origin::Unlogged if !is_new => {}
            Origin::Unlogged | Origin::Sequence | Origin::FreeSpaceMap => {
                set(&self.local, block);
            }
        }
        match written.awaits {
            None => {
                clear(&self.awaiting, block);
                return;
            }
            Some(Awaits::Transactions) => {
                self.awaited_xid.fetch_max(running.next_xid, Ordering::AcqRel);
            }
            Some(Awaits::Backends) => {
                self.awaited_round
                    .fetch_max(running.backends_round, Ordering::AcqRel);
            }
        }
        set(&self.awaiting, block);
    }

    /// Storage has the block, as it is here or newer. Under a hold.
    pub(super) fn note_logged(&self, block: u32) {
        clear(&self.local, block);
    }

    /// The blocks that are nowhere but here.
    pub(super) fn local(&self) -> u128 {
        load(&self.bits) & load(&self.local)
    }

    /// Clears the bits of the blocks at or behind `first` (of this chunk). Under an exclusive hold. How many
    /// blocks were in the file.
    pub(super) fn clear_from(&self, first: u32) -> u32 {
        let keep = first_blocks(first);
        let gone = self.in_file() & !keep;
        for bits in [&self.bits, &self.local, &self.awaiting, &self.kept] {
            keep_only(bits, keep);
        }
        if first == 0 {
            self.set_ahead_of_log(false);
        }
        gone.count_ones()
    }

    /// Storage has the chunk's pages. Under an exclusive hold.
    pub(super) fn set_logged(&self) {
        if !self.is_logged() {
            self.state.fetch_or(LOGGED, Ordering::AcqRel);
        }
    }

    pub(super) fn is_logged(&self) -> bool {
        self.state.load(Ordering::Acquire) & LOGGED != 0
    }

    /// For another chunk. Under an exclusive hold; the bits are cleared.
    pub(super) fn forget_history(&self) {
        self.state.fetch_and(!LOGGED, Ordering::AcqRel);
        for number in [&self.touched, &self.usage, &self.wanted_blocks, &self.stuck_until] {
            number.store(0, Ordering::Relaxed);
        }
        for number in [
            &self.awaited_xid,
            &self.awaited_round,
            &self.dropped_at,
            &self.written_at,
            &self.kept_since,
        ] {
            number.store(0, Ordering::Relaxed);
        }
    }

    /// Of no chunk any more, at a start: nothing of it is left but its generation.
    pub(super) fn clear_at_start(&self) {
        self.begin_anew();
        self.clear_from(0);
        self.forget_history();
        self.set_packed_key([0; 2]);
    }

    /// A block has been read or written.
    pub(super) fn touch(&self, now: Tick) {
        let before = Tick(self.touched.load(Ordering::Relaxed));
        if before == now {
            return;
        }
        self.touched.store(now.0, Ordering::Relaxed);
        match self.usage.load(Ordering::Relaxed) {
            ABSENT => self.usage.store(CAME, Ordering::Relaxed),
            CAME if now.since(before) >= USED_AGAIN_AFTER => self.usage.store(HOT, Ordering::Relaxed),
            _ => {}
        }
    }

    pub(super) fn touched(&self) -> Tick {
        Tick(self.touched.load(Ordering::Relaxed))
    }

    pub(super) fn is_hot(&self) -> bool {
        self.usage.load(Ordering::Relaxed) == HOT
    }

    /// The blocks that may be dropped once what they await has ended.
    pub(super) fn candidates(&self) -> u128 {
        self.in_file() & !load(&self.local)
    }

    pub(super) fn is_stuck(&self, now: Tick) -> bool {
        Tick(self.stuck_until.load(Ordering::Relaxed)).since(now) <= STUCK_FOR
    }

    pub(super) fn set_stuck(&self, now: Tick) {
        self.stuck_until
            .store(now.0.wrapping_add(STUCK_FOR), Ordering::Relaxed);
    }

    /// Joins as the only holder, if there is none.
    pub(super) fn try_hold_exclusive(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        let is_held = state & (EXCLUSIVE | HOLDERS) != 0;
        !is_held
            && self
                .state
                .compare_exchange(state, state | EXCLUSIVE, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// The blocks that may be dropped now; `ended` is asked only if some block awaits something. Under an exclusive
    /// hold.
    pub(super) fn droppable(&self, ended: impl FnOnce() -> Ended) -> u128 {
        let candidates = self.candidates();
        let awaiting = load(&self.awaiting) & candidates;
        if awaiting == 0 {
            return candidates;
        }
        let ended = ended();
        let is_over = ended.oldest_running_xid >= self.awaited_xid.load(Ordering::Acquire)
            && ended.backends_rounds >= self.awaited_round.load(Ordering::Acquire);
        if !is_over {
            return candidates & !awaiting;
        }
        keep_only(&self.awaiting, 0);
        candidates
    }

    /// `blocks` are absent from now on; storage is to be asked for them at `insert_lsn` or later. Under an
    /// exclusive hold. Those of them that were present: [`Self::restore_blocks`] may be called for them.
    pub(super) fn drop_blocks(&self, blocks: u128, insert_lsn: Lsn) -> u128 {
        let were_present = load(&self.bits) & blocks;
        self.dropped_at.fetch_max(insert_lsn.0, Ordering::AcqRel);
        self.wanted_blocks.store(blocks.count_ones(), Ordering::Relaxed);
        self.usage.store(ABSENT, Ordering::Relaxed);
        keep_only(&self.bits, !blocks);
        keep_only(&self.kept, !blocks);
        self.raise_generation();
        were_present
    }

    /// The blocks whose pages are in the file: those that are present, and those that a crash has left.
    pub(super) fn in_file(&self) -> u128 {
        load(&self.bits) | load(&self.kept)
    }

    /// Undoes the clearing of `blocks`, which are in the md file still. Under the same exclusive hold.
    pub(super) fn restore_blocks(&self, blocks: u128) {
        add(&self.bits, blocks);
    }

    pub(super) fn dropped_at(&self) -> Lsn {
        Lsn(self.dropped_at.load(Ordering::Acquire))
    }

    /// An absent block was needed, and is absent still.
    pub(super) fn note_passed_by(&self) {
        let wanted = self.wanted_blocks.load(Ordering::Relaxed);
        if wanted < BLOCKS_PER_CHUNK {
            self.wanted_blocks.store(wanted + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn wanted_blocks(&self) -> u32 {
        self.wanted_blocks.load(Ordering::Relaxed)
    }

    /// At a start: nobody holds the entry, nothing that a block awaited is there any more, and what was dropped is older
    /// than the attach, as is all that the blocks know that count.
    pub(super) fn begin_anew(&self) {
        self.state.fetch_and(!(HOLDERS | EXCLUSIVE), Ordering::AcqRel);
        keep_only(&self.awaiting, 0);
        for number in [
            &self.awaited_xid,
            &self.awaited_round,
            &self.dropped_at,
            &self.written_at,
        ] {
            number.store(0, Ordering::Relaxed);
        }
        self.stuck_until.store(0, Ordering::Relaxed);
        self.set_ahead_of_log(false);
    }

    /// Whether somebody has a hold; after a crash: had one when it ended, and may have left anything in the file.
    pub(super) fn is_held(&self) -> bool {
        self.state.load(Ordering::Acquire) & (HOLDERS | EXCLUSIVE) != 0
    }

    /// Under a hold.
    pub(super) fn set_ahead_of_log(&self, is_ahead: bool) {
        if self.is_ahead_of_log() != is_ahead {
            self.is_ahead_of_log.store(u32::from(is_ahead), Ordering::Release);
        }
    }

    pub(super) fn is_ahead_of_log(&self) -> bool {
        self.is_ahead_of_log.load(Ordering::Acquire) != 0
    }

    /// Blocks that are in the file.
    pub(super) fn block_count(&self) -> u32 {
        self.in_file().count_ones()
    }

    pub(super) fn local_count(&self) -> u32 {
        load(&self.local).count_ones()
    }

    pub(super) fn awaiting_count(&self) -> u32 {
        load(&self.awaiting).count_ones()
    }

    /// What is present and why it stays. Kept blocks are not: whoever reads their copy asks storage.
    pub(super) fn contents(&self) -> Contents {
        Contents {
            written_at: self.written_at.load(Ordering::Acquire),
            bits: load(&self.bits),
            local: load(&self.local),
            awaiting: load(&self.awaiting),
            awaited_xid: self.awaited_xid.load(Ordering::Acquire),
            awaited_round: self.awaited_round.load(Ordering::Acquire),
            is_ahead_of_log: self.is_ahead_of_log(),
        }
    }

    /// The md file has become a copy of another one, of these contents. How many blocks were absent before.
    /// Under a hold.
    pub(super) fn add_contents(&self, from: Contents) -> u32 {
        self.written_at.fetch_max(from.written_at, Ordering::AcqRel);
        self.awaited_xid.fetch_max(from.awaited_xid, Ordering::AcqRel);
        self.awaited_round.fetch_max(from.awaited_round, Ordering::AcqRel);
        self.set_ahead_of_log(from.is_ahead_of_log);
        add(&self.local, from.local);
        add(&self.awaiting, from.awaiting);
        let added = from.bits & !self.in_file();
        keep_only(&self.kept, !from.bits);
        add(&self.bits, from.bits);
        added.count_ones()
    }

    /// An extent entry (see `table`) uses the first word of bits as a number that only grows.
    pub(super) fn extent(&self) -> u32 {
        u32::try_from(self.bits[0].load(Ordering::Acquire)).unwrap_or(u32::MAX)
    }

    pub(super) fn raise_extent(&self, chunks: u32) {
        self.bits[0].fetch_max(u64::from(chunks), Ordering::AcqRel);
    }
}

/// What [`ChunkEntry::contents`] gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contents {
    written_at: u64,
    bits: u128,
    local: u128,
    awaiting: u128,
    awaited_xid: u64,
    awaited_round: u64,
    is_ahead_of_log: bool,
}

fn position(block: u32) -> (usize, u64) {
    let block = block % BLOCKS_PER_CHUNK;
    ((block / 64) as usize, 1 << (block % 64))
}

/// The bits of a chunk's first blocks.
pub(super) fn first_blocks(count: u32) -> u128 {
    match count {
        0 => 0,
        1..BLOCKS_PER_CHUNK => u128::MAX >> (BLOCKS_PER_CHUNK - count),
        _ => u128::MAX,
    }
}

pub(super) fn load(bits: &[AtomicU64; 2]) -> u128 {
    u128::from(bits[0].load(Ordering::Acquire)) | u128::from(bits[1].load(Ordering::Acquire)) << 64
}

/// True if the bit was clear.
fn set(bits: &[AtomicU64; 2], block: u32) -> bool {
    let (word, bit) = position(block);
    bits[word].load(Ordering::Relaxed) & bit == 0 && bits[word].fetch_or(bit, Ordering::AcqRel) & bit == 0
}

/// True if the bit was set.
fn clear(bits: &[AtomicU64; 2], block: u32) -> bool {
    let (word, bit) = position(block);
    bits[word].load(Ordering::Relaxed) & bit != 0 && bits[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0
}

pub(super) fn add(bits: &[AtomicU64; 2], more: u128) {
    bits[0].fetch_or(more as u64, Ordering::AcqRel);
    bits[1].fetch_or((more >> 64) as u64, Ordering::AcqRel);
}

pub(super) fn keep_only(bits: &[AtomicU64; 2], keep: u128) {
    bits[0].fetch_and(keep as u64, Ordering::AcqRel);
    bits[1].fetch_and((keep >> 64) as u64, Ordering::AcqRel);
}

/// Spins a little, then yields, then sleeps a little: who is waited for does local I/O, not more.
#[derive(Default)]
pub(super) struct Patience(u32);

impl Patience {
    pub(super) fn wait(&mut self) {
        self.0 += 1;
        match self.0 {
            0..50 => std::hint::spin_loop(),
            50..100 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_keeps_the_blocks_before_the_edge() {
        for edge in [0, 1, 63, 64, 65, 127, 128] {
            let entry = ChunkEntry::default();
            for block in 0..128 {
                assert!(entry.set_present(block) && !entry.set_present(block));
            }
            assert_eq!(entry.clear_from(edge), 128 - edge);
            for block in 0..128 {
                assert_eq!(
                    entry.is_present(block),
                    block < edge,
                    "block {block}, edge {edge}"
                );
            }
        }
    }

    #[test]
    fn an_exclusive_holder_is_alone() {
        let entry = ChunkEntry::default();
        let before = entry.generation();
        let inside = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        entry.hold_shared();
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 1 << 32);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        entry.release_shared();
                        entry.hold_exclusive();
                        assert_eq!(inside.fetch_add(1 << 32, Ordering::SeqCst), 0);
                        inside.fetch_sub(1 << 32, Ordering::SeqCst);
                        entry.raise_generation();
                        entry.release_exclusive();
                    }
                });
            }
        });
        assert_eq!(entry.generation(), Generation(before.0 + 8000));
        assert_eq!(entry.state.load(Ordering::SeqCst) & (HOLDERS | EXCLUSIVE), 0);
    }
}
