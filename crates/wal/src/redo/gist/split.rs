//! Page splits, and the end of a split below (gistxlog.c `gistRedoPageSplitRecord`,
//! `gistRedoClearFollowRight`, 15.18).
//!
//! Blocks 1 to `npage` are the parts, from left to right; with a new root the first of them is the root, above
//! the others. Block 0 is a page below whose split ends with this one.

use pg_quorum_types::Lsn;

use super::page::{F_FOLLOW_RIGHT, F_LEAF, GistPage, NO_BLOCK, ROOT_BLOCK, append};
use crate::redo::block::{BlockRedo, block_number, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple;
use crate::redo::page::PageLayout;
use crate::{BlockRef, Page, Record};

/// `gistxlogPageSplit`.
struct SplitFields {
    /// Of the page before it was split.
    right_link: u32,
    /// Of the page before it was split.
    nsn: Lsn,
    is_leaf: bool,
    page_count: u16,
    /// The parts get downlinks by later records.
    mark_follow_right: bool,
}

impl SplitFields {
    fn read(record: &Record<'_>) -> Result<SplitFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        let right_link = fields.u32()?;
        fields.align(8);
        let nsn = Lsn(fields.u64()?);
        let is_leaf = fields.u8()? != 0;
        fields.align(2);
        Ok(SplitFields {
            right_link,
            nsn,
            is_leaf,
            page_count: fields.u16()?,
            mark_follow_right: fields.u8()? != 0,
        })
    }
}

/// Block 1 and the following ones of PAGE_SPLIT: a part, made anew from the tuples in its data.
pub(super) fn part(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = SplitFields::read(record)?;
    let number = u16::from(block.id);
    if number > fields.page_count {
        return Err(RedoFault::UnrelatedPage);
    }
    let is_last = number == fields.page_count;
    let is_root = block.block == ROOT_BLOCK;
    let has_new_root = block_number(record, 1)? == ROOT_BLOCK;
    let right_link = if is_root {
        NO_BLOCK
    } else if is_last {
        fields.right_link
    } else {
        block_number(record, block.id + 1)?
    };

    let mut flags = 0;
    if fields.is_leaf && !is_root {
        flags |= F_LEAF;
    }
    if !is_last && !is_root && !has_new_root && fields.mark_follow_right {
        flags |= F_FOLLOW_RIGHT;
    }
    let mut part = GistPage::init(page, flags);
    part.set_right_link(right_link);
    part.set_nsn(fields.nsn);
    let mut tuples = Fields::new(block.data);
    for _ in 0..tuples.u32()? {
        append(page, index_tuple::read(&mut tuples)?)?;
    }
    tuples.finish()?;
    page.set_lsn(record.end);
    Ok(())
}

/// The page below whose split is complete, now that its parent has the downlinks.
pub(super) fn left_child(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    finish_left_child(record, page)
}

/// The same without looking at the page's LSN, which its image has set.
pub(super) fn finish_left_child(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut child = GistPage::of(page)?;
    child.set_nsn(record.end);
    child.clear_flags(F_FOLLOW_RIGHT);
    page.set_lsn(record.end);
    Ok(())
}
