//! The commit window: from the decision to commit to the transaction's end no cancel or termination ends the
//! wait for the quorum.
//!
//! `SyncRepWaitForLSN` (`syncrep.c` 15.18) gives up, with a warning, when it finds `QueryCancelPending` or
//! `ProcDiePending`. Inside the window the two signals that set them are noted instead, and raised again at its
//! end. Two things still end the wait: an immediate shutdown, and a fast one that has waited long enough for a
//! quorum that is away (`give_up_commits`): then the termination goes through, with the session's output shut
//! off, so that nothing is acknowledged.
//!
//! ```text
//!   PRE_COMMIT ── commit record ── local flush ── wait ── COMMIT (visible)
//!   '------------------------ window ------------------------'
//! ```

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use pgrx::pg_guard;
use pgrx::pg_sys::{self, SyncCommitLevel, XactEvent};

use super::{config, interrupts, read_ahead, utility};
use crate::shared;

const SIGNALS: [c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// `SYNC_REP_WAITING` (`syncrep.h` 15.18).
const SYNC_REP_WAITING: c_int = 1;

static IN_WINDOW: AtomicBool = AtomicBool::new(false);
/// Signals that came inside the window, in the order of [`SIGNALS`].
static NOTED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
/// The handlers that ours stands before, as addresses.
static HANDLERS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

thread_local! {
    /// `synchronous_commit` as the session has it, while the window uses another value.
    static SESSION_LEVEL: Cell<Option<c_int>> = const { Cell::new(None) };
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static MUST_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Once, in the postmaster; its children inherit the registration.
pub fn register() {
    // SAFETY: in _PG_init; the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_event), std::ptr::null_mut()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_event(event: XactEvent::Type, _argument: *mut c_void) {
    match event {
        XactEvent::XACT_EVENT_PRE_COMMIT => {
            utility::before_commit();
            open_window(if MUST_WAIT.get() {
                Waits::Always
            } else {
                Waits::AsSet
            });
        }
        XactEvent::XACT_EVENT_PRE_PREPARE => open_window(Waits::Always),
        XactEvent::XACT_EVENT_COMMIT | XactEvent::XACT_EVENT_PREPARE => {
            count_wait();
            close_window();
            read_ahead::give_up();
            utility::after_commit();
        }
        XactEvent::XACT_EVENT_ABORT => {
            close_window();
            read_ahead::give_up();
            utility::after_abort();
        }
        XactEvent::XACT_EVENT_PARALLEL_COMMIT | XactEvent::XACT_EVENT_PARALLEL_ABORT => read_ahead::give_up(),
        _ => {}
    }
}

/// Whether `synchronous_commit = off` lets a commit go without a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    AsSet,
    /// Stock PostgreSQL flushes in any case: both phases of two-phase commit (`EndPrepare`,
    /// `RecordTransactionCommitPrepared`), and what calls `ForceSyncCommit`. Here a flush makes nothing durable.
    Always,
}

/// This transaction runs a command that calls `ForceSyncCommit`.
pub fn wait_at_commit() {
    MUST_WAIT.set(true);
}

/// Opens the window. What is pending already is honoured now, while the transaction can still abort, if the
/// caller may be interrupted; otherwise it is noted.
pub fn open_window(waits: Waits) {
    stand_before_handlers();
    IN_WINDOW.store(true, Ordering::SeqCst);
    interrupts::leave();
    for (noted, pending) in NOTED.iter().zip(take_pending()) {
        if pending {
            noted.store(true, Ordering::SeqCst);
        }
    }
    raise_commit_level(waits);
    // SAFETY: reads this process's transaction state.
    let has_xid = unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId;
    SINCE.set(has_xid.then(Instant::now));
}

/// Closes the window, if one is open, and raises again what was noted.
pub fn close_window() {
    MUST_WAIT.set(false);
    if !IN_WINDOW.swap(false, Ordering::SeqCst) {
        return;
    }
    if let Some(level) = SESSION_LEVEL.take() {
        set_commit_level(level);
    }
    for (index, noted) in NOTED.iter().enumerate() {
        if noted.swap(false, Ordering::SeqCst) {
            call_handler(index);
        }
    }
}

fn count_wait() {
    if let Some(since) = SINCE.take()
        && let Some(shared) = shared::try_state()
    {
        shared::add(&shared.counters.commit_waits, 1);
        shared.counters.commit_wait.record(since.elapsed());
    }
}

/// `local` counts as `on`, because the local log is not durable; so does `off` in logical-replication apply
/// workers, which report positions upstream as durable.
fn raise_commit_level(waits: Waits) {
    // SAFETY: a plain variable of this process.
    let level = unsafe { pg_sys::synchronous_commit };
    // SAFETY: reads this process's kind.
    let is_apply_worker = unsafe { pg_sys::IsLogicalWorker() };
    let is_too_low = match level.cast_unsigned() {
        SyncCommitLevel::SYNCHRONOUS_COMMIT_LOCAL_FLUSH => true,
        SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF => is_apply_worker || waits == Waits::Always,
        _ => false,
    };
    if is_too_low && is_apply_worker {
        // For good: it also ends prepared transactions, outside of any transaction's own end. Its subscription's
        // setting comes with a lower priority (`maybe_reread_subscription`, `worker.c` 15.18).
        config::set_for_session("synchronous_commit", "on");
    } else if is_too_low {
        SESSION_LEVEL.set(Some(level));
        set_commit_level(SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_FLUSH.cast_signed());
    }
}

/// The variable, and what its assign hook derives from it (`SyncRepWaitMode`).
fn set_commit_level(level: c_int) {
    // SAFETY: a plain variable of this process and the hook that belongs to it; a valid level.
    unsafe {
        pg_sys::synchronous_commit = level;
        pg_sys::assign_synchronous_commit(level, std::ptr::null_mut());
    }
}

/// The pending flags of SIGINT and SIGTERM, cleared.
fn take_pending() -> [bool; 2] {
    // SAFETY: flags of this process that its signal handlers set; our handler notes signals from here on.
    unsafe {
        let pending = [
            (&raw const pg_sys::QueryCancelPending).read_volatile() != 0,
            (&raw const pg_sys::ProcDiePending).read_volatile() != 0,
        ];
        (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        (&raw mut pg_sys::ProcDiePending).write_volatile(0);
        pending
    }
}

/// Puts our handler before the process's own, where it is not there yet: processes set theirs at different
/// times, some of them anew.
fn stand_before_handlers() {
    let ours = note_signal as extern "C" fn(c_int) as usize;
    for (signal, handler) in SIGNALS.into_iter().zip(&HANDLERS) {
        // SAFETY: plain system calls on structs of ours. Our handler calls the one that it replaces, with the
        // mask and the flags that were set with it.
        unsafe {
            let mut action = std::mem::zeroed::<libc::sigaction>();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            if [ours, libc::SIG_IGN, libc::SIG_DFL].contains(&action.sa_sigaction) {
                continue;
            }
            handler.store(action.sa_sigaction, Ordering::SeqCst);
            action.sa_sigaction = ours;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// A signal handler: atomics, and the process's own handler.
extern "C" fn note_signal(signal: c_int) {
    let Some(index) = SIGNALS.iter().position(|known| *known == signal) else {
        return;
    };
    if IN_WINDOW.load(Ordering::SeqCst) || is_waiting() {
        let gives_up = shared::try_state().is_some_and(shared::SharedState::give_up_commits);
        if signal != libc::SIGTERM || !gives_up {
            NOTED[index].store(true, Ordering::SeqCst);
            return;
        }
        give_up_waiting();
        return;
    }
    call_handler(index);
}

/// Ends the wait as a termination does, whatever the process makes of SIGTERM otherwise: a background worker's own
/// handler may only note it, or end the process in the middle of its commit. In a signal handler.
fn give_up_waiting() {
    // SAFETY: plain variables of this process that its signal handlers set, and its own latch; from here on nothing
    // reaches the client.
    unsafe {
        pg_sys::whereToSendOutput = pg_sys::CommandDest::DestNone;
        (&raw mut pg_sys::ProcDiePending).write_volatile(1);
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
        unguarded::SetLatch(pg_sys::MyLatch);
    }
}

/// PostgreSQL's functions without pgrx's guard, which is not for signal handlers.
mod unguarded {
    use super::pg_sys;

    unsafe extern "C-unwind" {
        pub fn SetLatch(latch: *mut pg_sys::Latch);
    }
}

/// Whether this process stands in the synchronous-replication queue: also outside of the window, as apply workers
/// do when they end a prepared transaction.
fn is_waiting() -> bool {
    // SAFETY: reads this process's own entry in shared memory, once it has one.
    unsafe { !pg_sys::MyProc.is_null() && (*pg_sys::MyProc).syncRepState == SYNC_REP_WAITING }
}

fn call_handler(index: usize) {
    let handler = HANDLERS[index].load(Ordering::SeqCst);
    if handler == 0 {
        return;
    }
    // SAFETY: the address came from sigaction as this signal's handler. Not SA_SIGINFO: PostgreSQL's pqsignal
    // does not use it.
    unsafe {
        let handler = std::mem::transmute::<usize, extern "C-unwind" fn(c_int)>(handler);
        handler(SIGNALS[index]);
    }
}
