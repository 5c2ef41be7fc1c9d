//! Tuples of bucket and overflow pages (hash_xlog.c, 15.18).

use super::page::{HashPage, LH_PAGE_HAS_DEAD_TUPLES};
use crate::redo::block::change_if_needed;
use crate::redo::compact::delete_index_items;
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple::take_aligned;
use crate::redo::page::PageLayout;
use crate::{BlockRef, Page, Record};

/// `hash_xlog_insert`, block 0.
pub(super) fn insert(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let offset = Fields::new(record.main).u16()?;
        page.add_index_item(offset, block.data)?;
        Ok(())
    })
}

/// `hash_xlog_move_page_contents`, block 1: tuples that come from a later page of the bucket.
pub(super) fn add_moved(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        add_tuples(page, block.data, Fields::new(record.main).u16()?)
    })
}

/// `hash_xlog_move_page_contents`, block 2: they leave that page.
pub(super) fn delete_moved(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| delete_tuples(page, block.data))
}

/// `hash_xlog_delete`, block 1.
pub(super) fn delete(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let clears_dead_mark = Fields::new(record.main).bool()?;
        delete_tuples(page, block.data)?;
        if clears_dead_mark {
            HashPage::of(page)?.clear_flags(LH_PAGE_HAS_DEAD_TUPLES);
        }
        Ok(())
    })
}

/// `hash_xlog_vacuum_one_page`, block 0.
pub(super) fn vacuum(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let mut fields = Fields::new(record.main);
        let _latest_removed_xid = fields.u32()?;
        let count = fields.u32()? as usize;
        if fields.remaining() > 0 {
            delete_index_items(page, fields.u16_array(count)?)?;
        }
        HashPage::of(page)?.clear_flags(LH_PAGE_HAS_DEAD_TUPLES);
        Ok(())
    })
}

/// Puts `count` tuples where the record says: first their line pointer numbers, then the tuples.
pub(super) fn add_tuples(page: &mut Page, data: &[u8], count: u16) -> Result<(), RedoFault> {
    let mut fields = Fields::new(data);
    for offset in fields.u16_array(usize::from(count))?.iter() {
        // The padding counts as part of the item.
        page.add_index_item(offset, take_aligned(&mut fields)?)?;
    }
    fields.finish()
}

/// Removes the tuples whose line pointer numbers are `data`.
fn delete_tuples(page: &mut Page, data: &[u8]) -> Result<(), RedoFault> {
    delete_index_items(page, Fields::new(data).u16_array(data.len() / 2)?)
}
