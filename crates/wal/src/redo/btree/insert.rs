//! Insertion without a split (nbtxlog.c `btree_xlog_insert`, 15.18).

use super::page::{BTP_INCOMPLETE_SPLIT, BtreePage};
use super::tuple;
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::PageLayout;
use crate::{BlockRef, Page, Record};

/// Block 0, a simple insertion.
pub(super) fn item(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let offset = Fields::new(record.main).u16()?;
    page.add_index_item(offset, block.data)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 0, an insertion whose heap TID falls inside the posting list in front of it.
///
/// The record has the item as it was wanted; it trades its TID for the highest one of the list.
pub(super) fn item_that_splits_a_posting_list(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let offset = Fields::new(record.main).u16()?;
    let mut data = Fields::new(block.data);
    let split_at = usize::from(data.u16()?);
    let wanted = data.rest();
    let posting = page.item_mut(offset.saturating_sub(1))?;
    let tid = tuple::swap_posting(posting, split_at, tuple::plain_tid(wanted)?)?;
    let at = page.add_index_item(offset, wanted)?;
    page.bytes_mut(at, tid.len())?.copy_from_slice(&tid);
    page.set_lsn(record.end);
    Ok(())
}

/// `_bt_clear_incomplete_split`: the child whose downlink was inserted.
pub(super) fn finish_child_split(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut child = BtreePage::of(page)?;
    child.set_flags(child.flags() & !BTP_INCOMPLETE_SPLIT);
    page.set_lsn(record.end);
    Ok(())
}
