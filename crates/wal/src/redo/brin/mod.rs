//! Redo of resource manager BRIN (brin_xlog.c `brin_redo`, 15.18).

mod page;

pub(crate) use page::{EVACUATE, PageType, clear_brin_flags, is_of_type};

use super::block::{block_number, change_if_needed};
use super::compact::{delete_index_item_keeping_numbers, overwrite_index_item};
use super::error::RedoFault;
use super::fields::Fields;
use super::heap_tuple::TupleId;
use super::page::{PageLayout, Placement};
use crate::{BlockRef, Page, Record};

/// `XLOG_BRIN_*`.
mod kind {
    pub(super) const CREATE_INDEX: u8 = 0x00;
    pub(super) const INSERT: u8 = 0x10;
    pub(super) const UPDATE: u8 = 0x20;
    pub(super) const SAMEPAGE_UPDATE: u8 = 0x30;
    pub(super) const REVMAP_EXTEND: u8 = 0x40;
    pub(super) const DESUMMARIZE: u8 = 0x50;
    pub(super) const OPERATION_MASK: u8 = 0x70;
    /// A flag: the tuple is the first of a new page.
    pub(super) const INIT_PAGE: u8 = 0x80;
}

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    match (record.info & kind::OPERATION_MASK, block.id) {
        (kind::CREATE_INDEX, 0) => create_index(record, page),
        (kind::INSERT, 0) => add_tuple(record, &InsertFields::of_insert(record)?, block, page),
        (kind::INSERT, 1) => map_range(record, &InsertFields::of_insert(record)?, page),
        (kind::UPDATE, 0) => add_tuple(record, &InsertFields::of_update(record)?, block, page),
        (kind::UPDATE, 1) => map_range(record, &InsertFields::of_update(record)?, page),
        (kind::UPDATE, 2) => delete_old_tuple(record, page),
        (kind::SAMEPAGE_UPDATE, 0) => replace_tuple(record, block, page),
        (kind::REVMAP_EXTEND, 0) => extend_revmap(record, page),
        (kind::REVMAP_EXTEND, 1) => init_revmap_page(record, page),
        (kind::DESUMMARIZE, 0) => unmap_range(record, page),
        (kind::DESUMMARIZE, 1) => delete_tuple_of_range(record, page),
        _ => Err(RedoFault::UnrelatedPage),
    }
}

/// `brin_xlog_createidx`.
fn create_index(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = Fields::new(record.main);
    let pages_per_range = fields.u32()?;
    let version = fields.u16()?;
    page::init_meta(page, pages_per_range, version);
    page.set_lsn(record.end);
    Ok(())
}

/// `xl_brin_insert`.
struct InsertFields {
    heap_block: u32,
    pages_per_range: u32,
    offset: u16,
}

impl InsertFields {
    fn of_insert(record: &Record<'_>) -> Result<InsertFields, RedoFault> {
        InsertFields::read(Fields::new(record.main))
    }

    /// `xl_brin_update`: the old tuple's line pointer number is in front.
    fn of_update(record: &Record<'_>) -> Result<InsertFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        let _old_offset = fields.u16()?;
        fields.align(4);
        InsertFields::read(fields)
    }

    fn read(mut fields: Fields<'_>) -> Result<InsertFields, RedoFault> {
        Ok(InsertFields {
            heap_block: fields.u32()?,
            pages_per_range: fields.u32()?,
            offset: fields.u16()?,
        })
    }
}

/// `brin_xlog_insert_update`, block 0: the new tuple.
fn add_tuple(
    record: &Record<'_>,
    fields: &InsertFields,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    let add = |page: &mut Page| {
        page.add_item(fields.offset, block.data, Placement::Vacant)?;
        Ok(())
    };
    if record.info & kind::INIT_PAGE == 0 {
        return change_if_needed(record, page, add);
    }
    page::init(page, PageType::Regular);
    add(page)?;
    page.set_lsn(record.end);
    Ok(())
}

/// `brin_xlog_insert_update`, block 1: the revmap page points to the new tuple.
fn map_range(record: &Record<'_>, fields: &InsertFields, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let tuple = TupleId {
            block: block_number(record, 0)?,
            offset: fields.offset,
        };
        page::set_tuple_of_range(page, fields.pages_per_range, fields.heap_block, Some(tuple))
    })
}

/// `brin_xlog_update`, block 2: the old tuple goes.
fn delete_old_tuple(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        delete_index_item_keeping_numbers(page, Fields::new(record.main).u16()?)
    })
}

/// `brin_xlog_samepage_update`.
fn replace_tuple(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        overwrite_index_item(page, Fields::new(record.main).u16()?, block.data)
    })
}

/// `brin_xlog_revmap_extend`, block 0: the metapage.
fn extend_revmap(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        page::set_last_revmap_page(page, Fields::new(record.main).u32()?);
        Ok(())
    })
}

/// `brin_xlog_revmap_extend`, block 1: an empty revmap page, whatever was there.
fn init_revmap_page(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    page::init(page, PageType::Revmap);
    page.set_lsn(record.end);
    Ok(())
}

/// `xl_brin_desummarize`.
struct DesummarizeFields {
    pages_per_range: u32,
    heap_block: u32,
    offset: u16,
}

impl DesummarizeFields {
    fn read(record: &Record<'_>) -> Result<DesummarizeFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(DesummarizeFields {
            pages_per_range: fields.u32()?,
            heap_block: fields.u32()?,
            offset: fields.u16()?,
        })
    }
}

/// `brin_xlog_desummarize_page`, block 0: the revmap page.
fn unmap_range(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let fields = DesummarizeFields::read(record)?;
        page::set_tuple_of_range(page, fields.pages_per_range, fields.heap_block, None)
    })
}

/// `brin_xlog_desummarize_page`, block 1: the regular page.
fn delete_tuple_of_range(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        delete_index_item_keeping_numbers(page, DesummarizeFields::read(record)?.offset)
    })
}

#[cfg(test)]
mod tests {
    use pg_quorum_types::BLOCK_SIZE;
    use proptest::prelude::*;

    use super::*;
    use crate::redo::test_records::{self, TestBlock, hostile_pages, hostile_records};
    use crate::{Rmgr, mask_page};

    fn blocks(tuple: &[u8]) -> [TestBlock; 2] {
        [(0, 70_000, tuple), (1, 1, &[])].map(|(id, block, data)| TestBlock {
            id,
            block,
            data: data.to_vec(),
        })
    }

    fn insert(heap_block: u32, pages_per_range: u32, offset: u16) -> Vec<u8> {
        let mut main = heap_block.to_le_bytes().to_vec();
        main.extend_from_slice(&pages_per_range.to_le_bytes());
        main.extend_from_slice(&offset.to_le_bytes());
        main
    }

    #[test]
    fn an_item_never_takes_a_line_pointer_in_use() {
        let blocks = blocks(&[7; 24]);
        let record = test_records::record(Rmgr::Brin, kind::INSERT, &insert(0, 1, 1), &blocks);
        let mut page: Page = [0; BLOCK_SIZE];
        page::init(&mut page, PageType::Regular);
        page.add_index_item(1, &[1; 8]).unwrap();
        page.add_index_item(2, &[2; 16]).unwrap();
        assert!(test_records::redo(&record, &blocks[0], &mut page.clone()).is_err());
        delete_index_item_keeping_numbers(&mut page, 1).unwrap();
        test_records::redo(&record, &blocks[0], &mut page).unwrap();
        assert_eq!(page.item(1).unwrap(), &[7; 24]);
        assert_eq!(page.item(2).unwrap(), &[2; 16]);
    }

    #[test]
    fn a_range_map_page_wraps_around_and_stores_the_high_half_of_a_block_first() {
        let blocks = blocks(&[7; 24]);
        let mut page: Page = [0; BLOCK_SIZE];
        page::init(&mut page, PageType::Revmap);
        let main = insert(1361 * 4 + 3, 4, 258);
        let record = test_records::record(Rmgr::Brin, kind::INSERT, &main, &blocks);
        test_records::redo(&record, &blocks[1], &mut page).unwrap();
        assert_eq!(&page[24..36], &[0, 0, 0, 0, 0, 0, 1, 0, 0x70, 0x11, 2, 1]);
        let record = test_records::record(Rmgr::Brin, kind::INSERT, &insert(0, 0, 1), &blocks);
        page.set_lsn(pg_quorum_types::Lsn(1));
        assert!(test_records::redo(&record, &blocks[1], &mut page).is_err());
    }

    proptest! {
        #[test]
        fn no_record_panics_on_any_page(
            (record, blocks) in hostile_records(Rmgr::Brin, 2),
            page in hostile_pages(8),
        ) {
            let _ = mask_page(Rmgr::Brin, &mut page.clone(), 1);
            for block in &blocks {
                let _ = test_records::redo(&record, block, &mut page.clone());
            }
        }
    }
}
