//! What the link worker and the attach ask of the server around them.

use std::path::PathBuf;

use pg_quorum_types::Lsn;
use pgrx::pg_sys;

/// End of the WAL that has been written to segment files (`GetXLogWriteRecPtr`); zero before the startup
/// process has found the end of the log.
pub fn written_lsn() -> Lsn {
    // SAFETY: reads shared memory under a spinlock; raises nothing.
    Lsn(unsafe { pg_sys::GetXLogWriteRecPtr() })
}

/// PGDATA, absolute.
pub fn data_directory() -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: DataDir is set once, before any library is loaded, to a string that stays.
    let bytes = unsafe { std::ffi::CStr::from_ptr(pg_sys::DataDir) }.to_bytes();
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// The port that the server listens on.
pub fn port() -> i32 {
    // SAFETY: a plain setting.
    unsafe { pg_sys::PostPortNumber }
}

/// How many sessions and database workers there are, walsenders not counted: whoever may still need the
/// VDL to move.
pub fn ordinary_backends() -> usize {
    // SAFETY: takes ProcArrayLock shared and counts; the walsender slots' pids are read as pg_stat_get_wal_senders
    // does, a stale one only delays the answer.
    unsafe {
        let all = usize::try_from(pg_sys::CountDBBackends(pg_sys::InvalidOid)).unwrap_or(0);
        let slots = usize::try_from(pg_sys::max_wal_senders).unwrap_or(0);
        let walsenders = (*pg_sys::WalSndCtl).walsnds.as_ptr();
        let sending = (0..slots)
            .filter(|slot| std::ptr::read_volatile(&raw const (*walsenders.add(*slot)).pid) != 0)
            .count();
        all.saturating_sub(sending)
    }
}

/// Whether the postmaster itself is stopping (`PM_STATUS_STOPPING` in its lock file): a signal that somebody sent
/// to one process by hand is no shutdown.
pub fn is_stopping() -> bool {
    const STATUS_LINE: usize = 7;
    let lock_file = std::fs::read_to_string(data_directory().join("postmaster.pid")).unwrap_or_default();
    lock_file
        .lines()
        .nth(STATUS_LINE)
        .is_some_and(|status| status.trim() == "stopping")
}

/// Asks the postmaster for an immediate shutdown.
pub fn stop_immediately() {
    // SAFETY: the postmaster is this process's parent and lives, or the signal goes nowhere.
    unsafe {
        libc::kill(pg_sys::PostmasterPid, libc::SIGQUIT);
    }
}

/// Ends this process without the server's exit callbacks, in a way that makes the postmaster restart
/// everything: what a worker does that cannot go on.
pub fn crash() -> ! {
    std::process::abort()
}

/// `CATALOG_VERSION_NO` of the server that this library was built for and runs in.
pub fn catalog_version() -> u32 {
    pg_sys::CATALOG_VERSION_NO
}
