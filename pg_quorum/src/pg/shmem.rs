//! The extension's block of PostgreSQL's shared memory.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;

use crate::shared::SharedState;

const NAME: &std::ffi::CStr = c"pg_quorum";

static STATE: AtomicPtr<SharedState> = AtomicPtr::new(null_mut());

/// Asks for the space. In `shmem_request_hook`.
pub fn request() {
    // SAFETY: called in the postmaster from shmem_request_hook, the place for it.
    unsafe { pg_sys::RequestAddinShmemSpace(size_of::<SharedState>()) }
}

/// Makes the block, all zeros, in `shmem_startup_hook`: at the postmaster's start and again at each crash
/// restart, when the old block is gone.
pub fn create() {
    let mut found = false;
    // SAFETY: shmem_startup_hook runs in the postmaster with shared memory in place. The block is
    // cache-line aligned (ShmemAlloc), SharedState needs no more (asserted below) and consists of atomics
    // and plain padding, for which zeros are valid.
    let state = unsafe {
        let state = pg_sys::ShmemInitStruct(NAME.as_ptr(), size_of::<SharedState>(), &raw mut found);
        if !found {
            std::ptr::write_bytes(state.cast::<u8>(), 0, size_of::<SharedState>());
        }
        state.cast::<SharedState>()
    };
    STATE.store(state, Ordering::Release);
}

const _: () = assert!(align_of::<SharedState>() <= 128);

/// The block, `None` where shared memory was never set up (`postgres -C`, single-user tools).
pub fn state() -> Option<&'static SharedState> {
    // SAFETY: set by `create` to a block that lives as long as the server's shared memory; children
    // inherit mapping and pointer. The postmaster replaces it at a crash restart and keeps no reference
    // over it.
    unsafe { STATE.load(Ordering::Acquire).as_ref() }
}
