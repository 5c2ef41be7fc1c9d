//! Redo of resource manager Heap (heapam.c `heap_redo`, 15.18).

use super::block::{BlockRedo, prepare};
use super::error::RedoFault;
use super::fields::Fields;
use super::heap_tuple::{HeapTuple, LoggedHeader, TUPLE_HEADER_BYTES, TupleId, write_header};
use super::page::{PD_ALL_VISIBLE, PageLayout, Placement};
use crate::{BlockRef, Page, Record};

/// `XLOG_HEAP_*`.
pub(crate) mod kind {
    pub(crate) const OPERATION_MASK: u8 = 0x70;
    pub(crate) const INIT_PAGE: u8 = 0x80;
    pub(crate) const INSERT: u8 = 0x00;
    pub(crate) const DELETE: u8 = 0x10;
    pub(crate) const UPDATE: u8 = 0x20;
    pub(crate) const HOT_UPDATE: u8 = 0x40;
    pub(crate) const CONFIRM: u8 = 0x50;
    pub(crate) const LOCK: u8 = 0x60;
    pub(crate) const INPLACE: u8 = 0x70;
}

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    match record.info & kind::OPERATION_MASK {
        kind::INSERT => insert(record, block, page),
        kind::DELETE => delete(record, block, page),
        kind::UPDATE => update(record, block, page, false),
        kind::HOT_UPDATE => update(record, block, page, true),
        kind::CONFIRM => confirm(record, block, page),
        kind::LOCK => lock(record, block, page),
        kind::INPLACE => inplace(record, block, page),
        _ => Err(RedoFault::UnrelatedPage), // TRUNCATE is there for logical decoding only
    }
}

/// Flags of `xl_heap_insert` and `xl_heap_multi_insert`.
pub(super) const INSERT_ALL_VISIBLE_CLEARED: u8 = 1 << 0;
pub(super) const INSERT_ALL_FROZEN_SET: u8 = 1 << 5;

/// `heap_xlog_insert`.
fn insert(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if record.info & kind::INIT_PAGE != 0 {
        page.init(0);
    } else if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let offset = fields.u16()?;
    let flags = fields.u8()?;
    let mut data = Fields::new(block.data);
    let header = logged_header(&mut data)?;
    let ctid = TupleId {
        block: block.block,
        offset,
    };
    add_tuple(page, ctid, header, record.xid, data.rest())?;
    page.set_lsn(record.end);
    if flags & INSERT_ALL_VISIBLE_CLEARED != 0 {
        page.clear_flags(PD_ALL_VISIBLE);
    }
    Ok(())
}

/// `xl_heap_header`.
fn logged_header(data: &mut Fields<'_>) -> Result<LoggedHeader, RedoFault> {
    Ok(LoggedHeader {
        infomask2: data.u16()?,
        infomask: data.u16()?,
        data_offset: data.u8()?,
    })
}

/// Adds a tuple whose null bitmap and data are `body` at `ctid`, which is its own address.
pub(super) fn add_tuple(
    page: &mut Page,
    ctid: TupleId,
    header: LoggedHeader,
    xmin: u32,
    body: &[u8],
) -> Result<(), RedoFault> {
    let size = TUPLE_HEADER_BYTES + body.len();
    let at = page.reserve_item(ctid.offset, size, Placement::Heap)?;
    let tuple = page.bytes_mut(at, size)?;
    tuple[TUPLE_HEADER_BYTES..].copy_from_slice(body);
    write_header(tuple, header, xmin, 0, ctid)
}

/// `heap_xlog_delete`.
fn delete(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    const ALL_VISIBLE_CLEARED: u8 = 1 << 0;
    const IS_SUPER: u8 = 1 << 3;
    const IS_PARTITION_MOVE: u8 = 1 << 4;
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let xmax = fields.u32()?;
    let offset = fields.u16()?;
    let infobits = fields.u8()?;
    let flags = fields.u8()?;
    let mut tuple = HeapTuple::normal_at(page, offset)?;
    tuple.replace_xmax_bits(infobits);
    tuple.set_hot_updated(false);
    if flags & IS_SUPER == 0 {
        tuple.set_xmax(xmax);
    } else {
        tuple.set_xmin(0);
    }
    tuple.set_first_command();
    tuple.set_ctid(if flags & IS_PARTITION_MOVE != 0 {
        TupleId::MOVED_PARTITIONS
    } else {
        TupleId {
            block: block.block,
            offset,
        }
    });
    page.set_prunable(record.xid);
    if flags & ALL_VISIBLE_CLEARED != 0 {
        page.clear_flags(PD_ALL_VISIBLE);
    }
    page.set_lsn(record.end);
    Ok(())
}

/// `xl_heap_update`.
struct UpdateFields {
    old_xmax: u32,
    old_offset: u16,
    old_infobits: u8,
    flags: u8,
    new_xmax: u32,
    new_offset: u16,
}

impl UpdateFields {
    const OLD_ALL_VISIBLE_CLEARED: u8 = 1 << 0;
    const NEW_ALL_VISIBLE_CLEARED: u8 = 1 << 1;
    const PREFIX_FROM_OLD: u8 = 1 << 5;
    const SUFFIX_FROM_OLD: u8 = 1 << 6;

    fn read(record: &Record<'_>) -> Result<UpdateFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(UpdateFields {
            old_xmax: fields.u32()?,
            old_offset: fields.u16()?,
            old_infobits: fields.u8()?,
            flags: fields.u8()?,
            new_xmax: fields.u32()?,
            new_offset: fields.u16()?,
        })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// `heap_xlog_update`: block 0 gets the new tuple, block 1 has the old one if that is another page.
fn update(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page, is_hot: bool) -> Result<(), RedoFault> {
    let fields = UpdateFields::read(record)?;
    let new_block = record.block(0).ok_or(RedoFault::MissingBlock { id: 0 })?.block;
    let is_one_page = record.block(1).is_none_or(|old| old.block == new_block);
    let new_tid = TupleId {
        block: new_block,
        offset: fields.new_offset,
    };
    if !is_one_page && block.id == 0 && record.info & kind::INIT_PAGE != 0 {
        page.init(0);
    } else if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    if is_one_page || block.id == 1 {
        retire_old_tuple(record, &fields, new_tid, page, is_hot)?;
    }
    if block.id == 0 {
        add_updated_tuple(record, &fields, new_tid, block.data, page, is_one_page)?;
    }
    page.set_lsn(record.end);
    Ok(())
}

/// The first half: the old version points to the new one.
fn retire_old_tuple(
    record: &Record<'_>,
    fields: &UpdateFields,
    new_tid: TupleId,
    page: &mut Page,
    is_hot: bool,
) -> Result<(), RedoFault> {
    let mut tuple = HeapTuple::normal_at(page, fields.old_offset)?;
    tuple.replace_xmax_bits(fields.old_infobits);
    tuple.set_hot_updated(is_hot);
    tuple.set_xmax(fields.old_xmax);
    tuple.set_first_command();
    tuple.set_ctid(new_tid);
    page.set_prunable(record.xid);
    if fields.has(UpdateFields::OLD_ALL_VISIBLE_CLEARED) {
        page.clear_flags(PD_ALL_VISIBLE);
    }
    Ok(())
}

/// The second half: the new version, whose data may begin and end like the old one's.
///
/// ```text
/// header 23 | bitmap, padding (record) | prefix (old) | middle (record) | suffix (old)
/// ```
fn add_updated_tuple(
    record: &Record<'_>,
    fields: &UpdateFields,
    new_tid: TupleId,
    data: &[u8],
    page: &mut Page,
    is_one_page: bool,
) -> Result<(), RedoFault> {
    let bad_tuple = |reason| RedoFault::Tuple {
        offset: fields.new_offset,
        reason,
    };
    let mut data = Fields::new(data);
    let mut length_if = |flag| if fields.has(flag) { data.u16() } else { Ok(0) };
    let prefix = usize::from(length_if(UpdateFields::PREFIX_FROM_OLD)?);
    let suffix = usize::from(length_if(UpdateFields::SUFFIX_FROM_OLD)?);
    let header = logged_header(&mut data)?;
    let logged = data.rest();
    if prefix + suffix > 0 && !is_one_page {
        return Err(bad_tuple("shares data with a tuple on another page"));
    }
    // Without a prefix the boundary between bitmap and data does not matter.
    let bitmap = if prefix > 0 {
        usize::from(header.data_offset)
            .checked_sub(TUPLE_HEADER_BYTES)
            .filter(|len| *len <= logged.len())
            .ok_or(bad_tuple("data offset does not fit the record"))?
    } else {
        logged.len()
    };
    let (old_data_at, old_end) = if prefix + suffix > 0 {
        let old_at = page.item_id(fields.old_offset)?.offset();
        let old = HeapTuple::normal_at(page, fields.old_offset)?;
        // None for a tuple whose data would begin behind its end.
        let old_data = old.len().checked_sub(old.data_offset());
        if old_data.is_none_or(|old_data| prefix > old_data || suffix > old_data) {
            return Err(bad_tuple("takes more from the old tuple than it has"));
        }
        (old_at + old.data_offset(), old_at + old.len())
    } else {
        (0, 0)
    };

    let size = TUPLE_HEADER_BYTES + logged.len() + prefix + suffix;
    let at = page.reserve_item(fields.new_offset, size, Placement::Heap)?;
    page.bytes_mut(at, size)?;
    let bitmap_at = at + TUPLE_HEADER_BYTES;
    let prefix_at = bitmap_at + bitmap;
    let middle_at = prefix_at + prefix;
    let suffix_at = at + size - suffix;
    page[bitmap_at..prefix_at].copy_from_slice(&logged[..bitmap]);
    page.copy_within(old_data_at..old_data_at + prefix, prefix_at);
    page[middle_at..suffix_at].copy_from_slice(&logged[bitmap..]);
    page.copy_within(old_end - suffix..old_end, suffix_at);
    write_header(
        &mut page[at..at + size],
        header,
        record.xid,
        fields.new_xmax,
        new_tid,
    )?;
    if fields.has(UpdateFields::NEW_ALL_VISIBLE_CLEARED) {
        page.clear_flags(PD_ALL_VISIBLE);
    }
    Ok(())
}

/// `heap_xlog_confirm`: a speculative insertion stays.
fn confirm(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let offset = Fields::new(record.main).u16()?;
    HeapTuple::normal_at(page, offset)?.set_ctid(TupleId {
        block: block.block,
        offset,
    });
    page.set_lsn(record.end);
    Ok(())
}

/// `heap_xlog_lock`.
fn lock(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut fields = Fields::new(record.main);
    let locking_xid = fields.u32()?;
    let offset = fields.u16()?;
    let infobits = fields.u8()?;
    let mut tuple = HeapTuple::normal_at(page, offset)?;
    tuple.replace_xmax_bits(infobits);
    if tuple.is_xmax_lock_only() {
        tuple.set_hot_updated(false);
        tuple.set_ctid(TupleId {
            block: block.block,
            offset,
        });
    }
    tuple.set_xmax(locking_xid);
    tuple.set_first_command();
    page.set_lsn(record.end);
    Ok(())
}

/// `heap_xlog_inplace`: new attribute data of the same length.
fn inplace(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let offset = Fields::new(record.main).u16()?;
    let mut tuple = HeapTuple::normal_at(page, offset)?;
    let data = tuple.data_mut();
    if data.len() != block.data.len() {
        return Err(RedoFault::Tuple {
            offset,
            reason: "its data has another length than the record's",
        });
    }
    data.copy_from_slice(block.data);
    page.set_lsn(record.end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use pg_quorum_types::BLOCK_SIZE;

    use super::*;
    use crate::redo::test_records;

    /// The page's last tuple says that its data begins behind the page.
    #[test]
    fn an_update_shares_nothing_with_a_tuple_whose_data_begins_behind_its_end() {
        let mut page: Page = [0; BLOCK_SIZE];
        page.init(0);
        let at = page.reserve_item(1, 40, Placement::Heap).unwrap();
        page[at + 22] = 255;
        let fields = UpdateFields {
            old_xmax: 0,
            old_offset: 1,
            old_infobits: 0,
            flags: UpdateFields::SUFFIX_FROM_OLD,
            new_xmax: 0,
            new_offset: 2,
        };
        let new_tid = TupleId { block: 0, offset: 2 };
        let update = |suffix: u8, page: &mut Page| {
            let data = [suffix, 0, 0, 0, 0, 0, 24, 0];
            let record = test_records::record(crate::Rmgr::Heap, kind::HOT_UPDATE, &[], &[]);
            add_updated_tuple(&record, &fields, new_tid, &data, page, true)
        };
        assert!(matches!(
            update(8, &mut page),
            Err(RedoFault::Tuple { offset: 2, .. })
        ));
        page[at + 22] = 24;
        assert!(matches!(
            update(17, &mut page),
            Err(RedoFault::Tuple { offset: 2, .. })
        ));
        update(16, &mut page).unwrap();
    }
}
