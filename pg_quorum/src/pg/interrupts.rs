//! Cancel and termination, where a hook waits.

use pgrx::pg_sys;

/// Whether somebody wants the caller to leave and the caller may: no held-off interrupts, no critical section.
/// Looks at flags only, so no barrier is processed and nothing is raised.
pub fn may_leave() -> bool {
    // SAFETY: plain flags of this process, which signal handlers set.
    unsafe {
        let is_wanted = (&raw const pg_sys::ProcDiePending).read_volatile() != 0
            || ((&raw const pg_sys::QueryCancelPending).read_volatile() != 0
                && pg_sys::QueryCancelHoldoffCount == 0);
        is_wanted && pg_sys::InterruptHoldoffCount == 0 && pg_sys::CritSectionCount == 0
    }
}

/// Leaves with the ERROR or FATAL that the pending interrupt asks for (`ProcessInterrupts`, `postgres.c`
/// 15.18, which raises it before it would come to a barrier). Returns if the interrupt has vanished.
pub fn leave() {
    // SAFETY: on the main thread; an ERROR becomes an unwinding panic at pgrx's border.
    unsafe {
        if may_leave() {
            pg_sys::ProcessInterrupts();
        }
    }
}

/// PostgreSQL's `CHECK_FOR_INTERRUPTS`: everything, barriers included. Only where a statement could be at any
/// time, not below the buffer manager.
pub fn process() {
    // SAFETY: on the main thread; an ERROR becomes an unwinding panic at pgrx's border.
    unsafe { pg_sys::ProcessInterrupts() }
}
