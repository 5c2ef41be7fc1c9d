//! The pending list and the metapage that knows it (ginxlog.c `ginRedoUpdateMetapage`, `ginRedoInsertListPage`,
//! `ginRedoDeleteListPages`, 15.18).

use super::NO_BLOCK;
use super::page::{GIN_DELETED, GIN_LIST, GIN_LIST_FULLROW, GIN_META, GinPage};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple;
use crate::redo::page::{HEADER_BYTES, PageLayout};
use crate::{BlockRef, Page, Record};

/// `sizeof(GinMetaPageData)`, padding included.
const META_BYTES: usize = 56;

/// `ginxlogUpdateMeta`.
struct UpdateFields<'a> {
    metadata: &'a [u8],
    /// The list's last page so far, [`NO_BLOCK`] if a list did not get longer by pages.
    previous_tail: u32,
    new_right_link: u32,
    /// How many tuples were added to the last page.
    tuple_count: i32,
}

impl<'a> UpdateFields<'a> {
    fn read(record: &'a Record<'_>) -> Result<UpdateFields<'a>, RedoFault> {
        let mut fields = Fields::new(record.main);
        fields.rel_file_node()?;
        fields.align(8);
        Ok(UpdateFields {
            metadata: fields.take(META_BYTES)?,
            previous_tail: fields.u32()?,
            new_right_link: fields.u32()?,
            tuple_count: fields.u32()? as i32,
        })
    }
}

/// Block 0 of UPDATE_META_PAGE.
pub(super) fn metapage_after_update(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    restore_metapage(record, page, UpdateFields::read(record)?.metadata)
}

/// Block 0 of DELETE_LISTPAGE.
pub(super) fn metapage_after_deletion(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    restore_metapage(record, page, DeleteFields::read(record)?.metadata)
}

/// Makes the metapage anew (ginutil.c `GinInitMetabuffer`), with the record's `GinMetaPageData`.
fn restore_metapage(record: &Record<'_>, page: &mut Page, metadata: &[u8]) -> Result<(), RedoFault> {
    let meta = GinPage::init(page, GIN_META);
    meta.page
        .bytes_mut(HEADER_BYTES, META_BYTES)?
        .copy_from_slice(metadata);
    meta.page.set_lower((HEADER_BYTES + META_BYTES) as u16);
    page.set_lsn(record.end);
    Ok(())
}

/// Block 1 of UPDATE_META_PAGE: the list's last page gets the tuples of one more heap tuple, or a page behind it.
pub(super) fn tail(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = UpdateFields::read(record)?;
    let gets_tuples = fields.tuple_count > 0;
    if !gets_tuples && fields.previous_tail == NO_BLOCK {
        return Err(RedoFault::UnrelatedPage);
    }
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut tail = GinPage::of(page)?;
    if gets_tuples {
        add_tuples(tail.page, fields.tuple_count, block.data)?;
        tail.set_item_count(tail.item_count().wrapping_add(1));
    } else {
        tail.set_right_link(fields.new_right_link);
    }
    page.set_lsn(record.end);
    Ok(())
}

/// Adds `count` tuples behind those that are there. In the record they stand without padding.
fn add_tuples(page: &mut Page, count: i32, mut tuples: &[u8]) -> Result<(), RedoFault> {
    for _ in 0..count {
        let tuple = index_tuple::whole(tuples)?;
        page.add_index_item(page.max_offset() + 1, tuple)?;
        tuples = &tuples[tuple.len()..];
    }
    match tuples.len() {
        0 => Ok(()),
        extra => Err(RedoFault::RecordTooLong { extra }),
    }
}

/// Block 0 of INSERT_LISTPAGE: `ginxlogInsertListPage`.
pub(super) fn new_list_page(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    let mut fields = Fields::new(record.main);
    let right_link = fields.u32()?;
    let tuple_count = fields.u32()? as i32;
    let mut list_page = GinPage::init(page, GIN_LIST);
    list_page.set_right_link(right_link);
    if right_link == NO_BLOCK {
        // The last page of what one heap tuple needs.
        list_page.set_flags(GIN_LIST | GIN_LIST_FULLROW);
        list_page.set_item_count(1);
    }
    add_tuples(list_page.page, tuple_count, block.data)?;
    page.set_lsn(record.end);
    Ok(())
}

/// `ginxlogDeleteListPages`.
struct DeleteFields<'a> {
    metadata: &'a [u8],
    deleted_count: i32,
}

impl<'a> DeleteFields<'a> {
    fn read(record: &'a Record<'_>) -> Result<DeleteFields<'a>, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(DeleteFields {
            metadata: fields.take(META_BYTES)?,
            deleted_count: fields.u32()? as i32,
        })
    }
}

/// Blocks from 1 on of DELETE_LISTPAGE: empty pages, whatever they were.
pub(super) fn deleted_list_page(record: &Record<'_>, number: u8, page: &mut Page) -> Result<(), RedoFault> {
    if i32::from(number) > DeleteFields::read(record)?.deleted_count {
        return Err(RedoFault::UnrelatedPage);
    }
    GinPage::init(page, GIN_DELETED);
    page.set_lsn(record.end);
    Ok(())
}
