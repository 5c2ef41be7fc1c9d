//! The copy of `pg_control` in shared memory.

use pgrx::pg_sys;

/// Bytes of `ControlFileData`, PostgreSQL 15.
pub const CONTROL_FILE_BYTES: usize = size_of::<pg_sys::ControlFileData>();

/// Replaces the postmaster's copy, from which the startup process takes the state of the cluster. In
/// `shmem_startup_hook`, when nobody else runs: `XLOGShmemInit` (xlog.c, 15.18) has filled it from the file as
/// it was before the attach.
pub fn publish(content: &[u8; CONTROL_FILE_BYTES]) {
    let mut found = false;
    // SAFETY: XLOGShmemInit has made the struct under this name with this size before the hook runs; the
    // bytes come from a file that was written with the same layout (version and checksum were compared).
    unsafe {
        let shared = pg_sys::ShmemInitStruct(c"Control File".as_ptr(), CONTROL_FILE_BYTES, &raw mut found);
        assert!(found, "the struct \"Control File\" exists at shared memory start");
        std::ptr::copy_nonoverlapping(content.as_ptr(), shared.cast::<u8>(), CONTROL_FILE_BYTES);
    }
}
