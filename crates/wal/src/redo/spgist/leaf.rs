//! Leaf tuples are added, or move with their chain to another page (spgxlog.c `spgRedoAddLeaf`,
//! `spgRedoMoveLeafs`, 15.18).

use super::page::{
    Downlink, PageUse, WriterState, add_or_replace, init_or_prepare, replace_by_dead, replace_item,
};
use super::tuple::{self, DeadTuple};
use crate::redo::block::{BlockRedo, block_number, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::{Fields, U16Array};
use crate::redo::index_tuple::{StoredTid, stored_tid};
use crate::redo::page::PageLayout;
use crate::{Page, Record};

/// `spgxlogAddLeaf`.
struct AddFields<'a> {
    is_new_page: bool,
    page_use: PageUse,
    offset: u16,
    /// Of the first tuple in the chain, 0 for a chain of one; equal to `offset` if that tuple was dead.
    head_offset: u16,
    downlink: Downlink,
    tuple: &'a [u8],
}

impl<'a> AddFields<'a> {
    fn read(record: &'a Record<'_>) -> Result<AddFields<'a>, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(AddFields {
            is_new_page: fields.u8()? != 0,
            page_use: PageUse {
                is_leaf: true,
                stores_nulls: fields.u8()? != 0,
            },
            offset: fields.u16()?,
            head_offset: fields.u16()?,
            downlink: Downlink::read(&mut fields)?,
            tuple: tuple::read_leaf(&mut fields)?,
        })
    }
}

/// Block 0 of ADD_LEAF.
pub(super) fn add(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = AddFields::read(record)?;
    if init_or_prepare(record, page, fields.is_new_page, fields.page_use)? == BlockRedo::Done {
        return Ok(());
    }
    if fields.offset == fields.head_offset {
        replace_item(page, fields.offset, fields.tuple)?;
    } else {
        add_or_replace(page, fields.offset, fields.tuple)?;
        if fields.head_offset != 0 {
            tuple::set_next_offset(page.item_mut(fields.head_offset)?, fields.offset)?;
        }
    }
    page.set_lsn(record.end);
    Ok(())
}

/// Block 1 of ADD_LEAF: the inner tuple above a new chain.
pub(super) fn parent_of_added(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = AddFields::read(record)?;
    if fields.downlink.offset == 0 {
        return Err(RedoFault::UnrelatedPage);
    }
    let leaf = stored_tid(block_number(record, 0)?, fields.offset);
    fields.downlink.redo(record, page, leaf)
}

/// `spgxlogMoveLeafs`.
struct MoveFields<'a> {
    is_new_page: bool,
    page_use: PageUse,
    downlink: Downlink,
    writer: WriterState,
    deleted: U16Array<'a>,
    inserted: U16Array<'a>,
    /// The leaf tuples to insert.
    tuples: Fields<'a>,
}

impl<'a> MoveFields<'a> {
    fn read(record: &'a Record<'_>) -> Result<MoveFields<'a>, RedoFault> {
        let mut fields = Fields::new(record.main);
        let move_count = usize::from(fields.u16()?);
        let is_new_page = fields.u8()? != 0;
        let replaces_dead = fields.u8()? != 0;
        let stores_nulls = fields.u8()? != 0;
        let downlink = Downlink::read(&mut fields)?;
        let writer = WriterState::read(&mut fields)?;
        // A chain that is only a dead tuple leaves it behind.
        let insert_count = if replaces_dead { 1 } else { move_count + 1 };
        Ok(MoveFields {
            is_new_page,
            page_use: PageUse {
                is_leaf: true,
                stores_nulls,
            },
            downlink,
            writer,
            deleted: fields.u16_array(move_count)?,
            inserted: fields.u16_array(insert_count)?,
            tuples: fields,
        })
    }

    /// The chain's new head: the tuple that was inserted last.
    fn head(&self, record: &Record<'_>) -> Result<StoredTid, RedoFault> {
        let offset = self.inserted.iter().next_back().unwrap_or_default();
        Ok(stored_tid(block_number(record, 1)?, offset))
    }
}

/// Block 1 of MOVE_LEAFS: the page that gets the chain.
pub(super) fn move_destination(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = MoveFields::read(record)?;
    if init_or_prepare(record, page, fields.is_new_page, fields.page_use)? == BlockRedo::Done {
        return Ok(());
    }
    for offset in fields.inserted {
        add_or_replace(page, offset, tuple::read_leaf(&mut fields.tuples)?)?;
    }
    page.set_lsn(record.end);
    Ok(())
}

/// Block 0 of MOVE_LEAFS: the page that had the chain.
pub(super) fn move_source(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let fields = MoveFields::read(record)?;
    let first = fields.writer.tuple_left_behind(fields.head(record)?);
    replace_by_dead(page, fields.deleted, first, DeadTuple::Placeholder)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 2 of MOVE_LEAFS: the inner tuple above the chain.
pub(super) fn parent_of_moved(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = MoveFields::read(record)?;
    fields.downlink.redo(record, page, fields.head(record)?)
}
