//! Writing WAL out.

use pgrx::pg_sys;

/// Flushes what has been inserted so far; nothing during recovery.
pub fn flush_inserted() {
    // SAFETY: on the main thread, outside of critical sections; every process may flush.
    unsafe {
        if !pg_sys::RecoveryInProgress() {
            pg_sys::XLogFlush(pg_sys::GetXLogInsertEndRecPtr());
        }
    }
}
