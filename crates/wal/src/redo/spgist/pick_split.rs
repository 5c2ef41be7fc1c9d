//! A chain of leaf tuples is divided under a new inner tuple (spgxlog.c `spgRedoPickSplit`, 15.18).
//!
//! Block 0 is the page that had the chain (not there if it is a root, which becomes the inner page), block 1
//! another leaf page for its tuples (if one is needed), block 2 the inner tuple's page, block 3 the page with the
//! downlink (unless that is the inner tuple's page, or there is none because a root was split).

use super::page::{Downlink, PageUse, WriterState, add_or_replace, init_or_prepare, replace_by_dead};
use super::tuple::{self, DeadTuple};
use crate::redo::block::{BlockRedo, block_number};
use crate::redo::error::RedoFault;
use crate::redo::fields::{Fields, U16Array};
use crate::redo::index_tuple::{StoredTid, stored_tid};
use crate::redo::page::PageLayout;
use crate::{Page, Record};

/// `spgxlogPickSplit`.
struct PickSplitFields<'a> {
    is_root_split: bool,
    is_new_source: bool,
    is_new_destination: bool,
    inner_offset: u16,
    is_new_inner: bool,
    stores_nulls: bool,
    inner_is_parent: bool,
    downlink: Downlink,
    writer: WriterState,
    deleted: U16Array<'a>,
    inserted: U16Array<'a>,
    /// For each inserted tuple: 0 if it goes to the source page, otherwise it goes to the destination page.
    selects: &'a [u8],
    inner: &'a [u8],
    /// The leaf tuples to insert.
    leafs: Fields<'a>,
}

impl<'a> PickSplitFields<'a> {
    fn read(record: &'a Record<'_>) -> Result<PickSplitFields<'a>, RedoFault> {
        let mut fields = Fields::new(record.main);
        let is_root_split = fields.u8()? != 0;
        fields.align(2);
        let delete_count = usize::from(fields.u16()?);
        let insert_count = usize::from(fields.u16()?);
        Ok(PickSplitFields {
            is_root_split,
            is_new_source: fields.u8()? != 0,
            is_new_destination: fields.u8()? != 0,
            inner_offset: fields.u16()?,
            is_new_inner: fields.u8()? != 0,
            stores_nulls: fields.u8()? != 0,
            inner_is_parent: fields.u8()? != 0,
            downlink: Downlink::read(&mut fields)?,
            writer: WriterState::read(&mut fields)?,
            deleted: fields.u16_array(delete_count)?,
            inserted: fields.u16_array(insert_count)?,
            selects: fields.take(insert_count)?,
            inner: tuple::read_inner(&mut fields)?,
            leafs: fields,
        })
    }

    fn inner_tid(&self, record: &Record<'_>) -> Result<StoredTid, RedoFault> {
        Ok(stored_tid(block_number(record, 2)?, self.inner_offset))
    }

    fn page_use(&self, is_leaf: bool) -> PageUse {
        PageUse {
            is_leaf,
            stores_nulls: self.stores_nulls,
        }
    }

    /// Inserts the leaf tuples that go to this page.
    fn insert_leafs(&mut self, page: &mut Page, to_destination: bool) -> Result<(), RedoFault> {
        for (offset, select) in self.inserted.iter().zip(self.selects) {
            let leaf = tuple::read_leaf(&mut self.leafs)?;
            if (*select != 0) == to_destination {
                add_or_replace(page, offset, leaf)?;
            }
        }
        Ok(())
    }
}

/// Block 0.
pub(super) fn source(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = PickSplitFields::read(record)?;
    if fields.is_root_split {
        return Err(RedoFault::UnrelatedPage);
    }
    if init_or_prepare(record, page, fields.is_new_source, fields.page_use(true))? == BlockRedo::Done {
        return Ok(());
    }
    if !fields.is_new_source {
        let first = fields.writer.tuple_left_behind(fields.inner_tid(record)?);
        replace_by_dead(page, fields.deleted, first, DeadTuple::Placeholder)?;
    }
    fields.insert_leafs(page, false)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 1.
pub(super) fn destination(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = PickSplitFields::read(record)?;
    if init_or_prepare(record, page, fields.is_new_destination, fields.page_use(true))? == BlockRedo::Done {
        return Ok(());
    }
    fields.insert_leafs(page, true)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 2.
pub(super) fn inner(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = PickSplitFields::read(record)?;
    if init_or_prepare(record, page, fields.is_new_inner, fields.page_use(false))? == BlockRedo::Done {
        return Ok(());
    }
    add_or_replace(page, fields.inner_offset, fields.inner)?;
    if fields.inner_is_parent {
        fields.downlink.point_to(page, fields.inner_tid(record)?)?;
    }
    page.set_lsn(record.end);
    Ok(())
}

/// Block 3.
pub(super) fn parent(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = PickSplitFields::read(record)?;
    fields.downlink.redo(record, page, fields.inner_tid(record)?)
}
