//! Redo of resource manager Gin (ginxlog.c `gin_redo`, 15.18).

mod entry;
mod leaf;
mod page;
mod pending;
mod posting_list;
mod posting_tree;
#[cfg(test)]
mod samples;
mod split;

pub(crate) use page::{GIN_DELETED, GinPage};

use super::block::{BlockRedo, prepare};
use super::error::RedoFault;
use super::fields::Fields;
use super::page::PageLayout;
use crate::{BlockRef, Page, Record};

/// `XLOG_GIN_*`.
mod kind {
    pub(super) const CREATE_PTREE: u8 = 0x10;
    pub(super) const INSERT: u8 = 0x20;
    pub(super) const SPLIT: u8 = 0x30;
    pub(super) const VACUUM_PAGE: u8 = 0x40;
    pub(super) const DELETE_PAGE: u8 = 0x50;
    pub(super) const UPDATE_META_PAGE: u8 = 0x60;
    pub(super) const INSERT_LISTPAGE: u8 = 0x70;
    pub(super) const DELETE_LISTPAGE: u8 = 0x80;
    pub(super) const VACUUM_DATA_LEAF_PAGE: u8 = 0x90;
}

/// `InvalidBlockNumber`.
const NO_BLOCK: u32 = u32::MAX;

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    match (record.kind(), block.id) {
        (kind::INSERT, 0) => insert(record, block, page),
        (kind::INSERT, 1) => split::finish_by_insertion(record, page),

        (kind::SPLIT, 0..=2) | (kind::VACUUM_PAGE, 0) => {
            Err(RedoFault::Image("this kind of record needs one"))
        }
        (kind::SPLIT, 3) => split::finish_by_split_of_parent(record, page),

        (kind::CREATE_PTREE, 0) => posting_tree::create(record, page),
        (kind::VACUUM_DATA_LEAF_PAGE, 0) => leaf::vacuum(record, block, page),
        (kind::DELETE_PAGE, 0) => posting_tree::delete(record, page),
        (kind::DELETE_PAGE, 1) => posting_tree::parent_of_deleted(record, page),
        (kind::DELETE_PAGE, 2) => posting_tree::left_of_deleted(record, page),

        (kind::UPDATE_META_PAGE, 0) => pending::metapage_after_update(record, page),
        (kind::UPDATE_META_PAGE, 1) => pending::tail(record, block, page),
        (kind::INSERT_LISTPAGE, 0) => pending::new_list_page(record, block, page),
        (kind::DELETE_LISTPAGE, 0) => pending::metapage_after_deletion(record, page),
        (kind::DELETE_LISTPAGE, number) => pending::deleted_list_page(record, number, page),
        _ => Err(RedoFault::UnrelatedPage),
    }
}

/// `ginxlogInsert`.
struct InsertFields {
    /// The page is one of a posting tree, not of the entry tree.
    is_data: bool,
    /// `None` for a leaf.
    children: Option<Children>,
}

/// The halves of the page whose split an insertion into its parent finishes.
struct Children {
    right: u32,
}

impl InsertFields {
    fn read(record: &Record<'_>) -> Result<InsertFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        let flags = fields.u16()?;
        let children = if flags & INSERT_IS_LEAF == 0 {
            let _left = fields.block_id()?;
            let right = fields.block_id()?;
            Some(Children { right })
        } else {
            None
        };
        fields.finish()?;
        Ok(InsertFields {
            is_data: flags & INSERT_IS_DATA != 0,
            children,
        })
    }
}

/// `GIN_INSERT_ISDATA`.
const INSERT_IS_DATA: u16 = 0x01;
/// `GIN_INSERT_ISLEAF`.
const INSERT_IS_LEAF: u16 = 0x02;

/// Block 0 of INSERT: `ginRedoInsert`.
fn insert(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let fields = InsertFields::read(record)?;
    let mut gin_page = GinPage::of(page)?;
    gin_page.check_is_data(fields.is_data)?;
    gin_page.check_is_leaf(fields.children.is_none())?;
    match (fields.is_data, fields.children) {
        (false, children) => entry::insert(&mut gin_page, children, block.data)?,
        (true, None) => leaf::recompress(&mut gin_page, block.data)?,
        (true, Some(children)) => posting_tree::insert_downlink(&mut gin_page, children, block.data)?,
    }
    page.set_lsn(record.end);
    Ok(())
}
