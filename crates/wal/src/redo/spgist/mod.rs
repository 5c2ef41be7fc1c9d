//! Redo of resource manager SPGist (spgxlog.c `spg_redo`, 15.18).
//!
//! Inner tuples on inner pages form the trees (one for nulls), their nodes point to inner tuples or to chains of
//! leaf tuples on one leaf page. Item numbers never change: what goes leaves a dead tuple behind, which later
//! insertions replace.

mod inner;
mod leaf;
mod page;
mod pick_split;
mod tuple;
mod vacuum;

use super::error::RedoFault;
use crate::{BlockRef, Page, Record};

/// `XLOG_SPGIST_*`.
mod kind {
    pub(super) const ADD_LEAF: u8 = 0x10;
    pub(super) const MOVE_LEAFS: u8 = 0x20;
    pub(super) const ADD_NODE: u8 = 0x30;
    pub(super) const SPLIT_TUPLE: u8 = 0x40;
    pub(super) const PICKSPLIT: u8 = 0x50;
    pub(super) const VACUUM_LEAF: u8 = 0x60;
    pub(super) const VACUUM_ROOT: u8 = 0x70;
    pub(super) const VACUUM_REDIRECT: u8 = 0x80;
}

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    match (record.kind(), block.id) {
        (kind::ADD_LEAF, 0) => leaf::add(record, page),
        (kind::ADD_LEAF, 1) => leaf::parent_of_added(record, page),

        (kind::MOVE_LEAFS, 0) => leaf::move_source(record, page),
        (kind::MOVE_LEAFS, 1) => leaf::move_destination(record, page),
        (kind::MOVE_LEAFS, 2) => leaf::parent_of_moved(record, page),

        (kind::ADD_NODE, 0) => inner::enlarged(record, page),
        (kind::ADD_NODE, 1) => inner::new_place_of_enlarged(record, page),
        (kind::ADD_NODE, 2) => inner::parent_of_enlarged(record, page),

        (kind::SPLIT_TUPLE, 0) => inner::prefix(record, page),
        (kind::SPLIT_TUPLE, 1) => inner::postfix(record, page),

        (kind::PICKSPLIT, 0) => pick_split::source(record, page),
        (kind::PICKSPLIT, 1) => pick_split::destination(record, page),
        (kind::PICKSPLIT, 2) => pick_split::inner(record, page),
        (kind::PICKSPLIT, 3) => pick_split::parent(record, page),

        (kind::VACUUM_LEAF, 0) => vacuum::leaf(record, page),
        (kind::VACUUM_ROOT, 0) => vacuum::root(record, page),
        (kind::VACUUM_REDIRECT, 0) => vacuum::redirects(record, page),
        _ => Err(RedoFault::UnrelatedPage),
    }
}

#[cfg(test)]
mod tests;
