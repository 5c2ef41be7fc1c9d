//! Writing WAL out.

use pg_quorum_types::Lsn;
use pgrx::pg_sys;

use super::server;

/// Flushes what has been inserted so far; nothing during recovery.
pub fn flush_inserted() {
    // SAFETY: on the main thread, outside of critical sections; every process may flush.
    unsafe {
        if !pg_sys::RecoveryInProgress() {
            pg_sys::XLogFlush(pg_sys::GetXLogInsertEndRecPtr());
        }
    }
}

/// Sees to it that WAL up to `lsn`, a position that has been inserted to, has been written.
pub fn ensure_written(lsn: Lsn) {
    if server::written_lsn() < lsn {
        // SAFETY: as above; a reader may flush, as one that evicts a dirty page does.
        unsafe { pg_sys::XLogFlush(lsn.0) }
    }
}
