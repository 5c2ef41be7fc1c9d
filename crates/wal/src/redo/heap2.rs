//! Redo of resource manager Heap2 (heapam.c `heap2_redo`, 15.18).

use super::block::{BlockRedo, block_number, prepare};
use super::compact::{free_dead_line_pointer, repair_fragmentation, truncate_line_pointer_array};
use super::error::RedoFault;
use super::fields::Fields;
use super::heap::{INSERT_ALL_FROZEN_SET, INSERT_ALL_VISIBLE_CLEARED, add_tuple, kind::INIT_PAGE};
use super::heap_tuple::{HeapTuple, LoggedHeader, TupleId};
use super::page::{ItemId, PD_ALL_VISIBLE, PageLayout};
use super::visibility_map;
use crate::{BlockRef, Page, Record, RedoContext};

/// `XLOG_HEAP2_*`.
pub(crate) mod kind {
    pub(crate) const PRUNE: u8 = 0x10;
    pub(crate) const VACUUM: u8 = 0x20;
    pub(crate) const FREEZE_PAGE: u8 = 0x30;
    pub(crate) const VISIBLE: u8 = 0x40;
    pub(crate) const MULTI_INSERT: u8 = 0x50;
    pub(crate) const LOCK_UPDATED: u8 = 0x60;
}

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
    ctx: &RedoContext,
) -> Result<(), RedoFault> {
    match record.info & super::heap::kind::OPERATION_MASK {
        kind::PRUNE => prune(record, block, page),
        kind::VACUUM => vacuum(record, block, page),
        kind::FREEZE_PAGE => freeze_page(record, block, page),
        kind::VISIBLE => visible(record, block, page, ctx),
        kind::MULTI_INSERT => multi_insert(record, block, page),
        kind::LOCK_UPDATED => lock_updated(record, page),
        _ => Err(RedoFault::UnrelatedPage), // REWRITE and NEW_CID are there for logical decoding only
    }
}

/// `heap_xlog_prune` and `heap_page_prune_execute` (pruneheap.c).
fn prune(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let _latest_removed_xid = fields.u32()?;
    let redirected_count = usize::from(fields.u16()?);
    let dead_count = usize::from(fields.u16()?);
    let mut data = Fields::new(block.data);
    let redirected = data.u16_array(redirected_count * 2)?;
    let dead = data.u16_array(dead_count)?;
    let unused = data.u16_array(data.remaining() / 2)?;

    let mut redirected = redirected.iter();
    while let (Some(from), Some(to)) = (redirected.next(), redirected.next()) {
        set_existing_item_id(page, from, ItemId::redirect(to))?;
    }
    for offset in dead.iter() {
        set_existing_item_id(page, offset, ItemId::dead())?;
    }
    for offset in unused.iter() {
        set_existing_item_id(page, offset, ItemId::UNUSED)?;
    }
    repair_fragmentation(page)?;
    page.set_lsn(record.end);
    Ok(())
}

fn set_existing_item_id(page: &mut Page, offset: u16, item: ItemId) -> Result<(), RedoFault> {
    page.item_id(offset)?;
    page.set_item_id(offset, item)
}

/// `heap_xlog_vacuum`: dead line pointers become unused.
fn vacuum(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let unused_count = usize::from(Fields::new(record.main).u16()?);
    for offset in Fields::new(block.data).u16_array(unused_count)?.iter() {
        free_dead_line_pointer(page, offset)?;
    }
    truncate_line_pointer_array(page)?;
    page.set_lsn(record.end);
    Ok(())
}

/// `heap_xlog_freeze_page` and `heap_execute_freeze_tuple`.
fn freeze_page(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    const FREEZE_XVAC: u8 = 0x02;
    const INVALID_XVAC: u8 = 0x04;
    const FROZEN_XID: u32 = 2;
    /// `sizeof(xl_heap_freeze_tuple)`, padding included.
    const PLAN_BYTES: usize = 12;
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let _cutoff_xid = fields.u32()?;
    let count = usize::from(fields.u16()?);
    for plan in Fields::new(block.data)
        .take(count * PLAN_BYTES)?
        .chunks_exact(PLAN_BYTES)
    {
        let mut plan = Fields::new(plan);
        let xmax = plan.u32()?;
        let offset = plan.u16()?;
        let infomask2 = plan.u16()?;
        let infomask = plan.u16()?;
        let flags = plan.u8()?;
        let mut tuple = HeapTuple::normal_at(page, offset)?;
        tuple.set_xmax(xmax);
        if flags & FREEZE_XVAC != 0 {
            tuple.set_command_id(FROZEN_XID);
        }
        if flags & INVALID_XVAC != 0 {
            tuple.set_command_id(0);
        }
        tuple.set_infomask(infomask);
        tuple.set_infomask2(infomask2);
    }
    page.set_lsn(record.end);
    Ok(())
}

/// `heap_xlog_visible`: block 0 is the map page, block 1 the heap page.
///
/// The heap page gets its flag, but the record's LSN only where hint bits are logged.
fn visible(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
    ctx: &RedoContext,
) -> Result<(), RedoFault> {
    let mut fields = Fields::new(record.main);
    let _cutoff_xid = fields.u32()?;
    let flags = fields.u8()?;
    if block.id == 0 {
        let heap_block = block_number(record, 1)?;
        return visibility_map::set(record.end, heap_block, flags, page);
    }
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    page.set_flags(PD_ALL_VISIBLE);
    if ctx.hint_bits_logged {
        page.set_lsn(record.end);
    }
    Ok(())
}

/// `heap_xlog_multi_insert`.
fn multi_insert(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let is_init = record.info & INIT_PAGE != 0;
    if is_init {
        page.init(0);
    } else if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let flags = fields.u8()?;
    fields.align(2);
    let count = fields.u16()?;
    let mut data = Fields::new(block.data);
    for index in 0..count {
        // A page made anew is filled in order; otherwise the record lists the line pointers.
        let offset = if is_init {
            index.saturating_add(1)
        } else {
            fields.u16()?
        };
        data.align(2);
        let len = usize::from(data.u16()?);
        let header = LoggedHeader {
            infomask2: data.u16()?,
            infomask: data.u16()?,
            data_offset: data.u8()?,
        };
        let ctid = TupleId {
            block: block.block,
            offset,
        };
        add_tuple(page, ctid, header, record.xid, data.take(len)?)?;
    }
    data.finish()?;
    page.set_lsn(record.end);
    if flags & INSERT_ALL_VISIBLE_CLEARED != 0 {
        page.clear_flags(PD_ALL_VISIBLE);
    }
    if flags & INSERT_ALL_FROZEN_SET != 0 {
        page.set_flags(PD_ALL_VISIBLE);
    }
    Ok(())
}

/// `heap_xlog_lock_updated`.
fn lock_updated(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let xmax = fields.u32()?;
    let offset = fields.u16()?;
    let infobits = fields.u8()?;
    let mut tuple = HeapTuple::normal_at(page, offset)?;
    tuple.replace_xmax_bits(infobits);
    tuple.set_xmax(xmax);
    page.set_lsn(record.end);
    Ok(())
}
