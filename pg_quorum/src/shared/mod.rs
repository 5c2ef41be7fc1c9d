//! What the server's processes share: the link's state, watermarks, page slots, counters.
//!
//! Everything here is made of atomics in one block of PostgreSQL's shared memory; no lock, so that a
//! process that dies anywhere leaves nothing behind that another one would wait for. Backends wake the link
//! worker through two eventfds and sleep on futex words.

mod counters;
mod page_slots;
mod segments;
mod text;
mod wake;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pg_quorum_types::Lsn;

use crate::cache::Tick;
use crate::pg::wait_event::WaitEvent;
use crate::pg::{futex, postmaster_death, shmem};

pub use counters::{Counters, Histogram, add};
pub use page_slots::{Asked, FetchError, MAX_BLOCKS_PER_REQUEST, Page, PageRequest, PageSlots, Ticket};
pub use segments::{SegmentReport, SegmentStats};
pub use text::SharedText;
pub use wake::{create_wakeups, page_wakeup, wal_wakeup};

/// How long a waiter sleeps at most before it looks at its interrupts again, although a signal ends the
/// sleep early: one that arrives just before it does not.
pub const INTERRUPT_POLL: Duration = Duration::from_millis(50);

/// The link worker's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum LinkState {
    /// Not up yet: requests wait.
    Starting = 0,
    Running = 1,
    /// It has shipped everything and left, at shutdown. Whoever needs the storage now talks to it directly.
    Gone = 2,
    /// Another compute has taken the volume. Nothing is acknowledged any more; the server stops.
    Fenced = 3,
}

/// The block in shared memory. All zeros is its initial state.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct SharedState {
    vdl: AtomicU64,
    indexed: AtomicU64,
    /// Counts news of both, and looks that found none; whoever waits for one of them sleeps on it.
    log_generation: AtomicU32,
    log_waiters: AtomicU32,
    epoch: AtomicU64,
    link: AtomicU32,
    give_up_commits: AtomicBool,
    quorum_lost: AtomicBool,
    quorum_lost_since: AtomicU32,
    worker_sleeps: AtomicBool,
    page_thread_sleeps: AtomicBool,
    stop_requested: AtomicBool,
    wal_writes: AtomicU64,
    read_floor: AtomicU64,
    backends_rounds: AtomicU64,
    disk_limit_pages: AtomicU64,
    final_shipping: AtomicU32,
    looks: AtomicU64,
    shipped_to: AtomicU64,
    /// Why commits wait, or who took the volume: for SQL and messages.
    pub link_message: SharedText<512>,
    pub volume: SharedText<40>,
    pub counters: Counters,
    pub segments: SegmentStats,
    pub page_slots: PageSlots,
}

/// The block.
///
/// # Panics
/// In a process without the extension's shared memory: none that runs hooks.
pub fn state() -> &'static SharedState {
    try_state().expect("pg_quorum's shared memory is set up")
}

/// The block, where there is one.
pub fn try_state() -> Option<&'static SharedState> {
    shmem::state()
}

/// How a wait for the VDL or the index ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogWait {
    Reached,
    Interrupted,
    TimedOut,
}

impl SharedState {
    /// The volume durable LSN: what four segments hold. Zero before the attach.
    pub fn vdl(&self) -> Lsn {
        Lsn(self.vdl.load(Ordering::Acquire))
    }

    /// Whoever ships: everything below `vdl` is durable. A lower value than before changes nothing (a process
    /// that has just opened its streams knows less at first).
    pub fn publish_vdl(&self, vdl: Lsn) {
        self.vdl.fetch_max(vdl.0, Ordering::AcqRel);
        self.wake_waiters();
    }

    /// Whoever ships: a write quorum of segments can serve pages up to `indexed`.
    pub fn publish_indexed(&self, indexed: Lsn) {
        if self.indexed.swap(indexed.0, Ordering::AcqRel) != indexed.0 {
            self.wake_waiters();
        }
    }

    fn wake_waiters(&self) {
        self.log_generation.fetch_add(1, Ordering::AcqRel);
        if self.log_waiters.load(Ordering::SeqCst) > 0 {
            futex::wake_all(&self.log_generation);
        }
    }

    /// Bytes of durable WAL that a write quorum of segments cannot serve pages of yet. Zero while they have not said, and
    /// without a quorum: then it is not for them to catch up.
    pub fn unindexed_bytes(&self) -> u64 {
        let indexed = Lsn(self.indexed.load(Ordering::Acquire));
        if !indexed.is_valid() || self.quorum_lost() {
            return 0;
        }
        self.vdl().0.saturating_sub(indexed.0)
    }

    /// Sleeps until the VDL is at or above `lsn`, `interrupted` says true, or `timeout` is over.
    pub fn wait_for_vdl(
        &self,
        lsn: Lsn,
        timeout: Option<Duration>,
        interrupted: &dyn Fn() -> bool,
    ) -> LogWait {
        self.wait_until(|| self.vdl() >= lsn, timeout, interrupted)
    }

    /// The same for the index: until no more than so many bytes are missing in it.
    pub fn wait_for_index(
        &self,
        most_unindexed: u64,
        timeout: Option<Duration>,
        interrupted: &dyn Fn() -> bool,
    ) -> LogWait {
        self.wait_until(|| self.unindexed_bytes() <= most_unindexed, timeout, interrupted)
    }

    fn wait_until(
        &self,
        is_reached: impl Fn() -> bool,
        timeout: Option<Duration>,
        interrupted: &dyn Fn() -> bool,
    ) -> LogWait {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let _waiting = WaitEvent::SyncRep.begin();
        self.log_waiters.fetch_add(1, Ordering::SeqCst);
        let outcome = loop {
            let generation = self.log_generation.load(Ordering::SeqCst);
            if is_reached() {
                break LogWait::Reached;
            }
            if interrupted() {
                break LogWait::Interrupted;
            }
            let left = deadline.map_or(INTERRUPT_POLL, |deadline| {
                deadline
                    .saturating_duration_since(Instant::now())
                    .min(INTERRUPT_POLL)
            });
            if left.is_zero() {
                break LogWait::TimedOut;
            }
            postmaster_death::die_with_postmaster();
            futex::wait(&self.log_generation, generation, left);
        };
        self.log_waiters.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    /// The epoch that this server holds, its number.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn set_epoch(&self, number: u64) {
        self.epoch.store(number, Ordering::Release);
    }

    pub fn link(&self) -> LinkState {
        match self.link.load(Ordering::Acquire) {
            0 => LinkState::Starting,
            1 => LinkState::Running,
            2 => LinkState::Gone,
            _ => LinkState::Fenced,
        }
    }

    pub fn set_link(&self, link: LinkState) {
        self.link.store(link as u32, Ordering::Release);
    }

    /// Whether the link worker has left at shutdown: the caller ships and reads by itself.
    pub fn link_gone(&self) -> bool {
        self.link() == LinkState::Gone
    }

    pub fn fenced(&self) -> bool {
        self.link() == LinkState::Fenced
    }

    /// Whether commits that wait must end without an acknowledgement: a fast shutdown without a quorum has
    /// waited long enough.
    pub fn give_up_commits(&self) -> bool {
        self.give_up_commits.load(Ordering::Acquire)
    }

    pub fn set_give_up_commits(&self) {
        self.give_up_commits.store(true, Ordering::Release);
    }

    /// Whether fewer than four segments answer.
    pub fn quorum_lost(&self) -> bool {
        self.quorum_lost.load(Ordering::Acquire)
    }

    /// When a write quorum was last heard from, if that is too long ago.
    pub fn quorum_lost_since(&self) -> Option<Tick> {
        self.quorum_lost()
            .then(|| Tick(self.quorum_lost_since.load(Ordering::Relaxed)))
    }

    /// The link worker: there has been no quorum since then; `None`: there is one.
    pub fn set_quorum_lost(&self, since: Option<Tick>) {
        if let Some(since) = since {
            self.quorum_lost_since.store(since.0, Ordering::Relaxed);
        }
        self.quorum_lost.store(since.is_some(), Ordering::Release);
    }

    /// After a write to a WAL segment: one atomic add, and a system call only if the link worker sleeps.
    /// Under PostgreSQL's WAL write lock, so no more than that.
    pub fn wake_wal(&self) {
        self.wal_writes.fetch_add(1, Ordering::SeqCst);
        if self.worker_sleeps.swap(false, Ordering::SeqCst)
            && let Some(event) = wal_wakeup()
        {
            event.signal();
        }
    }

    /// After a request was put into a page slot: a system call only if the page thread has not been woken yet.
    pub(crate) fn wake_page_thread(&self) {
        if self.page_thread_sleeps.swap(false, Ordering::SeqCst)
            && let Some(event) = page_wakeup()
        {
            event.signal();
        }
    }

    /// Page thread: it is about to look at the slots and to sleep; the next request wakes it.
    pub fn set_page_thread_sleeps(&self) {
        self.page_thread_sleeps.store(true, Ordering::SeqCst);
    }

    /// How many writes to WAL segments there were.
    pub fn wal_writes(&self) -> u64 {
        self.wal_writes.load(Ordering::SeqCst)
    }

    /// Link worker: it is about to sleep; the next write wakes it through the eventfd. It looks at
    /// `wal_writes` again after this call.
    pub fn set_worker_sleeps(&self, sleeps: bool) {
        self.worker_sleeps.store(sleeps, Ordering::SeqCst);
    }

    /// Link worker: it has looked for whole records behind `shipped_to` and found none.
    pub fn note_look(&self, shipped_to: Lsn) {
        self.shipped_to.store(shipped_to.0, Ordering::SeqCst);
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.wake_waiters();
    }

    /// How often the link worker has found nothing to ship.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }

    /// End of the last record that was shipped, when the link worker looked last.
    pub fn shipped_to(&self) -> Lsn {
        Lsn(self.shipped_to.load(Ordering::SeqCst))
    }

    /// Pages that are fetched are at least of this LSN: no page that is absent locally was changed after it.
    pub fn read_floor(&self) -> Lsn {
        Lsn(self.read_floor.load(Ordering::Acquire))
    }

    /// Raises the floor, after local pages have been dropped or have become invalid at `lsn` (WAL up to
    /// there must have been written).
    pub fn raise_read_floor(&self, lsn: Lsn) {
        self.read_floor.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// Complete rounds over all backends; see [`crate::cache::Ended`].
    pub fn backends_rounds(&self) -> u64 {
        self.backends_rounds.load(Ordering::Acquire)
    }

    /// Link worker: everything that ran when the round began has ended.
    pub fn complete_backends_round(&self) {
        self.backends_rounds.fetch_add(1, Ordering::AcqRel);
    }

    /// Pages of cache that the disk has room for.
    pub fn disk_limit_pages(&self) -> u64 {
        match self.disk_limit_pages.load(Ordering::Relaxed) {
            0 => u64::MAX, // not measured yet
            pages => pages,
        }
    }

    pub fn set_disk_limit_pages(&self, pages: u64) {
        self.disk_limit_pages.store(pages.max(1), Ordering::Relaxed);
    }

    /// The lock among those that ship the last records after the link worker has left: true if the caller
    /// has got it. Whoever held it and died is followed by a crash restart, which clears it.
    pub fn try_lock_final_shipping(&self) -> bool {
        self.final_shipping
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub fn unlock_final_shipping(&self) {
        self.final_shipping.store(0, Ordering::Release);
    }
}
