//! Page requests from backends to the link worker.
//!
//! A fixed pool of slots in shared memory; a request of up to 16 blocks of one fork lives in one, or the question which
//! blocks of a chunk the log has not changed.
//!
//! ```text
//!            backend                 worker               worker                backend
//!   Free ──────────► Filling ─► Requested ──► Serving ──────────► Done/Failed ──────────► Free
//!                                  │             │ backend gives up
//!                                  ▼             ▼
//!                                 Free       Abandoned ──worker──► Free
//! ```
//!
//! Every arrow is one compare-and-swap on the slot's state word, which is also the futex on which the backend
//! sleeps. A backend may begin requests ahead of its need ([`Ticket`]) and wait later, or never. One that gives up
//! (cancel, termination, no need any more) leaves a slot that is being served to the worker: nobody else may use it
//! while pages are written into it. A backend that dies leaves its slot as it is; the
//! crash restart that follows makes the pool anew.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pg_quorum_types::{BLOCK_SIZE, ForkNumber, Lsn, RelFileNode, RelFork};

use super::text::SharedText;
use super::{INTERRUPT_POLL, SharedState, state};
use crate::pg::{futex, postmaster_death};

/// Blocks of one request: 128 KiB.
pub const MAX_BLOCKS_PER_REQUEST: usize = 16;

/// Requests in flight over all backends; more wait for a free slot.
const SLOTS: usize = 64;

/// Slots that no request gets that nobody waits for yet.
const KEPT_FOR_WAITERS: usize = 16;
/// A process may have begun one request ahead for so many slots that are free for such requests.
const AHEAD_SHARE: usize = 4;

/// A page of a relation.
pub type Page = [u8; BLOCK_SIZE];

const WORDS_PER_PAGE: usize = BLOCK_SIZE / 8;

const FREE: u32 = 0;
const FILLING: u32 = 1;
const REQUESTED: u32 = 2;
const SERVING: u32 = 3;
const DONE: u32 = 4;
const FAILED: u32 = 5;
const ABANDONED: u32 = 6;

/// The pool.
#[derive(Debug)]
pub struct PageSlots {
    /// Counts slots that became free; backends that found none sleep on it.
    freed: AtomicU32,
    waiting_for_slot: AtomicU32,
    slots: [PageSlot; SLOTS],
}

#[derive(Debug)]
#[repr(C, align(64))]
struct PageSlot {
    state: AtomicU32,
    spc: AtomicU32,
    db: AtomicU32,
    rel: AtomicU32,
    fork: AtomicU32,
    block_count: AtomicU32,
    not_modified_since: AtomicU64,
    /// Set: the question is which of 128 blocks, from the first in `blocks` on, have not been changed behind this LSN. The
    /// answer is in the first page.
    unchanged_since: AtomicU64,
    blocks: [AtomicU32; MAX_BLOCKS_PER_REQUEST],
    error: SharedText<1024>,
    pages: [SharedPage; MAX_BLOCKS_PER_REQUEST],
}

/// Page bytes as words, so that two processes may touch them without a data race.
#[derive(Debug)]
struct SharedPage([AtomicU64; WORDS_PER_PAGE]);

impl SharedPage {
    fn store(&self, page: &[u8]) {
        let (words, _) = page.as_chunks::<8>();
        for (to, from) in self.0.iter().zip(words) {
            to.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
        }
    }

    fn store_bits(&self, bits: u128) {
        self.0[0].store(bits as u64, Ordering::Relaxed);
        self.0[1].store((bits >> 64) as u64, Ordering::Relaxed);
    }

    fn load_bits(&self) -> u128 {
        let word = |number: usize| u128::from(self.0[number].load(Ordering::Relaxed));
        word(0) | word(1) << 64
    }

    fn load(&self, page: &mut Page) {
        let (words, _) = page.as_chunks_mut::<8>();
        for (to, from) in words.iter_mut().zip(&self.0) {
            *to = from.load(Ordering::Relaxed).to_ne_bytes();
        }
    }
}

/// A request as the worker takes it out of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub slot: usize,
    pub fork: RelFork,
    pub wanted: Asked,
    /// The pages must be at least of this LSN, the log that is looked at must reach it.
    pub not_modified_since: Lsn,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Pages(Vec<u32>),
    /// Which of 128 blocks no record has changed that ends above `since`.
    Unchanged {
        first_block: u32,
        since: Lsn,
    },
}

/// Why pages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The caller's predicate said so (cancel, termination): nothing was read.
    #[error("the wait for pages from storage was interrupted")]
    Interrupted,
    /// The link worker has left at shutdown: the caller asks by itself, see [`crate::link::fetch_by_myself`].
    #[error("the link worker has left")]
    LinkGone,
    /// Another compute has taken the volume: this server is about to stop.
    #[error("the volume has been taken by another server: {message}")]
    Fenced { message: String },
    /// No segment could answer, with the reasons of each.
    #[error("{message}")]
    Storage { message: String },
}

/// A request that was begun, in a slot of the caller's. Dropping it gives it up.
#[derive(Debug)]
pub struct Ticket {
    slot: &'static PageSlot,
}

impl Ticket {
    /// Begins a request for at most [`MAX_BLOCKS_PER_REQUEST`] `blocks` of `fork`, of an LSN at or above
    /// `not_modified_since`. Waits for a free slot; `interrupted` is asked now and then and ends the wait when it says
    /// true.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn begin(
        fork: RelFork,
        blocks: &[u32],
        not_modified_since: Lsn,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Ticket, FetchError> {
        debug_assert!(!blocks.is_empty() && blocks.len() <= MAX_BLOCKS_PER_REQUEST);
        let shared = state();
        if shared.link_gone() {
            return Err(FetchError::LinkGone);
        }
        let slot = shared.page_slots.claim(shared, interrupted)?;
        slot.send(fork, blocks, not_modified_since, Lsn::INVALID);
        Ok(Ticket { slot })
    }

    /// Asks which of the 128 blocks from `first_block` on no record has changed that ends above `since`, in a log up to
    /// `lsn` or further: a bit for each block. Waits for the answer as [`Ticket::begin`] and [`Ticket::collect`] do.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn ask_unchanged(
        fork: RelFork,
        first_block: u32,
        since: Lsn,
        lsn: Lsn,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<u128, FetchError> {
        debug_assert!(since.is_valid());
        let shared = state();
        if shared.link_gone() {
            return Err(FetchError::LinkGone);
        }
        let slot = shared.page_slots.claim(shared, interrupted)?;
        slot.send(fork, &[first_block], lsn, since);
        let ticket = Ticket { slot };
        ticket.slot.wait(shared, interrupted)?;
        Ok(slot.pages[0].load_bits())
    }

    /// Begins a request for blocks that nobody needs yet, at most [`MAX_BLOCKS_PER_REQUEST`] of them, without
    /// waiting. `None`: the caller, who has `in_flight` such requests, has its share of the slots, or there is no
    /// link worker.
    pub fn begin_ahead(
        fork: RelFork,
        blocks: &[u32],
        not_modified_since: Lsn,
        in_flight: usize,
    ) -> Option<Ticket> {
        debug_assert!(!blocks.is_empty() && blocks.len() <= MAX_BLOCKS_PER_REQUEST);
        let shared = state();
        if shared.link_gone() || shared.fenced() {
            return None;
        }
        let slot = shared.page_slots.claim_ahead(in_flight)?;
        slot.send(fork, blocks, not_modified_since, Lsn::INVALID);
        Some(Ticket { slot })
    }

    /// Whether the answer is there.
    pub fn is_answered(&self) -> bool {
        matches!(self.slot.state.load(Ordering::SeqCst), DONE | FAILED)
    }

    /// Waits for the answer: the pages of the request's blocks, in their order.
    ///
    /// # Errors
    /// See [`FetchError`]. `out` is unspecified then.
    pub fn collect(self, out: &mut [Page], interrupted: &dyn Fn() -> bool) -> Result<(), FetchError> {
        self.slot.wait(state(), interrupted)?;
        for (page, shared_page) in out.iter_mut().zip(&self.slot.pages) {
            shared_page.load(page);
        }
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let slots = &state().page_slots;
        let slot = self.slot;
        // The worker moves it on from either state meanwhile, never back.
        if slot.advance(REQUESTED, FILLING) || !slot.advance(SERVING, ABANDONED) {
            slots.free(slot);
        }
    }
}

impl PageSlots {
    fn claim(&self, shared: &SharedState, interrupted: &dyn Fn() -> bool) -> Result<&PageSlot, FetchError> {
        let first = std::process::id() as usize % SLOTS;
        loop {
            let freed = self.freed.load(Ordering::SeqCst);
            let mut slots = self.slots[first..].iter().chain(&self.slots[..first]);
            if let Some(slot) = slots.find(|slot| slot.advance(FREE, FILLING)) {
                return Ok(slot);
            }
            leave_if_asked(shared, interrupted)?;
            self.waiting_for_slot.fetch_add(1, Ordering::SeqCst);
            futex::wait(&self.freed, freed, INTERRUPT_POLL);
            self.waiting_for_slot.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// A slot for a request that nobody waits for: never one of those that are kept for the others, and the fewer
    /// are free, the fewer one process gets of them, so that nobody has all.
    fn claim_ahead(&self, in_flight: usize) -> Option<&PageSlot> {
        let slots = &self.slots[KEPT_FOR_WAITERS..];
        let is_free = |slot: &&PageSlot| slot.state.load(Ordering::Relaxed) == FREE;
        let free = slots.iter().filter(is_free).count();
        if in_flight >= free.div_ceil(AHEAD_SHARE) {
            return None;
        }
        slots.iter().find(|slot| slot.advance(FREE, FILLING))
    }

    fn free(&self, slot: &PageSlot) {
        slot.state.store(FREE, Ordering::SeqCst);
        self.freed.fetch_add(1, Ordering::SeqCst);
        if self.waiting_for_slot.load(Ordering::SeqCst) > 0 {
            futex::wake_one(&self.freed);
        }
    }

    /// Worker: takes every request that waits.
    pub fn take_requests(&self) -> Vec<PageRequest> {
        let taken = |(index, slot): (usize, &PageSlot)| {
            let is_requested = slot.state.load(Ordering::SeqCst) == REQUESTED;
            (is_requested && slot.advance(REQUESTED, SERVING))
                .then(|| slot.request(index))
                .flatten()
        };
        self.slots.iter().enumerate().filter_map(taken).collect()
    }

    /// Worker: the request's pages, in the order of its blocks, each of a block's size.
    pub fn complete<'a>(&self, slot: usize, pages: impl Iterator<Item = &'a [u8]>) {
        let slot = &self.slots[slot];
        for (shared_page, page) in slot.pages.iter().zip(pages) {
            shared_page.store(page);
        }
        self.answer(slot, DONE);
    }

    /// Worker: the bits that were asked for.
    pub fn complete_unchanged(&self, slot: usize, unchanged: u128) {
        let slot = &self.slots[slot];
        slot.pages[0].store_bits(unchanged);
        self.answer(slot, DONE);
    }

    /// Worker: the request has failed.
    pub fn fail(&self, slot: usize, message: &str) {
        let slot = &self.slots[slot];
        slot.error.set(message);
        self.answer(slot, FAILED);
    }

    fn answer(&self, slot: &PageSlot, answer: u32) {
        if slot.advance(SERVING, answer) {
            futex::wake_all(&slot.state);
        } else {
            debug_assert_eq!(slot.state.load(Ordering::SeqCst), ABANDONED);
            self.free(slot);
        }
    }
}

impl PageSlot {
    fn advance(&self, from: u32, to: u32) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn fill(&self, fork: RelFork, blocks: &[u32], not_modified_since: Lsn, unchanged_since: Lsn) {
        self.spc.store(fork.rel.spc, Ordering::Relaxed);
        self.db.store(fork.rel.db, Ordering::Relaxed);
        self.rel.store(fork.rel.rel, Ordering::Relaxed);
        self.fork.store(u32::from(fork.fork as u8), Ordering::Relaxed);
        for (to, from) in self.blocks.iter().zip(blocks) {
            to.store(*from, Ordering::Relaxed);
        }
        self.block_count
            .store(u32::try_from(blocks.len()).unwrap_or(0), Ordering::Relaxed);
        self.not_modified_since
            .store(not_modified_since.0, Ordering::Relaxed);
        self.unchanged_since.store(unchanged_since.0, Ordering::Relaxed);
    }

    fn request(&self, slot: usize) -> Option<PageRequest> {
        let count = (self.block_count.load(Ordering::Relaxed) as usize).min(MAX_BLOCKS_PER_REQUEST);
        let fork = u8::try_from(self.fork.load(Ordering::Relaxed)).ok()?;
        let blocks = self.blocks[..count]
            .iter()
            .map(|block| block.load(Ordering::Relaxed));
        let since = Lsn(self.unchanged_since.load(Ordering::Relaxed));
        let wanted = match since.is_valid() {
            true => Asked::Unchanged {
                first_block: self.blocks[0].load(Ordering::Relaxed),
                since,
            },
            false => Asked::Pages(blocks.collect()),
        };
        Some(PageRequest {
            slot,
            fork: RelFork {
                rel: RelFileNode {
                    spc: self.spc.load(Ordering::Relaxed),
                    db: self.db.load(Ordering::Relaxed),
                    rel: self.rel.load(Ordering::Relaxed),
                },
                fork: ForkNumber::from_number(fork)?,
            },
            wanted,
            not_modified_since: Lsn(self.not_modified_since.load(Ordering::Relaxed)),
        })
    }

    /// Fills a slot that was claimed, and wakes the worker.
    fn send(&self, fork: RelFork, blocks: &[u32], not_modified_since: Lsn, unchanged_since: Lsn) {
        self.fill(fork, blocks, not_modified_since, unchanged_since);
        self.state.store(REQUESTED, Ordering::SeqCst);
        state().wake_page_thread();
    }

    /// Until it is answered, or the caller is to leave.
    fn wait(&self, shared: &SharedState, interrupted: &dyn Fn() -> bool) -> Result<(), FetchError> {
        loop {
            let now = self.state.load(Ordering::SeqCst);
            match now {
                DONE => return Ok(()),
                FAILED => {
                    return Err(FetchError::Storage {
                        message: self.error.get(),
                    });
                }
                _ => {}
            }
            leave_if_asked(shared, interrupted)?;
            futex::wait(&self.state, now, INTERRUPT_POLL);
        }
    }
}

fn leave_if_asked(shared: &SharedState, interrupted: &dyn Fn() -> bool) -> Result<(), FetchError> {
    if shared.fenced() {
        return Err(FetchError::Fenced {
            message: shared.link_message.get(),
        });
    }
    if shared.link_gone() {
        return Err(FetchError::LinkGone);
    }
    if interrupted() {
        return Err(FetchError::Interrupted);
    }
    postmaster_death::die_with_postmaster();
    Ok(())
}
