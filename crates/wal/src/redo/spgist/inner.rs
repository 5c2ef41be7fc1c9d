//! Inner tuples grow or are split in two (spgxlog.c `spgRedoAddNode`, `spgRedoSplitTuple`, 15.18).

use super::page::{
    Counter, Downlink, PageUse, WriterState, add_or_replace, count, init_or_prepare, replace_item,
};
use super::tuple::{self, DeadTuple};
use crate::redo::block::{BlockRedo, block_number, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple::{StoredTid, stored_tid};
use crate::redo::page::PageLayout;
use crate::{Page, Record};

/// These records leave the tree of nulls alone.
const INNER_PAGE: PageUse = PageUse {
    is_leaf: false,
    stores_nulls: false,
};

/// `spgxlogAddNode`.
struct AddNodeFields<'a> {
    offset: u16,
    new_offset: u16,
    is_new_page: bool,
    /// The block id of the page with the downlink; 0xFF if the tuple stays where it is.
    parent_block: u8,
    downlink: Downlink,
    writer: WriterState,
    tuple: &'a [u8],
}

impl<'a> AddNodeFields<'a> {
    fn read(record: &'a Record<'_>) -> Result<AddNodeFields<'a>, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(AddNodeFields {
            offset: fields.u16()?,
            new_offset: fields.u16()?,
            is_new_page: fields.u8()? != 0,
            parent_block: fields.u8()?,
            downlink: Downlink::read(&mut fields)?,
            writer: WriterState::read(&mut fields)?,
            tuple: tuple::read_inner(&mut fields)?,
        })
    }

    fn new_place(&self, record: &Record<'_>) -> Result<StoredTid, RedoFault> {
        Ok(stored_tid(block_number(record, 1)?, self.new_offset))
    }

    /// Updates the downlink if it is on block `id`.
    fn point_downlink(&self, record: &Record<'_>, id: u8, page: &mut Page) -> Result<(), RedoFault> {
        if self.parent_block != id {
            return Ok(());
        }
        self.downlink.point_to(page, self.new_place(record)?)
    }
}

/// Block 0 of ADD_NODE: the tuple is replaced in place, or leaves a redirection behind.
pub(super) fn enlarged(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let fields = AddNodeFields::read(record)?;
    if record.block(1).is_none() {
        replace_item(page, fields.offset, fields.tuple)?;
    } else {
        let left_behind = fields.writer.tuple_left_behind(fields.new_place(record)?);
        replace_item(page, fields.offset, &left_behind.bytes())?;
        let counter = match left_behind {
            DeadTuple::Redirect { .. } => Counter::Redirects,
            DeadTuple::Dead | DeadTuple::Placeholder => Counter::Placeholders,
        };
        count(page, counter, 1)?;
        fields.point_downlink(record, 0, page)?;
    }
    page.set_lsn(record.end);
    Ok(())
}

/// Block 1 of ADD_NODE: the page that the tuple moves to.
pub(super) fn new_place_of_enlarged(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = AddNodeFields::read(record)?;
    if init_or_prepare(record, page, fields.is_new_page, INNER_PAGE)? == BlockRedo::Done {
        return Ok(());
    }
    add_or_replace(page, fields.new_offset, fields.tuple)?;
    fields.point_downlink(record, 1, page)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 2 of ADD_NODE: the page with the downlink, if it is neither the old one nor the new one.
pub(super) fn parent_of_enlarged(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = AddNodeFields::read(record)?;
    if fields.parent_block != 2 {
        return Err(RedoFault::UnrelatedPage);
    }
    fields.downlink.redo(record, page, fields.new_place(record)?)
}

/// `spgxlogSplitTuple`.
struct SplitFields<'a> {
    prefix_offset: u16,
    postfix_offset: u16,
    is_new_page: bool,
    /// The postfix tuple is on the prefix tuple's page.
    on_same_page: bool,
    prefix: &'a [u8],
    postfix: &'a [u8],
}

impl<'a> SplitFields<'a> {
    fn read(record: &'a Record<'_>) -> Result<SplitFields<'a>, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(SplitFields {
            prefix_offset: fields.u16()?,
            postfix_offset: fields.u16()?,
            is_new_page: fields.u8()? != 0,
            on_same_page: fields.u8()? != 0,
            prefix: tuple::read_inner(&mut fields)?,
            postfix: tuple::read_inner(&mut fields)?,
        })
    }
}

/// Block 0 of SPLIT_TUPLE: the prefix tuple replaces the one that is split.
pub(super) fn prefix(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let fields = SplitFields::read(record)?;
    replace_item(page, fields.prefix_offset, fields.prefix)?;
    if fields.on_same_page {
        add_or_replace(page, fields.postfix_offset, fields.postfix)?;
    }
    page.set_lsn(record.end);
    Ok(())
}

/// Block 1 of SPLIT_TUPLE: the postfix tuple's page, if it is another one.
pub(super) fn postfix(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = SplitFields::read(record)?;
    if fields.on_same_page {
        return Err(RedoFault::UnrelatedPage);
    }
    if init_or_prepare(record, page, fields.is_new_page, INNER_PAGE)? == BlockRedo::Done {
        return Ok(());
    }
    add_or_replace(page, fields.postfix_offset, fields.postfix)?;
    page.set_lsn(record.end);
    Ok(())
}
