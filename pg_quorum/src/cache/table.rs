//! The table of chunks: a hash index over entries that never move.
//!
//! Looking up takes no lock: an entry's key is checked after the hold is taken, and an entry that is held is
//! not given another key. Inserting and removing lock one hash chain for a few instructions.
//!
//! Each fork with entries has one *extent* entry more: how many chunks, at most, have ever had an entry. So a
//! dropped relation's entries are found one by one, without a walk over the whole table.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pg_quorum_types::{DatabaseKey, ForkNumber, Lsn, RelFileNode, RelFork};

use super::entry::{ChunkEntry, Generation, Patience};
use super::pinned::Written;
use super::surroundings::{Running, Tick};
use super::{BLOCKS_PER_CHUNK, ChunkKey};

/// The table's first bytes in shared memory. All zeros is an empty table.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Header {
    /// Entries that were ever used: those behind it are fresh.
    used: AtomicU32,
    /// First entry of the free list, its index plus one; zero: none.
    free: AtomicU32,
    /// 1: somebody takes or gives an entry.
    allocator: AtomicU32,
    /// Entries whose memory exists on disk.
    backed: AtomicU32,
    /// Entries that are in the index.
    pub live: AtomicU64,
    /// Blocks that are present.
    pub(super) cached: AtomicU64,
    /// Where eviction has looked last.
    hand: AtomicU32,
    /// Nothing can be dropped before this time, or before the cache has grown.
    futile_until: AtomicU32,
    /// Blocks that were present then.
    futile_at: AtomicU64,
    /// Misses while the cache was full.
    misses_when_full: AtomicU32,
    /// [`LAYOUT`], in a table that was used.
    layout: AtomicU64,
}

/// Names the layout of header and entries: a file of another one is not taken over.
const LAYOUT: u64 = 0x7067_7175_6F72_0003 ^ (size_of::<ChunkEntry>() as u64) << 32;

/// The storage behind the table, shared between processes.
#[derive(Clone, Copy)]
pub struct Parts {
    pub header: &'static Header,
    /// A power of two of them.
    pub buckets: &'static [AtomicU32],
    pub entries: &'static [ChunkEntry],
    /// Makes memory for entries exist, in a range that had none; false if the disk is full.
    pub back: fn(entries: std::ops::Range<usize>) -> bool,
}

/// The table.
#[derive(Clone, Copy)]
pub struct ChunkTable {
    parts: Parts,
}

/// No entry can be added: the table's file has no room left on its disk, or the table is at its limit.
#[derive(Debug, thiserror::Error)]
#[error("the local page cache has no room for another chunk in its presence table")]
pub struct TableFull;

/// A chunk as it was seen under a shared hold that has ended: what an install is checked against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    entry: u32,
    key: ChunkKey,
    generation: Generation,
}

/// A hold on one chunk. A process has at most one at a time.
pub struct Held {
    table: ChunkTable,
    entry: u32,
    key: ChunkKey,
    exclusive: bool,
}

const LOCKED: u32 = 1 << 31;
const ENTRIES_PER_GROWTH: u32 = 1 << 16;

/// What this process holds, for [`release_at_exit`]: the entry's index plus one, and `EXCLUSIVE_HOLD`.
static HELD: AtomicU64 = AtomicU64::new(0);
const EXCLUSIVE_HOLD: u64 = 1 << 32;

/// Lets go of a hold that a FATAL error left behind, whatever it has left in the file. At a process's exit.
pub fn release_at_exit(table: ChunkTable) {
    let held = HELD.swap(0, Ordering::Relaxed);
    let Some(entry) = (held & u64::from(u32::MAX)).checked_sub(1) else {
        return;
    };
    let entry = &table.parts.entries[entry as usize];
    entry.written_at.store(u64::MAX, Ordering::Release);
    if held & EXCLUSIVE_HOLD == 0 {
        entry.release_shared();
    } else {
        entry.release_exclusive();
    }
}

/// `spc | db` and `fork+1, extent flag, chunk | rel`: no real key has a zero in either word.
fn pack(fork: RelFork, chunk: u32, is_extent: bool) -> [u64; 2] {
    debug_assert!(chunk < 1 << 26);
    let place = (fork.fork as u32 + 1) << 27 | u32::from(is_extent) << 26 | chunk;
    [
        u64::from(fork.rel.spc) << 32 | u64::from(fork.rel.db),
        u64::from(place) << 32 | u64::from(fork.rel.rel),
    ]
}

/// The inverse of [`pack`] for a chunk's key; `None` for an extent's.
fn unpack(key: [u64; 2]) -> Option<ChunkKey> {
    let place = (key[1] >> 32) as u32;
    let fork = u8::try_from((place >> 27).checked_sub(1)?).ok()?;
    (place & (1 << 26) == 0).then_some(())?;
    Some(ChunkKey {
        fork: RelFork {
            rel: RelFileNode {
                spc: (key[0] >> 32) as u32,
                db: key[0] as u32,
                rel: key[1] as u32,
            },
            fork: ForkNumber::from_number(fork)?,
        },
        chunk: place & ((1 << 26) - 1),
    })
}

fn chunk_key(key: ChunkKey) -> [u64; 2] {
    pack(key.fork, key.chunk, false)
}

impl ChunkTable {
    /// # Panics
    /// When the number of buckets is not a power of two.
    pub fn new(parts: Parts) -> ChunkTable {
        assert!(parts.buckets.len().is_power_of_two());
        assert!(parts.entries.len() < LOCKED as usize);
        ChunkTable { parts }
    }

    /// Marks an empty table as one of this layout.
    pub fn begin(&self) {
        self.parts.header.layout.store(LAYOUT, Ordering::Release);
    }

    /// Whether the table is of this layout, and can be taken over from an earlier run.
    pub fn is_usable(&self) -> bool {
        self.parts.header.layout.load(Ordering::Acquire) == LAYOUT
    }

    /// Blocks that are present.
    pub fn cached_pages(&self) -> u64 {
        self.parts.header.cached.load(Ordering::Relaxed)
    }

    /// Chunks (and extents) that have an entry.
    pub fn live_entries(&self) -> u64 {
        self.parts.header.live.load(Ordering::Relaxed)
    }

    /// A shared hold on the chunk, whose entry is made if there is none.
    ///
    /// # Errors
    /// See [`TableFull`].
    pub fn hold(&self, key: ChunkKey) -> Result<Held, TableFull> {
        loop {
            if let Some(held) = self.hold_existing(key) {
                return Ok(held);
            }
            self.insert_chunk(key)?;
        }
    }

    /// A shared hold on the chunk, `None` if it has no entry (all its blocks are absent).
    pub fn hold_existing(&self, key: ChunkKey) -> Option<Held> {
        loop {
            let entry = self.find(chunk_key(key))?;
            self.entry(entry).hold_shared();
            let held = Held::new(*self, entry, key, false);
            if self.entry(entry).packed_key() == chunk_key(key) {
                return Some(held);
            }
        }
    }

    /// An exclusive hold on a chunk that has an entry.
    fn hold_exclusive(&self, key: ChunkKey) -> Option<Held> {
        loop {
            let entry = self.find(chunk_key(key))?;
            self.entry(entry).hold_exclusive();
            let held = Held::new(*self, entry, key, true);
            if self.entry(entry).packed_key() == chunk_key(key) {
                return Some(held);
            }
        }
    }

    /// An exclusive hold for installing what was asked for when the chunk looked like `seen`; `None` if it
    /// has been truncated, dropped or given away since.
    pub fn hold_for_install(&self, seen: Seen) -> Option<Held> {
        let entry = self.entry(seen.entry);
        entry.hold_exclusive();
        let held = Held::new(*self, seen.entry, seen.key, true);
        let unchanged = entry.packed_key() == chunk_key(seen.key) && entry.generation() == seen.generation;
        unchanged.then_some(held)
    }

    /// Forgets the blocks at and behind `nblocks`. Never fails, allocates nothing: fit for a critical section.
    pub fn truncate(&self, fork: RelFork, nblocks: u32) {
        for chunk in nblocks / BLOCKS_PER_CHUNK..self.extent(fork) {
            if let Some(held) = self.hold_exclusive(ChunkKey { fork, chunk }) {
                let first = nblocks.saturating_sub(chunk * BLOCKS_PER_CHUNK);
                self.count_gone(held.entry().clear_from(first));
                held.entry().raise_generation();
            }
        }
    }

    /// Forgets the whole fork and gives its entries away. Never fails, allocates nothing.
    pub fn remove_fork(&self, fork: RelFork) {
        let extent = self.extent(fork);
        if extent == 0 {
            return;
        }
        for chunk in 0..extent {
            if let Some(entry) = self.find(pack(fork, chunk, false)) {
                self.remove(entry, pack(fork, chunk, false));
            }
        }
        if let Some(entry) = self.find(pack(fork, 0, true)) {
            self.remove(entry, pack(fork, 0, true));
        }
    }

    /// Forgets everything of a database, in one tablespace or in all.
    pub fn remove_database(&self, db: u32, spc: Option<u32>) {
        for entry in 0..self.used() {
            let key = self.entry(entry).packed_key();
            let of_database = key[1] != 0 && key[0] as u32 == db;
            if of_database && spc.is_none_or(|spc| (key[0] >> 32) as u32 == spc) {
                self.remove(entry, key);
            }
        }
    }

    /// What is present in `from` is present in `to` as well: its files have been copied.
    ///
    /// # Errors
    /// See [`TableFull`]; some chunks may have been done.
    pub fn copy_database(&self, from: DatabaseKey, to: DatabaseKey) -> Result<(), TableFull> {
        for entry in 0..self.used() {
            let key = self.entry(entry).packed_key();
            let Some(mut chunk) = unpack(key) else { continue };
            if (chunk.fork.rel.spc, chunk.fork.rel.db) != (from.spc, from.db) {
                continue;
            }
            let contents = self.entry(entry).contents();
            if self.entry(entry).packed_key() != key {
                continue;
            }
            chunk.fork.rel.spc = to.spc;
            chunk.fork.rel.db = to.db;
            let copy = self.hold(chunk)?;
            let added = copy.entry().add_contents(contents);
            self.parts
                .header
                .cached
                .fetch_add(u64::from(added), Ordering::AcqRel);
        }
        Ok(())
    }

    /// The forks whose block 0 was written by [`Held::set_ahead_of_log`] last.
    pub fn ahead_of_log(self) -> impl Iterator<Item = RelFork> {
        (0..self.used()).filter_map(move |entry| {
            let entry = self.entry(entry);
            let chunk = unpack(entry.packed_key()).filter(|_| entry.is_ahead_of_log())?;
            Some(chunk.fork)
        })
    }

    /// The pages of free space maps that have been written since they were logged.
    pub fn unlogged_free_space(self) -> impl Iterator<Item = (RelFork, u32)> {
        let maps = self
            .chunks()
            .filter(|(_, key)| key.fork.fork == ForkNumber::FreeSpaceMap);
        maps.flat_map(move |(entry, key)| {
            let local = self.entry(entry).local();
            let first = key.chunk * BLOCKS_PER_CHUNK;
            let blocks = (0..BLOCKS_PER_CHUNK).filter(move |block| local >> block & 1 != 0);
            blocks.map(move |block| (key.fork, first + block))
        })
    }

    /// The log gets this block, as it is now or newer: it need not stay.
    pub fn note_logged(&self, fork: RelFork, block: u32) {
        if let Some(held) = self.hold_existing(ChunkKey::of(fork, block)) {
            held.entry().note_logged(block);
        }
    }

    /// The chunks that have an entry, with its index.
    pub(super) fn chunks(self) -> impl Iterator<Item = (u32, ChunkKey)> {
        (0..self.used()).filter_map(move |entry| Some((entry, self.key_of(entry)?)))
    }

    /// What the cache holds and how it is used, at `now`.
    pub fn usage(self, now: Tick) -> Usage {
        let mut usage = Usage::default();
        for (index, _) in self.chunks() {
            let entry = self.entry(index);
            usage.present += u64::from(entry.block_count());
            usage.local += u64::from(entry.local_count());
            usage.awaiting += u64::from(entry.awaiting_count());
            let blocks = u64::from(entry.block_count().max(entry.wanted_blocks()));
            let age = now.since(entry.touched());
            for (pages, seconds) in usage.working_sets.iter_mut().zip(WORKING_SET_SECONDS) {
                if age < seconds * Tick::PER_SECOND {
                    *pages += blocks;
                }
            }
        }
        usage
    }

    pub(super) fn entry(&self, index: u32) -> &'static ChunkEntry {
        &self.parts.entries[index as usize]
    }

    pub(super) fn used(&self) -> u32 {
        self.parts.header.used.load(Ordering::Acquire)
    }

    /// The chunk that the entry is of; `None`: of none.
    pub(super) fn key_of(&self, index: u32) -> Option<ChunkKey> {
        unpack(self.entry(index).packed_key())
    }

    /// The entry that eviction looks at next. Only where there is one.
    pub(super) fn advance_hand(&self) -> u32 {
        self.parts.header.hand.fetch_add(1, Ordering::Relaxed) % self.used()
    }

    pub(super) fn is_room_making_futile(&self, now: Tick) -> bool {
        let until = Tick(self.parts.header.futile_until.load(Ordering::Relaxed));
        let has_grown = self.cached_pages()
            >= self.parts.header.futile_at.load(Ordering::Relaxed) + u64::from(BLOCKS_PER_CHUNK);
        until.since(now) <= Tick::PER_SECOND && !has_grown
    }

    pub(super) fn set_room_making_futile(&self, now: Tick) {
        let until = now.0.wrapping_add(Tick::PER_SECOND);
        self.parts.header.futile_until.store(until, Ordering::Relaxed);
        let cached = self.cached_pages();
        self.parts.header.futile_at.store(cached, Ordering::Relaxed);
    }

    /// Counts a miss while the cache is full; the count before it.
    pub(super) fn count_miss_when_full(&self) -> u32 {
        self.parts.header.misses_when_full.fetch_add(1, Ordering::Relaxed)
    }

    /// An exclusive hold on `key`'s chunk, whose entry is `index`, unless somebody else has a hold.
    pub(super) fn try_hold_for_drop(&self, index: u32, key: ChunkKey) -> Option<Held> {
        if !self.entry(index).try_hold_exclusive() {
            return None;
        }
        let held = Held::new(*self, index, key, true);
        (self.entry(index).packed_key() == chunk_key(key)).then_some(held)
    }

    pub(super) fn count_gone(&self, blocks: u32) {
        self.parts
            .header
            .cached
            .fetch_sub(u64::from(blocks), Ordering::AcqRel);
    }

    fn extent(&self, fork: RelFork) -> u32 {
        let entry = self.find(pack(fork, 0, true));
        entry.map_or(0, |entry| self.entry(entry).extent())
    }

    fn bucket(&self, key: [u64; 2]) -> &'static AtomicU32 {
        let mixed = (key[0].wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ key[1]).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let index = (mixed >> 32) as usize & (self.parts.buckets.len() - 1);
        &self.parts.buckets[index]
    }

    /// Without a lock first. An entry that moves to another chain under a reader's feet can make it miss
    /// others, so "not there" is said under the chain's lock only.
    fn find(&self, key: [u64; 2]) -> Option<u32> {
        let bucket = self.bucket(key);
        let found = self.walk(bucket.load(Ordering::Acquire) & !LOCKED, key);
        if found.is_some() {
            return found;
        }
        let head = lock(bucket);
        let found = self.walk(head, key);
        unlock(bucket, head);
        found
    }

    fn walk(&self, head: u32, key: [u64; 2]) -> Option<u32> {
        let mut at = head;
        while let Some(index) = at.checked_sub(1) {
            let entry = self.entry(index);
            if entry.packed_key() == key {
                return Some(index);
            }
            at = entry.next.load(Ordering::Acquire);
        }
        None
    }

    fn insert_chunk(&self, key: ChunkKey) -> Result<(), TableFull> {
        self.insert_extent(key.fork, key.chunk + 1)?;
        self.insert(chunk_key(key))?;
        Ok(())
    }

    /// The fork has had so many chunks.
    pub(super) fn insert_extent(&self, fork: RelFork, chunks: u32) -> Result<(), TableFull> {
        let extent = self.insert(pack(fork, 0, true))?;
        self.entry(extent).raise_extent(chunks);
        Ok(())
    }

    /// At a start: no chain and no free entry, and no lock that anybody has.
    pub(super) fn clear_index(&self) {
        let header = self.parts.header;
        for word in [&header.free, &header.allocator, &header.futile_until] {
            word.store(0, Ordering::Relaxed);
        }
        header.live.store(0, Ordering::Relaxed);
        for bucket in self.parts.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    /// At a start: puts an entry that has a key into the index.
    pub(super) fn chain_at_start(&self, index: u32) {
        let entry = self.entry(index);
        let bucket = self.bucket(entry.packed_key());
        entry
            .next
            .store(bucket.load(Ordering::Relaxed), Ordering::Relaxed);
        bucket.store(index + 1, Ordering::Release);
        self.parts.header.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_cached_pages(&self, pages: u64) {
        self.parts.header.cached.store(pages, Ordering::Release);
    }

    /// The entry of `key`, made if there is none.
    fn insert(&self, key: [u64; 2]) -> Result<u32, TableFull> {
        if let Some(entry) = self.find(key) {
            return Ok(entry);
        }
        let fresh = self.take_free()?;
        let bucket = self.bucket(key);
        let head = lock(bucket);
        if let Some(found) = self.walk(head, key) {
            unlock(bucket, head);
            self.give_free(fresh);
            return Ok(found);
        }
        self.entry(fresh).next.store(head, Ordering::Release);
        self.entry(fresh).set_packed_key(key);
        unlock(bucket, fresh + 1);
        self.parts.header.live.fetch_add(1, Ordering::Relaxed);
        Ok(fresh)
    }

    /// Takes the entry out of the index, its generation raised, its bits cleared.
    fn remove(&self, index: u32, key: [u64; 2]) {
        let entry = self.entry(index);
        entry.hold_exclusive();
        if entry.packed_key() == key {
            // An extent's number is no blocks.
            if unpack(key).is_some() {
                self.count_gone(entry.clear_from(0));
            } else {
                entry.clear_from(0);
            }
            entry.forget_history();
            entry.raise_generation();
            let bucket = self.bucket(key);
            let head = lock(bucket);
            let head = self.unchain(head, index);
            entry.set_packed_key([0; 2]);
            unlock(bucket, head);
            self.parts.header.live.fetch_sub(1, Ordering::Relaxed);
            entry.release_exclusive();
            self.give_free(index);
        } else {
            entry.release_exclusive();
        }
    }

    /// The chain's new head.
    fn unchain(&self, head: u32, index: u32) -> u32 {
        let behind = self.entry(index).next.load(Ordering::Acquire);
        if head == index + 1 {
            return behind;
        }
        let mut at = head;
        while let Some(previous) = at.checked_sub(1) {
            let next = &self.entry(previous).next;
            at = next.load(Ordering::Acquire);
            if at == index + 1 {
                next.store(behind, Ordering::Release);
                return head;
            }
        }
        head
    }

    fn take_free(&self) -> Result<u32, TableFull> {
        let header = self.parts.header;
        let guard = SpinGuard::lock(&header.allocator);
        let free = header.free.load(Ordering::Relaxed);
        if let Some(index) = free.checked_sub(1) {
            let next = self.entry(index).next.load(Ordering::Relaxed);
            header.free.store(next, Ordering::Relaxed);
            return Ok(index);
        }
        let index = header.used.load(Ordering::Relaxed);
        if index as usize >= self.parts.entries.len() {
            return Err(TableFull);
        }
        let backed = header.backed.load(Ordering::Relaxed);
        if index >= backed {
            let wanted = (index + ENTRIES_PER_GROWTH) as usize;
            let wanted = wanted.min(self.parts.entries.len());
            if !(self.parts.back)(backed as usize..wanted) {
                return Err(TableFull);
            }
            header
                .backed
                .store(u32::try_from(wanted).map_err(|_| TableFull)?, Ordering::Relaxed);
        }
        header.used.store(index + 1, Ordering::Release);
        drop(guard);
        Ok(index)
    }

    pub(super) fn give_free(&self, index: u32) {
        let header = self.parts.header;
        let guard = SpinGuard::lock(&header.allocator);
        self.entry(index)
            .next
            .store(header.free.load(Ordering::Relaxed), Ordering::Release);
        header.free.store(index + 1, Ordering::Relaxed);
        drop(guard);
    }
}

#[cfg(test)]
impl ChunkTable {
    pub(super) fn parts(&self) -> Parts {
        self.parts
    }
}

#[cfg(test)]
impl Header {
    /// As a process leaves it that is killed while it takes an entry.
    pub(super) fn lock_allocator(&self) {
        self.allocator.store(1, Ordering::SeqCst);
    }
}

impl Held {
    fn new(table: ChunkTable, entry: u32, key: ChunkKey, exclusive: bool) -> Held {
        let kind = if exclusive { EXCLUSIVE_HOLD } else { 0 };
        HELD.store((u64::from(entry) + 1) | kind, Ordering::Relaxed);
        Held {
            table,
            entry,
            key,
            exclusive,
        }
    }

    pub(super) fn entry(&self) -> &'static ChunkEntry {
        self.table.entry(self.entry)
    }

    pub(super) fn table(&self) -> ChunkTable {
        self.table
    }

    pub fn key(&self) -> ChunkKey {
        self.key
    }

    /// Whether the md file holds the page. `block` is the fork's block number.
    pub fn is_present(&self, block: u32) -> bool {
        debug_assert_eq!(block / BLOCKS_PER_CHUNK, self.key.chunk);
        self.entry().is_present(block)
    }

    /// The md file holds the page now, as storage has it.
    pub fn set_present(&self, block: u32) {
        debug_assert_eq!(block / BLOCKS_PER_CHUNK, self.key.chunk);
        if self.entry().set_present(block) {
            self.table.parts.header.cached.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The md file holds the page now, as the server has written it while `running` was. `is_new`: the block has
    /// just come to be.
    pub fn put_written(&self, block: u32, written: Written, is_new: bool, running: Running) {
        self.entry().note_written(block, written, is_new, running);
        self.set_present(block);
    }

    /// The relation is not unlogged, and it is the one of which the chunk was when it was looked at. Under an
    /// exclusive hold for an install.
    pub fn set_logged(&self) {
        debug_assert!(self.exclusive);
        self.entry().set_logged();
    }

    /// Whether that is known. It stays true as long as the chunk is the fork's.
    pub fn is_logged(&self) -> bool {
        self.entry().is_logged()
    }

    /// A page of the chunk was fetched and used, and is not kept.
    pub fn note_passed_by(&self) {
        self.entry().note_passed_by();
    }

    /// The chunk is in use.
    pub fn touch(&self, now: Tick) {
        self.entry().touch(now);
    }

    /// The absent blocks were not changed behind this LSN since they were dropped. Invalid: none was dropped.
    pub fn not_modified_since(&self) -> Lsn {
        self.entry().dropped_at()
    }

    /// Block 0, as the md file has it now, is a sequence's page whose values no log record has.
    pub fn set_ahead_of_log(&self, is_ahead: bool) {
        debug_assert_eq!(self.key.chunk, 0);
        self.entry().set_ahead_of_log(is_ahead);
    }

    /// Ends the hold and remembers how the chunk looked, for a later install.
    pub fn leave(self) -> Seen {
        Seen {
            entry: self.entry,
            key: self.key,
            generation: self.entry().generation(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // An ERROR in the middle of a write: it may have left anything in the file.
        if std::thread::panicking() {
            self.entry().written_at.store(u64::MAX, Ordering::Release);
        }
        HELD.store(0, Ordering::Relaxed);
        if self.exclusive {
            self.entry().release_exclusive();
        } else {
            self.entry().release_shared();
        }
    }
}

/// What [`ChunkTable::usage`] gives, in pages.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub present: u64,
    /// Nowhere but here.
    pub local: u64,
    /// They stay until something has ended.
    pub awaiting: u64,
    /// Of the chunks that were touched within each of [`WORKING_SET_SECONDS`].
    pub working_sets: [u64; 3],
}

/// A minute, ten, an hour.
const WORKING_SET_SECONDS: [u32; 3] = [60, 600, 3600];

/// Locks a hash chain; returns its head.
fn lock(bucket: &AtomicU32) -> u32 {
    let mut patience = Patience::default();
    loop {
        let head = bucket.load(Ordering::Relaxed);
        let free = head & LOCKED == 0;
        if free
            && bucket
                .compare_exchange_weak(head, head | LOCKED, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        {
            return head;
        }
        patience.wait();
    }
}

fn unlock(bucket: &AtomicU32, head: u32) {
    bucket.store(head, Ordering::Release);
}

struct SpinGuard<'a>(&'a AtomicU32);

impl SpinGuard<'_> {
    fn lock(word: &AtomicU32) -> SpinGuard<'_> {
        let mut patience = Patience::default();
        while word
            .compare_exchange_weak(0, 1, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            patience.wait();
        }
        SpinGuard(word)
    }
}

impl Drop for SpinGuard<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn table(buckets: usize, entries: usize) -> ChunkTable {
        fn leak<T: Default>(count: usize) -> &'static [T] {
            Vec::leak((0..count).map(|_| T::default()).collect())
        }
        ChunkTable::new(Parts {
            header: Box::leak(Box::default()),
            buckets: leak(buckets),
            entries: leak(entries),
            back: |_| true,
        })
    }

    pub(in super::super) fn fork(rel: u32) -> RelFork {
        let rel = RelFileNode {
            spc: 1663,
            db: 5,
            rel,
        };
        RelFork {
            rel,
            fork: ForkNumber::Main,
        }
    }

    fn put(table: ChunkTable, fork: RelFork, block: u32) {
        table.hold(ChunkKey::of(fork, block)).unwrap().set_present(block);
    }

    pub(in super::super) fn has(table: ChunkTable, fork: RelFork, block: u32) -> bool {
        let held = table.hold_existing(ChunkKey::of(fork, block));
        held.is_some_and(|held| held.is_present(block))
    }

    #[test]
    fn a_truncation_forgets_the_tail_and_refuses_what_was_asked_for_before() {
        let table = table(4, 100);
        for block in [0, 5, 130, 700] {
            put(table, fork(1), block);
        }
        let seen = table.hold(ChunkKey::of(fork(1), 0)).unwrap().leave();
        table.truncate(fork(1), 5);
        assert!(has(table, fork(1), 0));
        assert!(![5, 130, 700].into_iter().any(|block| has(table, fork(1), block)));
        assert!(table.hold_for_install(seen).is_none());
        let seen = table.hold(ChunkKey::of(fork(1), 0)).unwrap().leave();
        assert!(table.hold_for_install(seen).is_some());
    }

    #[test]
    fn an_entry_that_was_given_to_another_chunk_installs_nothing() {
        let table = table(1, 2);
        let seen = table.hold(ChunkKey::of(fork(1), 0)).unwrap().leave();
        table.remove_fork(fork(1));
        assert_eq!(table.live_entries(), 0);
        put(table, fork(2), 3);
        assert!(table.hold_for_install(seen).is_none());
        assert!(has(table, fork(2), 3));
        table.remove_fork(fork(2));
        put(table, fork(1), 3);
        assert!(table.hold_for_install(seen).is_none(), "same chunk, later life");
        assert!(
            table.hold(ChunkKey::of(fork(7), 0)).is_err(),
            "two entries are all"
        );
    }

    #[test]
    fn what_is_known_of_a_relation_is_not_believed_of_a_later_one_with_its_number() {
        let table = table(4, 100);
        let seen = table.hold(ChunkKey::of(fork(1), 0)).unwrap().leave();
        table.hold_for_install(seen).unwrap().set_logged();
        let is_logged = |block| table.hold(ChunkKey::of(fork(1), block)).unwrap().is_logged();
        assert!(is_logged(5) && !is_logged(BLOCKS_PER_CHUNK));
        table.truncate(fork(1), 0);
        assert!(is_logged(5));
        table.remove_fork(fork(1));
        assert!(!is_logged(5));
    }

    #[test]
    fn a_map_page_is_only_here_until_it_is_logged() {
        let table = table(4, 100);
        let map = RelFork {
            fork: ForkNumber::FreeSpaceMap,
            ..fork(1)
        };
        let page = [0; pg_quorum_types::BLOCK_SIZE];
        let running = Running {
            next_xid: 9,
            backends_round: 9,
        };
        let write = |fork: RelFork, block| {
            let held = table.hold(ChunkKey::of(fork, block)).unwrap();
            held.put_written(block, Written::judge(fork.fork, &page, || 0), true, running);
        };
        let unlogged = || table.unlogged_free_space().collect::<Vec<_>>();
        for block in [2, 130] {
            write(map, block);
            write(fork(2), block);
        }
        assert_eq!(unlogged(), [(map, 2), (map, 130)]);
        table.note_logged(map, 2);
        assert_eq!(unlogged(), [(map, 130)]);
        assert!(has(table, map, 2));
        write(map, 2);
        table.truncate(map, 130);
        assert_eq!(unlogged(), [(map, 2)], "written again");
    }

    #[test]
    fn a_moved_database_keeps_what_is_present_and_a_dropped_one_nothing() {
        let table = table(8, 100);
        let (from, to) = (DatabaseKey { spc: 1663, db: 5 }, DatabaseKey { spc: 77, db: 5 });
        put(table, fork(1), 9);
        put(table, fork(2), 300);
        table.copy_database(from, to).unwrap();
        table.remove_database(5, Some(1663));
        let mut moved = fork(2);
        moved.rel.spc = 77;
        assert!(has(table, moved, 300) && !has(table, moved, 299));
        assert!(!has(table, fork(2), 300));
        table.remove_database(5, None);
        assert_eq!(table.live_entries(), 0);
    }

    #[test]
    fn chunks_come_and_go_under_concurrent_readers() {
        let table = table(2, 64);
        std::thread::scope(|scope| {
            for rel in 1..=4u32 {
                scope.spawn(move || {
                    for round in 0..3000u32 {
                        let block = round % 5 * BLOCKS_PER_CHUNK;
                        put(table, fork(rel), block);
                        assert!(has(table, fork(rel), block));
                        has(table, fork(rel % 4 + 1), block);
                        if round % 7 == 0 {
                            table.remove_fork(fork(rel));
                            assert!(!has(table, fork(rel), block));
                        }
                    }
                });
            }
        });
        (1..=4).for_each(|rel| table.remove_fork(fork(rel)));
        assert_eq!(table.live_entries(), 0);
    }
}
