//! Redo of resource manager Gist (gistxlog.c `gist_redo`, 15.18).

mod delete;
mod page;
mod split;
mod update;

pub(crate) use page::{F_FOLLOW_RIGHT, F_HAS_GARBAGE, GistPage};

use super::error::RedoFault;
use super::page::PageLayout;
use crate::{BlockRef, Page, Record};

/// `XLOG_GIST_*` of the records that change pages. `PAGE_REUSE` and `ASSIGN_LSN` name none.
mod kind {
    pub(super) const PAGE_UPDATE: u8 = 0x00;
    pub(super) const DELETE: u8 = 0x10;
    pub(super) const PAGE_SPLIT: u8 = 0x30;
    pub(super) const PAGE_DELETE: u8 = 0x60;
}

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    match (record.kind(), block.id) {
        (kind::PAGE_UPDATE, 0) => update::items(record, block, page),
        (kind::PAGE_SPLIT, 1..) => split::part(record, block, page),
        (kind::PAGE_UPDATE, 1) | (kind::PAGE_SPLIT, 0) => split::left_child(record, page),
        (kind::DELETE, 0) => delete::dead_items(record, page),
        (kind::PAGE_DELETE, 0) => delete::leaf(record, page),
        (kind::PAGE_DELETE, 1) => delete::downlink(record, page),
        _ => Err(RedoFault::UnrelatedPage),
    }
}

/// Applies the record to a page that its image has just replaced (`gistRedoClearFollowRight`).
///
/// `gistplacetopage` marks the left child only after the record is written, because the mark is the record's
/// own LSN: the image lacks it.
pub(super) fn redo_restored(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    match (record.kind(), block.id) {
        (kind::PAGE_UPDATE, 1) | (kind::PAGE_SPLIT, 0) if page.is_new() => Err(RedoFault::NewPage),
        (kind::PAGE_UPDATE, 1) | (kind::PAGE_SPLIT, 0) => split::finish_left_child(record, page),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
