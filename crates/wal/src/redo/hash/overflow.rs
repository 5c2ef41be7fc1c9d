//! Overflow pages of buckets, and the bitmaps of those that are free (hash_xlog.c, hashovfl.c, 15.18).

use super::bucket::add_tuples;
use super::page::{HashPage, LH_BITMAP_PAGE, LH_OVERFLOW_PAGE, LH_UNUSED_PAGE, NewPage};
use crate::redo::block::{block_number, change_if_needed};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::{HEADER_BYTES, PageLayout};
use crate::{BlockRef, Page, Record};

/// `hash_xlog_init_bitmap_page`, block 0, and `hash_xlog_add_ovfl_page`, block 3 (`_hash_initbitmapbuffer`):
/// no page is free yet. Both records begin with the bitmap's size.
pub(super) fn init_bitmap(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let bitmap_bytes = Fields::new(record.main).u16()?;
    HashPage::init(page, &NewPage::outside_buckets(LH_BITMAP_PAGE));
    page.bytes_mut(HEADER_BYTES, usize::from(bitmap_bytes))?
        .fill(0xFF);
    page.set_lower((HEADER_BYTES + usize::from(bitmap_bytes)) as u16);
    page.set_lsn(record.end);
    Ok(())
}

/// `hash_xlog_add_ovfl_page`, block 0: the new page.
pub(super) fn init(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let new = NewPage {
        previous: block_number(record, 1)?,
        bucket: Fields::new(block.data).u32()?,
        flags: LH_OVERFLOW_PAGE,
    };
    HashPage::init(page, &new);
    page.set_lsn(record.end);
    Ok(())
}

/// `hash_xlog_add_ovfl_page`, block 1: the page in front of the new one.
pub(super) fn link_new(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        HashPage::of(page)?.set_next(block_number(record, 0)?);
        Ok(())
    })
}

/// `hash_xlog_add_ovfl_page`, block 2: a bitmap that knew the page as free.
pub(super) fn mark_used(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        change_bit(page, block.data, |word, bit| word | bit)
    })
}

/// `hash_xlog_squeeze_page`, block 5: a bitmap that now knows the page as free.
pub(super) fn mark_free(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        change_bit(page, block.data, |word, bit| word & !bit)
    })
}

/// `SETBIT`, `CLRBIT`: the bit whose number is `data`, in a bitmap of 32-bit words.
fn change_bit(page: &mut Page, data: &[u8], change: impl FnOnce(u32, u32) -> u32) -> Result<(), RedoFault> {
    let number = Fields::new(data).u32()?;
    let at = HEADER_BYTES + number as usize / 32 * 4;
    check_bitmap_range(page, at, at + 4)?;
    page.put_u32(at, change(page.u32_at(at), 1 << (number % 32)));
    Ok(())
}

/// Bitmaps end before the special space.
fn check_bitmap_range(page: &Page, at: usize, end: usize) -> Result<(), RedoFault> {
    if end > usize::from(page.special()).min(page.len()) {
        return Err(RedoFault::OutsidePage { at, end });
    }
    Ok(())
}

/// `xl_hash_squeeze_page`.
struct SqueezeFields {
    /// Neighbours of the freed page.
    previous: u32,
    next: u32,
    tuples: u16,
    /// The tuples go to the page in front of the freed one.
    writes_to_previous: bool,
}

impl SqueezeFields {
    fn read(record: &Record<'_>) -> Result<SqueezeFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        let (previous, next) = (fields.u32()?, fields.u32()?);
        let tuples = fields.u16()?;
        let _writes_to_first_page = fields.bool()?;
        Ok(SqueezeFields {
            previous,
            next,
            tuples,
            writes_to_previous: fields.bool()?,
        })
    }
}

/// `hash_xlog_squeeze_page`, block 1: the page that takes the last tuples of the freed one, maybe none.
pub(super) fn add_squeezed(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let fields = SqueezeFields::read(record)?;
        if fields.tuples > 0 {
            add_tuples(page, block.data, fields.tuples)?;
        }
        if fields.writes_to_previous {
            HashPage::of(page)?.set_next(fields.next);
        }
        Ok(())
    })
}

/// `hash_xlog_squeeze_page`, block 2: the freed page.
pub(super) fn free(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        HashPage::init(page, &NewPage::outside_buckets(LH_UNUSED_PAGE));
        Ok(())
    })
}

/// `hash_xlog_squeeze_page`, block 3.
pub(super) fn unlink_from_previous(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = SqueezeFields::read(record)?;
    if fields.writes_to_previous {
        return Err(RedoFault::UnrelatedPage);
    }
    change_if_needed(record, page, |page| {
        HashPage::of(page)?.set_next(fields.next);
        Ok(())
    })
}

/// `hash_xlog_squeeze_page`, block 4.
pub(super) fn unlink_from_next(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        HashPage::of(page)?.set_previous(SqueezeFields::read(record)?.previous);
        Ok(())
    })
}
