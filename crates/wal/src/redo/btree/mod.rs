//! Redo of resource manager Btree (nbtxlog.c `btree_redo`, 15.18).

mod dedup;
mod delete;
mod insert;
mod meta;
mod page;
mod split;
mod tuple;
mod unlink;

pub(crate) use page::{BTP_HAS_GARBAGE, BTP_LEAF, BTP_SPLIT_END, BtreePage};

use super::error::RedoFault;
use crate::{BlockRef, Page, Record};

/// `XLOG_BTREE_*`.
mod kind {
    pub(super) const INSERT_LEAF: u8 = 0x00;
    pub(super) const INSERT_UPPER: u8 = 0x10;
    pub(super) const INSERT_META: u8 = 0x20;
    pub(super) const SPLIT_L: u8 = 0x30;
    pub(super) const SPLIT_R: u8 = 0x40;
    pub(super) const INSERT_POST: u8 = 0x50;
    pub(super) const DEDUP: u8 = 0x60;
    pub(super) const DELETE: u8 = 0x70;
    pub(super) const UNLINK_PAGE: u8 = 0x80;
    pub(super) const UNLINK_PAGE_META: u8 = 0x90;
    pub(super) const NEWROOT: u8 = 0xA0;
    pub(super) const MARK_PAGE_HALFDEAD: u8 = 0xB0;
    pub(super) const VACUUM: u8 = 0xC0;
    pub(super) const META_CLEANUP: u8 = 0xE0;
}

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    match (record.info & 0xF0, block.id) {
        (kind::INSERT_LEAF | kind::INSERT_UPPER | kind::INSERT_META, 0) => insert::item(record, block, page),
        (kind::INSERT_POST, 0) => insert::item_that_splits_a_posting_list(record, block, page),
        (kind::INSERT_UPPER | kind::INSERT_META, 1) => insert::finish_child_split(record, page),
        (kind::INSERT_META, 2) => meta::restore(record, block, page),

        (kind::SPLIT_L, 0) => split::left_half(record, block, page, true),
        (kind::SPLIT_R, 0) => split::left_half(record, block, page, false),
        (kind::SPLIT_L | kind::SPLIT_R, 1) => split::right_half(record, block, page),
        (kind::SPLIT_L | kind::SPLIT_R, 2) => split::right_neighbour(record, page),
        (kind::SPLIT_L | kind::SPLIT_R, 3) => insert::finish_child_split(record, page),

        (kind::DEDUP, 0) => dedup::redo(record, block, page),
        (kind::VACUUM, 0) => delete::vacuum(record, block, page),
        (kind::DELETE, 0) => delete::delete(record, block, page),

        (kind::MARK_PAGE_HALFDEAD, 0) => unlink::half_dead_leaf(record, page),
        (kind::MARK_PAGE_HALFDEAD, 1) => unlink::parent_of_half_dead(record, page),
        (kind::UNLINK_PAGE | kind::UNLINK_PAGE_META, 0) => unlink::target(record, page),
        (kind::UNLINK_PAGE | kind::UNLINK_PAGE_META, 1) => unlink::left_sibling(record, page),
        (kind::UNLINK_PAGE | kind::UNLINK_PAGE_META, 2) => unlink::right_sibling(record, page),
        (kind::UNLINK_PAGE | kind::UNLINK_PAGE_META, 3) => unlink::leaf_of_subtree(record, page),
        (kind::UNLINK_PAGE_META, 4) => meta::restore(record, block, page),

        (kind::NEWROOT, 0) => split::new_root(record, block, page),
        (kind::NEWROOT, 1) => insert::finish_child_split(record, page),
        (kind::NEWROOT, 2) | (kind::META_CLEANUP, 0) => meta::restore(record, block, page),
        _ => Err(RedoFault::UnrelatedPage),
    }
}
