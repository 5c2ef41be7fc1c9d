//! Page deletion (nbtxlog.c `btree_xlog_mark_page_halfdead`, `btree_xlog_unlink_page`, 15.18).

use super::page::{BTP_DELETED, BTP_HALF_DEAD, BTP_HAS_FULLXID, BTP_LEAF, BtreePage, HIGH_KEY};
use super::tuple;
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::compact::delete_index_item;
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::{HEADER_BYTES, PageLayout};
use crate::{Page, Record};

/// `xl_btree_mark_page_halfdead`.
struct HalfDeadFields {
    /// The downlink's line pointer in the parent.
    parent_offset: u16,
    left: u32,
    right: u32,
    top_parent: u32,
}

impl HalfDeadFields {
    fn read(record: &Record<'_>) -> Result<HalfDeadFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        let parent_offset = fields.u16()?;
        fields.align(4);
        let _leaf = fields.u32()?;
        Ok(HalfDeadFields {
            parent_offset,
            left: fields.u32()?,
            right: fields.u32()?,
            top_parent: fields.u32()?,
        })
    }
}

/// Block 1 of MARK_PAGE_HALFDEAD: the downlink takes over its right neighbour's block, which goes.
pub(super) fn parent_of_half_dead(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let offset = HalfDeadFields::read(record)?.parent_offset;
    let next = offset.saturating_add(1);
    let right_sibling = tuple::downlink(page.item(next)?)?;
    tuple::set_downlink(page.item_mut(offset)?, right_sibling)?;
    delete_index_item(page, next)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 0 of MARK_PAGE_HALFDEAD: the leaf, made anew.
pub(super) fn half_dead_leaf(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = HalfDeadFields::read(record)?;
    make_half_dead_leaf(record, page, fields.left, fields.right, fields.top_parent)
}

fn make_half_dead_leaf(
    record: &Record<'_>,
    page: &mut Page,
    left: u32,
    right: u32,
    top_parent: u32,
) -> Result<(), RedoFault> {
    let mut leaf = BtreePage::init(page);
    leaf.set_previous(left);
    leaf.set_next(right);
    leaf.set_flags(BTP_HALF_DEAD | BTP_LEAF);
    page.add_index_item(HIGH_KEY, &tuple::top_parent_high_key(top_parent))?;
    page.set_lsn(record.end);
    Ok(())
}

/// `xl_btree_unlink_page`.
struct UnlinkFields {
    left: u32,
    right: u32,
    level: u32,
    safe_xid: u64,
    leaf_left: u32,
    leaf_right: u32,
    leaf_top_parent: u32,
}

impl UnlinkFields {
    fn read(record: &Record<'_>) -> Result<UnlinkFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        let left = fields.u32()?;
        let right = fields.u32()?;
        let level = fields.u32()?;
        fields.align(8);
        Ok(UnlinkFields {
            left,
            right,
            level,
            safe_xid: fields.u64()?,
            leaf_left: fields.u32()?,
            leaf_right: fields.u32()?,
            leaf_top_parent: fields.u32()?,
        })
    }
}

/// Block 0: the page that goes, with `BTPageSetDeleted`.
pub(super) fn target(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    /// `sizeof(BTDeletedPageData)`.
    const DELETED_BYTES: usize = 8;
    let fields = UnlinkFields::read(record)?;
    let mut target = BtreePage::init(page);
    target.set_previous(fields.left);
    target.set_next(fields.right);
    target.set_level(fields.level);
    let leaf_flag = if fields.level == 0 { BTP_LEAF } else { 0 };
    target.set_flags(BTP_DELETED | BTP_HAS_FULLXID | leaf_flag);
    page.set_lower((HEADER_BYTES + DELETED_BYTES) as u16);
    page[HEADER_BYTES..HEADER_BYTES + DELETED_BYTES].copy_from_slice(&fields.safe_xid.to_le_bytes());
    page.set_lsn(record.end);
    Ok(())
}

/// Block 1.
pub(super) fn left_sibling(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    BtreePage::of(page)?.set_next(UnlinkFields::read(record)?.right);
    page.set_lsn(record.end);
    Ok(())
}

/// Block 2.
pub(super) fn right_sibling(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    BtreePage::of(page)?.set_previous(UnlinkFields::read(record)?.left);
    page.set_lsn(record.end);
    Ok(())
}

/// Block 3: the half-dead leaf under an internal page that goes, made anew.
pub(super) fn leaf_of_subtree(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = UnlinkFields::read(record)?;
    make_half_dead_leaf(
        record,
        page,
        fields.leaf_left,
        fields.leaf_right,
        fields.leaf_top_parent,
    )
}
