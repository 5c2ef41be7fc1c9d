//! What redo does with a block before the record's own change (xlogutils.c, 15.18).

use super::error::RedoFault;
use super::page::PageLayout;
use crate::{Page, Record};

/// `XLogRedoAction` without the case of a restored image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlockRedo {
    /// `BLK_NEEDS_REDO`.
    Needed,
    /// `BLK_DONE`: the page bears this record's LSN or a later one already.
    Done,
}

/// `XLogReadBufferForRedo` in mode `RBM_NORMAL`.
///
/// PostgreSQL notes a page that is missing or all zeros and goes on, in the hope of a later truncation
/// or drop, because it may start from a page of the future. Here records are applied in order from a
/// page of a known LSN, so such a page is an error for whoever asks for it.
pub(crate) fn prepare(record: &Record<'_>, page: &Page) -> Result<BlockRedo, RedoFault> {
    if page.is_new() {
        return Err(RedoFault::NewPage);
    }
    if record.end <= page.lsn() {
        Ok(BlockRedo::Done)
    } else {
        Ok(BlockRedo::Needed)
    }
}

/// Does `change` to a page that needs it (`BLK_NEEDS_REDO`), which then bears the record's LSN.
pub(crate) fn change_if_needed(
    record: &Record<'_>,
    page: &mut Page,
    change: impl FnOnce(&mut Page) -> Result<(), RedoFault>,
) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Needed {
        change(page)?;
        page.set_lsn(record.end);
    }
    Ok(())
}

/// The block that the record refers to by `id` (`XLogRecGetBlockTag`).
pub(crate) fn block_number(record: &Record<'_>, id: u8) -> Result<u32, RedoFault> {
    Ok(record.block(id).ok_or(RedoFault::MissingBlock { id })?.block)
}
