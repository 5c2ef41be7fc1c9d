//! Posting trees: their creation, internal pages, deletion of pages (ginxlog.c `ginRedoCreatePTree`,
//! `ginRedoInsertData`, `ginRedoDeletePage`; gindatapage.c `GinDataPageAddPostingItem`,
//! `GinPageDeletePostingItem`, 15.18).
//!
//! An internal page is an array of posting items: `0 child (block high, block low)   4 key (a TID)`.

use super::Children;
use super::page::{DATA_AT, GIN_COMPRESSED, GIN_DATA, GIN_DELETED, GIN_LEAF, GinPage};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple::block_bytes;
use crate::redo::page::PageLayout;
use crate::{Page, Record};

/// `sizeof(PostingItem)`.
const ITEM_BYTES: usize = 10;

/// Block 0 of CREATE_PTREE: a root that is a leaf, its posting lists in the record.
pub(super) fn create(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = Fields::new(record.main);
    let size = fields.u32()? as usize;
    let lists = fields.take(size)?;
    fields.finish()?;
    let mut root = GinPage::init(page, GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
    let end = DATA_AT.saturating_add(size);
    if end > root.data_end() {
        return Err(no_room(&root, size));
    }
    root.page[DATA_AT..end].copy_from_slice(lists);
    root.set_end_of_data(end);
    page.set_lsn(record.end);
    Ok(())
}

fn no_room(page: &GinPage<'_>, size: usize) -> RedoFault {
    RedoFault::NoRoom {
        size,
        lower: page.page.lower(),
        upper: page.page.upper(),
    }
}

/// `GinDataPageGetPostingItem`, from one on.
fn item_position(offset: u16) -> usize {
    DATA_AT + usize::from(offset).saturating_sub(1) * ITEM_BYTES
}

/// Where the item at `offset` stands and where all items end.
fn existing_item(page: &GinPage<'_>, offset: u16) -> Result<(usize, usize), RedoFault> {
    page.check_is_leaf(false)?;
    let count = page.item_count();
    let end = item_position(count) + ITEM_BYTES;
    if offset == 0 || offset > count || end > page.data_end() {
        return Err(RedoFault::Tuple {
            offset,
            reason: "there is no such posting item",
        });
    }
    Ok((item_position(offset), end))
}

/// INSERT on an internal page: `ginxlogInsertDataInternal`. The existing item gets the right half, the new one
/// goes in front of it.
pub(super) fn insert_downlink(
    page: &mut GinPage<'_>,
    children: Children,
    data: &[u8],
) -> Result<(), RedoFault> {
    let mut fields = Fields::new(data);
    let offset = fields.u16()?;
    let new_item = fields.take(ITEM_BYTES)?;
    fields.finish()?;
    let (at, end) = existing_item(page, offset)?;
    if end + ITEM_BYTES > page.data_end() {
        return Err(no_room(page, ITEM_BYTES));
    }
    page.page[at..at + 4].copy_from_slice(&block_bytes(children.right));
    page.page.copy_within(at..end, at + ITEM_BYTES);
    page.page[at..at + ITEM_BYTES].copy_from_slice(new_item);
    page.set_item_count(page.item_count() + 1);
    page.set_end_of_data(end + ITEM_BYTES);
    Ok(())
}

/// `ginxlogDeletePage`.
struct DeleteFields {
    /// The downlink's number in the parent.
    parent_offset: u16,
    right_link: u32,
    /// The last transaction that might have seen the page.
    delete_xid: u32,
}

impl DeleteFields {
    fn read(record: &Record<'_>) -> Result<DeleteFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        let parent_offset = fields.u16()?;
        fields.align(4);
        Ok(DeleteFields {
            parent_offset,
            right_link: fields.u32()?,
            delete_xid: fields.u32()?,
        })
    }
}

/// A change of DELETE_PAGE to one of its three pages.
fn change(
    record: &Record<'_>,
    page: &mut Page,
    change: impl FnOnce(&mut GinPage<'_>, &DeleteFields) -> Result<(), RedoFault>,
) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let fields = DeleteFields::read(record)?;
    let mut gin_page = GinPage::of(page)?;
    gin_page.check_is_data(true)?;
    change(&mut gin_page, &fields)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 0: the page that goes. Its right link stays, for scans that are on their way.
pub(super) fn delete(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change(record, page, |page, fields| {
        page.set_flags(page.flags() | GIN_DELETED);
        page.page.set_prune_xid(fields.delete_xid);
        Ok(())
    })
}

/// Block 1.
pub(super) fn parent_of_deleted(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change(record, page, |page, fields| {
        let (at, end) = existing_item(page, fields.parent_offset)?;
        page.page.copy_within(at + ITEM_BYTES..end, at);
        page.set_item_count(page.item_count() - 1);
        page.set_end_of_data(end - ITEM_BYTES);
        Ok(())
    })
}

/// Block 2.
pub(super) fn left_of_deleted(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change(record, page, |page, fields| {
        page.set_right_link(fields.right_link);
        Ok(())
    })
}
