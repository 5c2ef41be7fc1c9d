//! One chunk's entry in shared memory: key, presence bits, holds and generation.
//!
//! ```text
//!  state  63 ........ 24 | 23..21 | 20        | 19 .......... 0
//!         generation     | unused | exclusive | shared holders
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::BLOCKS_PER_CHUNK;

/// All zeros is a free entry.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ChunkEntry {
    state: AtomicU64,
    /// See `table::pack_key`; zeros: free.
    key: [AtomicU64; 2],
    bits: [AtomicU64; 2],
    /// The next entry of the hash chain or of the free list, its index plus one; zero: the last.
    pub(super) next: AtomicU32,
    /// 1: block 0 is a sequence's page that is ahead of its log record.
    is_ahead_of_log: AtomicU32,
}

const _: () = assert!(size_of::<ChunkEntry>() == 48);
const _: () = assert!(BLOCKS_PER_CHUNK == 128);

const HOLDERS: u64 = (1 << 20) - 1;
const EXCLUSIVE: u64 = 1 << 20;
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

    /// Under a hold.
    pub(super) fn set_present(&self, block: u32) {
        let (word, bit) = position(block);
        if self.bits[word].load(Ordering::Relaxed) & bit == 0 {
            self.bits[word].fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Clears the bits of the blocks at or behind `first` (of this chunk). Under an exclusive hold.
    pub(super) fn clear_from(&self, first: u32) {
        let keep = match first {
            0 => 0,
            1..BLOCKS_PER_CHUNK => u128::MAX >> (BLOCKS_PER_CHUNK - first),
            _ => return,
        };
        self.bits[0].fetch_and(keep as u64, Ordering::AcqRel);
        self.bits[1].fetch_and((keep >> 64) as u64, Ordering::AcqRel);
        if first == 0 {
            self.set_ahead_of_log(false);
        }
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

    pub(super) fn all_bits(&self) -> [u64; 2] {
        [
            self.bits[0].load(Ordering::Acquire),
            self.bits[1].load(Ordering::Acquire),
        ]
    }

    pub(super) fn add_bits(&self, bits: [u64; 2]) {
        self.bits[0].fetch_or(bits[0], Ordering::AcqRel);
        self.bits[1].fetch_or(bits[1], Ordering::AcqRel);
    }

    /// An extent entry (see `table`) uses the first word of bits as a number that only grows.
    pub(super) fn extent(&self) -> u32 {
        u32::try_from(self.bits[0].load(Ordering::Acquire)).unwrap_or(u32::MAX)
    }

    pub(super) fn raise_extent(&self, chunks: u32) {
        self.bits[0].fetch_max(u64::from(chunks), Ordering::AcqRel);
    }
}

fn position(block: u32) -> (usize, u64) {
    let block = block % BLOCKS_PER_CHUNK;
    ((block / 64) as usize, 1 << (block % 64))
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
            (0..128).for_each(|block| entry.set_present(block));
            entry.clear_from(edge);
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
