//! Sequences that are ahead of the log, and how a clean stop catches up.
//!
//! `nextval` logs a sequence 32 values ahead (`nextval_internal`, sequence.c, 15.18) and hands values out of that
//! range on the page alone. After a crash the log's value counts, as with a stock server. At a clean stop the page's
//! own value is logged, the way `do_setval` does it, so that the next start, wherever it is, goes on without a gap.

use std::collections::BTreeSet;

use pg_quorum_types::{BLOCK_SIZE, ForkNumber as Fork, Lsn, RelFileNode};
use pgrx::pg_sys::{self, ForkNumber};

use super::buffers::{dirty_pages, file_node, without_transaction};
use super::presence_file::table;
use crate::cache::{SEQUENCE_MAGIC, SEQUENCE_SPECIAL_BYTES};

/// `XLOG_SEQ_LOG`.
const XLOG_SEQ_LOG: u8 = 0;

const _: () = assert!(size_of::<pg_sys::RelFileNode>() == 12);

/// Where the parts of a sequence's one tuple are on its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SequencePage {
    tuple_at: usize,
    tuple_bytes: usize,
    /// `FormData_pg_sequence_data.log_cnt`: how many values of the logged range are left.
    log_count_at: usize,
}

/// Finds its way on a page that may be anything; `None` if it is no sequence's.
fn parse(page: &[u8; BLOCK_SIZE]) -> Option<SequencePage> {
    let u16_at = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            page.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let u32_at = |at: usize| Some(u32::from_le_bytes(page.get(at..at + 4)?.try_into().ok()?));
    let (lower, special) = (u16_at(12)?, u16_at(16)?);
    if special != BLOCK_SIZE - SEQUENCE_SPECIAL_BYTES || u32_at(special)? != SEQUENCE_MAGIC || lower != 24 + 4
    {
        return None;
    }
    let line_pointer = u32_at(24)?;
    let tuple_at = (line_pointer & 0x7FFF) as usize;
    let tuple_bytes = (line_pointer >> 17) as usize;
    // last_value int8, log_cnt int8, is_called bool
    let data_at = tuple_at + usize::from(*page.get(tuple_at + 22)?);
    let is_inside = data_at + 8 + 8 < tuple_at + tuple_bytes && tuple_at + tuple_bytes <= special;
    is_inside.then_some(SequencePage {
        tuple_at,
        tuple_bytes,
        log_count_at: data_at + 8,
    })
}

/// Whether `page` is a sequence's, and is not what its last log record says.
pub fn is_ahead_of_log(page: &[u8; BLOCK_SIZE]) -> bool {
    parse(page).is_some_and(|sequence| page[sequence.log_count_at..][..8] != [0; 8])
}

/// Relations that may be sequences ahead of the log: what the local page cache has of them, and every first block
/// in shared buffers that is dirty. When nobody else changes pages any more.
pub fn candidates() -> BTreeSet<RelFileNode> {
    // The buffers come first: what is written meanwhile is in the table before its buffer is clean.
    let dirty = dirty_pages().filter(|(fork, block)| fork.fork == Fork::Main && *block == 0);
    let mut found: BTreeSet<RelFileNode> = dirty.map(|(fork, _)| fork.rel).collect();
    let written = table().ahead_of_log().filter(|fork| fork.fork == Fork::Main);
    found.extend(written.map(|fork| fork.rel));
    found
}

/// Logs the sequence `rel` as its page has it; nothing if it is none, or is not ahead. True if it wrote a record.
///
/// # Errors
/// PostgreSQL's message, if the page cannot be read.
pub fn log_as_it_is(rel: RelFileNode) -> Result<bool, String> {
    // SAFETY: on the main thread of a process with a PGPROC.
    without_transaction(|| unsafe { log_page(rel) })
}

/// # Safety
/// In [`without_transaction`], which takes errors.
unsafe fn log_page(rel: RelFileNode) -> bool {
    let rnode = file_node(rel);
    // SAFETY: smgr and buffer manager calls in their usual order; the lock and the pin end below. Between the two
    // critical-section counts nothing raises: the record's memory was reserved when the process started.
    unsafe {
        let reln = pg_sys::smgropen(rnode, pg_sys::InvalidBackendId);
        let exists = pg_sys::smgrexists(reln, ForkNumber::MAIN_FORKNUM)
            && pg_sys::smgrnblocks(reln, ForkNumber::MAIN_FORKNUM) == 1;
        if !exists || pg_sys::smgrexists(reln, ForkNumber::INIT_FORKNUM) {
            return false;
        }
        let mode = pg_sys::ReadBufferMode::RBM_NORMAL;
        let strategy = std::ptr::null_mut();
        let buffer =
            pg_sys::ReadBufferWithoutRelcache(rnode, ForkNumber::MAIN_FORKNUM, 0, mode, strategy, true);
        pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32);
        let page = &mut *pg_sys::BufferGetPage(buffer).cast::<[u8; BLOCK_SIZE]>();
        let sequence = parse(page).filter(|_| is_ahead_of_log(page));
        if let Some(sequence) = sequence {
            pg_sys::CritSectionCount += 1;
            pg_sys::MarkBufferDirty(buffer);
            page[sequence.log_count_at..][..8].fill(0);
            pg_sys::XLogBeginInsert();
            pg_sys::XLogRegisterBuffer(0, buffer, pg_sys::REGBUF_WILL_INIT as u8);
            let mut header = rnode;
            pg_sys::XLogRegisterData((&raw mut header).cast(), size_of_val(&header) as i32);
            let tuple = page[sequence.tuple_at..].as_mut_ptr().cast();
            pg_sys::XLogRegisterData(tuple, sequence.tuple_bytes as i32);
            let end = pg_sys::XLogInsert(pg_sys::RmgrIds::RM_SEQ_ID as u8, XLOG_SEQ_LOG);
            set_lsn(page, Lsn(end));
            pg_sys::CritSectionCount -= 1;
        }
        pg_sys::UnlockReleaseBuffer(buffer);
        sequence.is_some()
    }
}

/// `PageSetLSN`: the high half first.
fn set_lsn(page: &mut [u8; BLOCK_SIZE], lsn: Lsn) {
    page[..4].copy_from_slice(&((lsn.0 >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn.0 as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page as `fill_seq_with_data` makes it.
    fn sequence_page(log_count: u64) -> [u8; BLOCK_SIZE] {
        let mut page = [0; BLOCK_SIZE];
        let (tuple_at, tuple_bytes) = (BLOCK_SIZE - SEQUENCE_SPECIAL_BYTES - 48, 41u32);
        page[12..14].copy_from_slice(&28u16.to_le_bytes());
        page[14..16].copy_from_slice(&(tuple_at as u16).to_le_bytes());
        page[16..18].copy_from_slice(&((BLOCK_SIZE - SEQUENCE_SPECIAL_BYTES) as u16).to_le_bytes());
        page[24..28].copy_from_slice(&(tuple_at as u32 | 1 << 15 | tuple_bytes << 17).to_le_bytes());
        page[tuple_at + 22] = 24;
        page[tuple_at + 24..][..8].copy_from_slice(&7u64.to_le_bytes());
        page[tuple_at + 32..][..8].copy_from_slice(&log_count.to_le_bytes());
        page[BLOCK_SIZE - SEQUENCE_SPECIAL_BYTES..][..4].copy_from_slice(&SEQUENCE_MAGIC.to_le_bytes());
        page
    }

    #[test]
    fn a_sequence_is_ahead_while_logged_values_are_left() {
        assert!(is_ahead_of_log(&sequence_page(5)));
        assert!(!is_ahead_of_log(&sequence_page(0)));
    }

    #[test]
    fn other_and_damaged_pages_are_no_sequences() {
        assert!(!is_ahead_of_log(&[0; BLOCK_SIZE]));
        assert!(!is_ahead_of_log(&[0xFF; BLOCK_SIZE]));
        for at in [12, 16, 24, 27, BLOCK_SIZE - SEQUENCE_SPECIAL_BYTES] {
            let mut page = sequence_page(5);
            page[at] ^= 0x41;
            assert!(!is_ahead_of_log(&page), "byte {at}");
        }
    }
}
