//! Shared buffers, for processes that run no transactions.

use std::panic::AssertUnwindSafe;

use pg_quorum_types::{ForkNumber as Fork, RelFileNode, RelFork};
use pgrx::PgTryBuilder;
use pgrx::pg_sys::{self, panic::CaughtError};

const _: () = assert!(size_of::<pg_sys::BufferDescPadded>() == 64);

/// The pages of permanent relations that shared buffers hold and no file has. It is for the caller to look again: a tag
/// that changes while it is read names another page.
pub fn dirty_pages() -> impl Iterator<Item = (RelFork, u32)> {
    const WANTED: u32 = pg_sys::BM_VALID | pg_sys::BM_TAG_VALID | pg_sys::BM_DIRTY | pg_sys::BM_PERMANENT;
    // SAFETY: a plain variable, fixed when shared memory is made.
    let count = usize::try_from(unsafe { pg_sys::NBuffers }).unwrap_or(0);
    (0..count).filter_map(|index| {
        // SAFETY: NBuffers descriptors of 64 bytes each exist in shared memory.
        let (state, tag) = unsafe {
            let descriptor = &raw const (*pg_sys::BufferDescriptors.add(index)).bufferdesc;
            (
                std::ptr::read_volatile(&raw const (*descriptor).state.value),
                std::ptr::read_volatile(&raw const (*descriptor).tag),
            )
        };
        let fork = u8::try_from(tag.forkNum).ok().and_then(Fork::from_number);
        let fork = fork.filter(|_| state & WANTED == WANTED)?;
        let rel = RelFileNode {
            spc: tag.rnode.spcNode.to_u32(),
            db: tag.rnode.dbNode.to_u32(),
            rel: tag.rnode.relNode.to_u32(),
        };
        Some((RelFork { rel, fork }, tag.blockNum))
    })
}

/// The same name in PostgreSQL's words.
pub fn file_node(rel: RelFileNode) -> pg_sys::RelFileNode {
    pg_sys::RelFileNode {
        spcNode: rel.spc.into(),
        dbNode: rel.db.into(),
        relNode: rel.rel.into(),
    }
}

/// Runs `work`, which may lock and pin buffers, in a process without transactions. An ERROR leaves nothing locked or
/// pinned, and comes back as its message. `work` holds nothing that needs dropping.
///
/// # Errors
/// PostgreSQL's message.
pub fn without_transaction<T>(work: impl Fn() -> T) -> Result<T, String> {
    own_resources();
    PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
        .catch_others(|error| {
            // SAFETY: what an aborted transaction would do.
            unsafe {
                pg_sys::LWLockReleaseAll();
                pg_sys::UnlockBuffers();
                pg_sys::ReleaseAuxProcessResources(false);
            }
            Err(match error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                    report.message().to_owned()
                }
                CaughtError::RustPanic { .. } => "an assertion has failed".to_owned(),
            })
        })
        .execute()
}

/// Pins are kept in a resource owner of the process's own, made once.
fn own_resources() {
    // SAFETY: plain pointers of this process; the owner is released by an exit callback that it registers.
    unsafe {
        if pg_sys::CurrentResourceOwner.is_null() {
            pg_sys::CreateAuxProcessResourceOwner();
        }
    }
}
