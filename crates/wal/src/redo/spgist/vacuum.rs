//! Vacuum of leaf pages, of a root that is a leaf, and of what moved tuples left behind (spgxlog.c
//! `spgRedoVacuumLeaf`, `spgRedoVacuumRoot`, `spgRedoVacuumRedirect`, 15.18).

use super::page::{Counter, WriterState, count, replace_by_dead};
use super::tuple::{self, DeadTuple};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::compact::delete_index_items;
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::PageLayout;
use crate::{Page, Record};

/// Block 0 of VACUUM_LEAF: `spgxlogVacuumLeaf` and its six arrays of item numbers.
pub(super) fn leaf(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let dead_count = usize::from(fields.u16()?);
    let placeholder_count = usize::from(fields.u16()?);
    let move_count = usize::from(fields.u16()?);
    let chain_count = usize::from(fields.u16()?);
    let _writer = WriterState::read(&mut fields)?;
    let to_dead = fields.u16_array(dead_count)?;
    let to_placeholder = fields.u16_array(placeholder_count)?;
    let move_from = fields.u16_array(move_count)?;
    let move_to = fields.u16_array(move_count)?;
    let chained = fields.u16_array(chain_count)?;
    let next = fields.u16_array(chain_count)?;

    replace_by_dead(page, to_dead, DeadTuple::Dead, DeadTuple::Dead)?;
    replace_by_dead(
        page,
        to_placeholder,
        DeadTuple::Placeholder,
        DeadTuple::Placeholder,
    )?;
    // A tuple moves by its line pointer: the bytes stay where they are.
    for (from, to) in move_from.iter().zip(move_to) {
        let (moved, removed) = (page.item_id(from)?, page.item_id(to)?);
        page.set_item_id(from, removed)?;
        page.set_item_id(to, moved)?;
    }
    replace_by_dead(page, move_from, DeadTuple::Placeholder, DeadTuple::Placeholder)?;
    for (offset, next) in chained.iter().zip(next) {
        tuple::set_next_offset(page.item_mut(offset)?, next)?;
    }
    page.set_lsn(record.end);
    Ok(())
}

/// Block 0 of VACUUM_ROOT: `spgxlogVacuumRoot`.
pub(super) fn root(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let delete_count = usize::from(fields.u16()?);
    let _writer = WriterState::read(&mut fields)?;
    delete_index_items(page, fields.u16_array(delete_count)?)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 0 of VACUUM_REDIRECT: `spgxlogVacuumRedirect`.
pub(super) fn redirects(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let redirect_count = fields.u16()?;
    // The placeholders from here to the page's end go; 0 for none.
    let first_placeholder = fields.u16()?;
    let _newest_redirect_xid = fields.u32()?;
    for offset in fields.u16_array(usize::from(redirect_count))? {
        tuple::redirect_to_placeholder(page.item_mut(offset)?)?;
    }
    count(page, Counter::Redirects, -i32::from(redirect_count))?;
    count(page, Counter::Placeholders, i32::from(redirect_count))?;
    if first_placeholder != 0 {
        let last = page.max_offset();
        if first_placeholder > last {
            return Err(RedoFault::LinePointer {
                offset: first_placeholder,
                reason: "does not exist",
            });
        }
        count(
            page,
            Counter::Placeholders,
            -i32::from(last - first_placeholder + 1),
        )?;
        delete_index_items(page, first_placeholder..=last)?;
    }
    page.set_lsn(record.end);
    Ok(())
}
