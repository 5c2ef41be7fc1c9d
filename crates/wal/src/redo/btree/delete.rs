//! Deletion of items and of heap TIDs in posting lists (nbtxlog.c `btree_xlog_vacuum`,
//! `btree_xlog_delete`, `btree_xlog_updates`, 15.18).

use super::page::{BTP_HAS_GARBAGE, BtreePage};
use super::tuple::{self, MAX_TUPLE_BYTES, StoredTid, TID_BYTES};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::compact::{delete_index_items, overwrite_index_item};
use crate::redo::error::RedoFault;
use crate::redo::fields::{Fields, U16Array};
use crate::redo::page::{PageLayout, max_align};
use crate::{BlockRef, Page, Record};

/// VACUUM: `xl_btree_vacuum`.
pub(super) fn vacuum(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    remove_items(record, Fields::new(record.main), block, page)
}

/// DELETE: `xl_btree_delete`, which has a conflict horizon in front.
pub(super) fn delete(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = Fields::new(record.main);
    let _latest_removed_xid = fields.u32()?;
    remove_items(record, fields, block, page)
}

fn remove_items(
    record: &Record<'_>,
    mut counts: Fields<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let deleted_count = usize::from(counts.u16()?);
    let updated_count = usize::from(counts.u16()?);
    let mut data = Fields::new(block.data);
    let deleted = data.u16_array(deleted_count)?;
    let updated = data.u16_array(updated_count)?;
    for offset in updated.iter() {
        let doomed_count = usize::from(data.u16()?);
        remove_tids(page, offset, data.u16_array(doomed_count)?)?;
    }
    if deleted_count > 0 {
        delete_index_items(page, deleted)?;
    }
    let mut btree_page = BtreePage::of(page)?;
    btree_page.set_flags(btree_page.flags() & !BTP_HAS_GARBAGE);
    page.set_lsn(record.end);
    Ok(())
}

/// `_bt_update_posting`: the posting list at `offset` without the TIDs numbered in `doomed`, which rise.
fn remove_tids(page: &mut Page, offset: u16, doomed: U16Array<'_>) -> Result<(), RedoFault> {
    let fault = |reason| RedoFault::Tuple { offset, reason };
    let mut updated = [0; MAX_TUPLE_BYTES];
    let mut kept = [0; MAX_TUPLE_BYTES];
    let mut kept_len = 0;
    let original = tuple::heap_tids(tuple::whole(page.item(offset)?)?)?;
    if !original.is_posting {
        return Err(fault("is no posting list"));
    }
    let mut doomed = doomed.iter().peekable();
    for (number, tid) in (0u16..).zip(original.tids.chunks_exact(TID_BYTES)) {
        if doomed.next_if_eq(&number).is_none() {
            kept[kept_len..kept_len + TID_BYTES].copy_from_slice(tid);
            kept_len += TID_BYTES;
        }
    }
    if doomed.next().is_some() {
        return Err(fault(
            "does not have the TIDs to delete, or their numbers do not rise",
        ));
    }
    let tids = kept[..kept_len].chunks_exact(TID_BYTES).map(|bytes| {
        let mut tid: StoredTid = [0; TID_BYTES];
        tid.copy_from_slice(bytes);
        tid
    });
    let size = tuple::form_posting(original.key, tids, &mut updated)?;
    updated
        .get(..max_align(size))
        .ok_or(fault("is too large"))
        .and_then(|updated| overwrite_index_item(page, offset, updated))
}
