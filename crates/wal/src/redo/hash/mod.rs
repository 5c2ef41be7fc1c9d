//! Redo of resource manager Hash (hash_xlog.c `hash_redo`, 15.18).
//!
//! `hash_xlog_split_allocate_page` and `hash_xlog_split_complete` also change a page that was just restored
//! from an image. Here an image is all: it was taken after the same changes, under the same lock
//! (hashpage.c `_hash_expandtable`, `_hash_splitbucket`), so the second time changes nothing.

mod bucket;
mod meta;
mod overflow;
mod page;
mod split;

pub(crate) use page::{
    HashPage, LH_BUCKET_PAGE, LH_OVERFLOW_PAGE, LH_PAGE_HAS_DEAD_TUPLES, LH_PAGE_TYPE, LH_UNUSED_PAGE,
};

use super::error::RedoFault;
use crate::{BlockRef, Page, Record};

/// `XLOG_HASH_*`.
mod kind {
    pub(super) const INIT_META_PAGE: u8 = 0x00;
    pub(super) const INIT_BITMAP_PAGE: u8 = 0x10;
    pub(super) const INSERT: u8 = 0x20;
    pub(super) const ADD_OVFL_PAGE: u8 = 0x30;
    pub(super) const SPLIT_ALLOCATE_PAGE: u8 = 0x40;
    pub(super) const SPLIT_PAGE: u8 = 0x50;
    pub(super) const SPLIT_COMPLETE: u8 = 0x60;
    pub(super) const MOVE_PAGE_CONTENTS: u8 = 0x70;
    pub(super) const SQUEEZE_PAGE: u8 = 0x80;
    pub(super) const DELETE: u8 = 0x90;
    pub(super) const SPLIT_CLEANUP: u8 = 0xA0;
    pub(super) const UPDATE_META_PAGE: u8 = 0xB0;
    pub(super) const VACUUM_ONE_PAGE: u8 = 0xC0;
}

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(record: &Record, block: &BlockRef, page: &mut Page) -> Result<(), RedoFault> {
    match (record.kind(), block.id) {
        (kind::INIT_META_PAGE, 0) => meta::init(record, page),
        (kind::INIT_BITMAP_PAGE, 0) => overflow::init_bitmap(record, page),
        (kind::INIT_BITMAP_PAGE, 1) => meta::add_first_bitmap(record, page),

        (kind::INSERT, 0) => bucket::insert(record, block, page),
        (kind::INSERT, 1) => meta::count_inserted(record, page),

        (kind::ADD_OVFL_PAGE, 0) => overflow::init(record, block, page),
        (kind::ADD_OVFL_PAGE, 1) => overflow::link_new(record, page),
        (kind::ADD_OVFL_PAGE, 2) => overflow::mark_used(record, block, page),
        (kind::ADD_OVFL_PAGE, 3) => overflow::init_bitmap(record, page),
        (kind::ADD_OVFL_PAGE, 4) => meta::add_overflow_page(record, block, page),

        (kind::SPLIT_ALLOCATE_PAGE, 0) => split::begin(record, page),
        (kind::SPLIT_ALLOCATE_PAGE, 1) => split::init_new_bucket(record, page),
        (kind::SPLIT_ALLOCATE_PAGE, 2) => meta::add_bucket(record, block, page),
        (kind::SPLIT_PAGE, 0) => Err(RedoFault::Image("there is none to restore")),
        (kind::SPLIT_COMPLETE, 0) => split::complete_old(record, page),
        (kind::SPLIT_COMPLETE, 1) => split::complete_new(record, page),
        (kind::SPLIT_CLEANUP, 0) => split::cleaned_up(record, page),

        // The bucket's first page: a standby locks it, nothing more.
        (kind::MOVE_PAGE_CONTENTS | kind::SQUEEZE_PAGE | kind::DELETE, 0) => Ok(()),
        (kind::MOVE_PAGE_CONTENTS, 1) => bucket::add_moved(record, block, page),
        (kind::MOVE_PAGE_CONTENTS, 2) => bucket::delete_moved(record, block, page),
        (kind::SQUEEZE_PAGE, 1) => overflow::add_squeezed(record, block, page),
        (kind::SQUEEZE_PAGE, 2) => overflow::free(record, page),
        (kind::SQUEEZE_PAGE, 3) => overflow::unlink_from_previous(record, page),
        (kind::SQUEEZE_PAGE, 4) => overflow::unlink_from_next(record, page),
        (kind::SQUEEZE_PAGE, 5) => overflow::mark_free(record, block, page),
        (kind::SQUEEZE_PAGE, 6) => meta::set_first_free(record, block, page),
        (kind::DELETE, 1) => bucket::delete(record, block, page),

        (kind::UPDATE_META_PAGE, 0) => meta::set_tuple_count(record, page),
        (kind::VACUUM_ONE_PAGE, 0) => bucket::vacuum(record, page),
        (kind::VACUUM_ONE_PAGE, 1) => meta::count_vacuumed(record, page),
        _ => Err(RedoFault::UnrelatedPage),
    }
}
