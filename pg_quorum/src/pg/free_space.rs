//! Free space maps: how what they know comes into the log.
//!
//! PostgreSQL logs no change of a free space map (freespace.c, 15.18): it is a hint that corrects itself, and vacuum fills
//! it again, but for pages that are visible to all, which vacuum skips. Here a page that was written since it was
//! logged last, which the presence table knows, is logged as an image, by a worker while the server runs and by the
//! link worker at a clean stop.
//!
//! Never where the page is written: that may be inside of another record or in a critical section. And never by the
//! link worker while others run: whoever inserts a record may wait for a lock whose holder waits for the link.
//!
//! Nothing locks the relation meanwhile: it may be dropped before its page is logged. Nodes ignore a page whose relation
//! is gone; a stock standby that replays it would be left with a file that nobody uses. So the page is only read here,
//! never changed: a dirty buffer of a dropped relation could not be written any more.

use pg_quorum_types::{BLOCK_SIZE, ForkNumber as Fork, RelFork};
use pgrx::pg_sys::{self, BufferGetPage, ForkNumber};

use super::buffers::{dirty_pages, file_node, without_transaction};
use super::presence_file::table;
use crate::shared;

/// `PageIsNew` looks at words of it.
#[repr(align(8))]
struct PageCopy([u8; BLOCK_SIZE]);

/// Where `pd_upper` is, which is zero on a page that was never made.
const AT_UPPER: usize = 14;

/// The pages that files have and the log does not.
pub fn written() -> impl Iterator<Item = (RelFork, u32)> {
    table().unlogged_free_space()
}

/// With those that only shared buffers have. When nobody else changes pages any more.
pub fn written_and_dirty() -> impl Iterator<Item = (RelFork, u32)> {
    // The buffers come first: what is written meanwhile is in the table before its buffer is clean.
    let dirty: Vec<_> = dirty_pages()
        .filter(|(fork, _)| fork.fork == Fork::FreeSpaceMap)
        .collect();
    dirty.into_iter().chain(written())
}

/// Logs a page of a free space map as it is now; nothing if it is gone, was never filled, or is of an unlogged relation.
///
/// # Errors
/// PostgreSQL's message, if the page cannot be read. It is not tried again before it is written again.
pub fn log_as_it_is(fork: RelFork, block: u32) -> Result<(), String> {
    // SAFETY: on the main thread of a process with a PGPROC.
    let outcome = without_transaction(|| unsafe { log_page(fork, block) });
    if outcome.is_err() {
        table().note_logged(fork, block);
    }
    // No invalidation reaches this process: a file that it held open could be another relation's by the next time.
    // SAFETY: closes what this process has opened.
    unsafe { pg_sys::smgrcloseall() }
    if outcome? {
        shared::add(&shared::state().counters.free_space_pages_logged, 1);
    }
    Ok(())
}

/// # Safety
/// In [`without_transaction`], which takes errors.
unsafe fn log_page(fork: RelFork, block: u32) -> bool {
    let mut page = PageCopy([0; BLOCK_SIZE]);
    let mut rnode = file_node(fork.rel);
    // SAFETY: smgr and buffer manager calls in their usual order; the record is of a copy, so that neither lock nor pin
    // is held where the log may have to wait for the quorum.
    unsafe {
        if !read_page(rnode, fork, block, &mut page) || page.0[AT_UPPER..][..2] == [0, 0] {
            return false;
        }
        // Mostly zeros, or all the same.
        pg_sys::wal_compression = pg_sys::WalCompression::WAL_COMPRESSION_PGLZ as i32;
        // Not a standard page: what looks like its hole is the map.
        let copy = page.0.as_mut_ptr().cast();
        pg_sys::log_newpage(&raw mut rnode, ForkNumber::FSM_FORKNUM, block, copy, false);
    }
    true
}

/// False: it is not to be logged.
///
/// # Safety
/// As [`log_page`].
unsafe fn read_page(rnode: pg_sys::RelFileNode, fork: RelFork, block: u32, page: &mut PageCopy) -> bool {
    let number = ForkNumber::FSM_FORKNUM;
    // SAFETY: as `log_page`; lock and pin end below.
    unsafe {
        let reln = pg_sys::smgropen(rnode, pg_sys::InvalidBackendId);
        let exists = pg_sys::smgrexists(reln, number) && block < pg_sys::smgrnblocks(reln, number);
        if !exists || pg_sys::smgrexists(reln, ForkNumber::INIT_FORKNUM) {
            table().note_logged(fork, block);
            return false;
        }
        let mode = pg_sys::ReadBufferMode::RBM_NORMAL;
        let strategy = std::ptr::null_mut();
        let buffer = pg_sys::ReadBufferWithoutRelcache(rnode, number, block, mode, strategy, true);
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
        // Before the copy: whoever writes a later state of the page says so after this.
        table().note_logged(fork, block);
        std::ptr::copy_nonoverlapping(
            BufferGetPage(buffer).cast::<u8>(),
            page.0.as_mut_ptr(),
            BLOCK_SIZE,
        );
        pg_sys::UnlockReleaseBuffer(buffer);
    }
    true
}
