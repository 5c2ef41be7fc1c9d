//! Deletion of dead items and of empty pages (gistxlog.c `gistRedoDeleteRecord`, `gistRedoPageDelete`,
//! 15.18).

use super::page::{F_DELETED, F_HAS_GARBAGE, F_TUPLES_DELETED, GistPage};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::compact::{delete_index_item, delete_index_items};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::{HEADER_BYTES, PageLayout};
use crate::{Page, Record};

/// Block 0 of DELETE: items that scans found dead; their offsets stand behind `gistxlogDelete`.
pub(super) fn dead_items(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let _latest_removed_xid = fields.u32()?;
    let count = usize::from(fields.u16()?);
    delete_index_items(page, fields.u16_array(count)?)?;
    let mut gist_page = GistPage::of(page)?;
    gist_page.clear_flags(F_HAS_GARBAGE);
    gist_page.set_flags(F_TUPLES_DELETED);
    page.set_lsn(record.end);
    Ok(())
}

/// `gistxlogPageDelete`.
struct PageDeleteFields {
    delete_xid: u64,
    downlink_offset: u16,
}

impl PageDeleteFields {
    fn read(record: &Record<'_>) -> Result<PageDeleteFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(PageDeleteFields {
            delete_xid: fields.u64()?,
            downlink_offset: fields.u16()?,
        })
    }
}

/// Block 0 of PAGE_DELETE: the page that goes (`GistPageSetDeleted`).
pub(super) fn leaf(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    /// `sizeof(GISTDeletedPageContents)`.
    const CONTENTS_BYTES: usize = 8;
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let delete_xid = PageDeleteFields::read(record)?.delete_xid;
    GistPage::of(page)?.set_flags(F_DELETED);
    page.set_lower((HEADER_BYTES + CONTENTS_BYTES) as u16);
    page[HEADER_BYTES..HEADER_BYTES + CONTENTS_BYTES].copy_from_slice(&delete_xid.to_le_bytes());
    page.set_lsn(record.end);
    Ok(())
}

/// Block 1 of PAGE_DELETE: its parent.
pub(super) fn downlink(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    delete_index_item(page, PageDeleteFields::read(record)?.downlink_offset)?;
    page.set_lsn(record.end);
    Ok(())
}
