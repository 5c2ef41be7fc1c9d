//! Page splits and new roots (nbtxlog.c `btree_xlog_split`, `btree_xlog_newroot`, 15.18).

use pg_quorum_types::BLOCK_SIZE;

use super::page::{BTP_INCOMPLETE_SPLIT, BTP_LEAF, BTP_ROOT, BtreePage, HIGH_KEY};
use super::tuple;
use crate::redo::block::{BlockRedo, block_number, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple::take_aligned;
use crate::redo::page::{PageLayout, max_align};
use crate::{BlockRef, Page, Record};

/// `xl_btree_split`.
struct SplitFields {
    level: u32,
    /// First item of the original page that goes to the right.
    first_right: u16,
    new_item: u16,
    /// Where the posting list in front of the new item is split, 0 for not at all.
    posting_at: u16,
}

impl SplitFields {
    fn read(record: &Record<'_>) -> Result<SplitFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(SplitFields {
            level: fields.u32()?,
            first_right: fields.u16()?,
            new_item: fields.u16()?,
            posting_at: fields.u16()?,
        })
    }

    fn leaf_flag(&self) -> u16 {
        if self.level == 0 { BTP_LEAF } else { 0 }
    }
}

/// Block 1: the new right page, whole in the record.
pub(super) fn right_half(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    let fields = SplitFields::read(record)?;
    let mut right = BtreePage::init(page);
    right.set_previous(block_number(record, 0)?);
    right.set_next(record.block(2).map_or(0, |neighbour| neighbour.block));
    right.set_level(fields.level);
    right.set_flags(fields.leaf_flag());
    right.restore_items(block.data)?;
    page.set_lsn(record.end);
    Ok(())
}

/// Block 2: the page to the right of the new one.
pub(super) fn right_neighbour(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let right = block_number(record, 1)?;
    BtreePage::of(page)?.set_previous(right);
    page.set_lsn(record.end);
    Ok(())
}

/// What block 0's data holds for the left page.
struct LeftData<'a> {
    /// As the record has it; with a posting list split, its TID is traded for the list's highest.
    new_item: Option<&'a [u8]>,
    high_key: &'a [u8],
}

impl<'a> LeftData<'a> {
    fn read(data: &'a [u8], has_new_item: bool) -> Result<LeftData<'a>, RedoFault> {
        let mut fields = Fields::new(data);
        let new_item = has_new_item.then(|| take_aligned(&mut fields)).transpose()?;
        let high_key = take_aligned(&mut fields)?;
        fields.finish()?;
        Ok(LeftData { new_item, high_key })
    }
}

/// Block 0: the original page becomes the left half, its items in item number order.
pub(super) fn left_half(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
    new_item_on_left: bool,
) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let fields = SplitFields::read(record)?;
    let splits_posting = fields.posting_at != 0;
    let data = LeftData::read(block.data, new_item_on_left || splits_posting)?;
    let mut left_page: Page = [0; BLOCK_SIZE];
    let original = BtreePage::of(page)?;
    original.empty_copy(&mut left_page);

    let mut left = Filler {
        page: &mut left_page,
        next: HIGH_KEY,
    };
    left.add(data.high_key)?;
    // The TID that the new item gets, once the posting list has given it up.
    let mut traded_tid = None;
    for offset in original.first_data_key()..fields.first_right {
        if splits_posting && offset == fields.new_item.saturating_sub(1) {
            let wanted = data.new_item.ok_or(RedoFault::MissingBlock { id: 0 })?;
            let posting = original.page.item(offset)?;
            let posting_size = max_align(tuple::size(posting)?);
            let posting_at = original.page.item_id(offset)?.offset();
            let at = left.add(original.page.bytes(posting_at, posting_size)?)?;
            let posting = left.page.bytes_mut(at, posting_size)?;
            let tid = tuple::plain_tid(wanted)?;
            traded_tid = Some(tuple::swap_posting(posting, usize::from(fields.posting_at), tid)?);
            continue;
        }
        if new_item_on_left && offset == fields.new_item {
            left.add_new_item(data.new_item, traded_tid)?;
        }
        left.add(original.page.item(offset)?)?;
    }
    if new_item_on_left && fields.new_item == fields.first_right.max(original.first_data_key()) {
        left.add_new_item(data.new_item, traded_tid)?;
    }

    *page = left_page;
    let mut left = BtreePage::of(page)?;
    left.set_flags(BTP_INCOMPLETE_SPLIT | fields.leaf_flag());
    left.set_next(block_number(record, 1)?);
    left.set_cycle_id(0);
    page.set_lsn(record.end);
    Ok(())
}

/// Adds items one after the other.
struct Filler<'a> {
    page: &'a mut Page,
    next: u16,
}

impl Filler<'_> {
    fn add(&mut self, item: &[u8]) -> Result<usize, RedoFault> {
        let at = self.page.add_index_item(self.next, item)?;
        self.next += 1;
        Ok(at)
    }

    fn add_new_item(&mut self, item: Option<&[u8]>, tid: Option<tuple::StoredTid>) -> Result<(), RedoFault> {
        let at = self.add(item.ok_or(RedoFault::MissingBlock { id: 0 })?)?;
        if let Some(tid) = tid {
            self.page.bytes_mut(at, tid.len())?.copy_from_slice(&tid);
        }
        Ok(())
    }
}

/// Block 0 of NEWROOT: a new root, with two downlinks or (as the first page of an index) empty.
pub(super) fn new_root(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = Fields::new(record.main);
    let _root_block = fields.u32()?;
    let level = fields.u32()?;
    let mut root = BtreePage::init(page);
    root.set_level(level);
    if level == 0 {
        root.set_flags(BTP_ROOT | BTP_LEAF);
    } else {
        root.set_flags(BTP_ROOT);
        root.restore_items(block.data)?;
    }
    page.set_lsn(record.end);
    Ok(())
}
