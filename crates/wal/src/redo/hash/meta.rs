//! The metapage (`HashMetaPageData`, hash.h; hash_xlog.c, hashpage.c `_hash_init_metabuffer`, 15.18).
//!
//! ```text
//! page 24:  0 hashm_magic     16 hashm_ffactor   24 hashm_maxbucket   36 hashm_ovflpoint   48 hashm_procid
//!           4 hashm_version   18 hashm_bsize     28 hashm_highmask    40 hashm_firstfree   52 hashm_spares[98]
//!           8 hashm_ntuples   20 hashm_bmsize    32 hashm_lowmask     44 hashm_nmaps      444 hashm_mapp[1024]
//!             (f64)           22 hashm_bmshift
//! ```

use super::page::{HashPage, LH_META_PAGE, NewPage};
use crate::redo::block::change_if_needed;
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::{HEADER_BYTES, PageLayout};
use crate::{BlockRef, Page, Record};

/// `HASH_MAGIC`.
const MAGIC: u32 = 0x0644_0640;
/// `HASH_VERSION`.
const VERSION: u32 = 4;
/// `HashGetMaxBitmapSize`: a page without header and special space.
const PAGE_ROOM_BYTES: u16 = 8192 - 24 - 16;
/// The largest power of two in it.
const BITMAP_BYTES: u16 = 4096;
/// log2 of the bits in a bitmap.
const BITMAP_SHIFT: u16 = 15;
/// `HASH_MAX_SPLITPOINTS`.
const MAX_SPLITPOINTS: usize = 98;
/// `HASH_MAX_BITMAPS`.
const MAX_BITMAPS: usize = 1024;
/// `sizeof(HashMetaPageData)`.
const META_BYTES: usize = 4544;
/// `HASH_SPLITPOINT_GROUPS_WITH_ONE_PHASE`.
const GROUPS_WITH_ONE_PHASE: u32 = 10;
/// `HASH_SPLITPOINT_PHASE_BITS`: a later group has four phases.
const PHASE_BITS: u32 = 2;

const AT_TUPLES: usize = HEADER_BYTES + 8;
const AT_FILL_FACTOR: usize = HEADER_BYTES + 16;
const AT_PAGE_ROOM: usize = HEADER_BYTES + 18;
const AT_BITMAP_BYTES: usize = HEADER_BYTES + 20;
const AT_BITMAP_SHIFT: usize = HEADER_BYTES + 22;
const AT_MAX_BUCKET: usize = HEADER_BYTES + 24;
const AT_HIGH_MASK: usize = HEADER_BYTES + 28;
const AT_LOW_MASK: usize = HEADER_BYTES + 32;
const AT_SPLITPOINT: usize = HEADER_BYTES + 36;
const AT_FIRST_FREE: usize = HEADER_BYTES + 40;
const AT_BITMAP_COUNT: usize = HEADER_BYTES + 44;
const AT_PROCEDURE: usize = HEADER_BYTES + 48;
const AT_SPARES: usize = HEADER_BYTES + 52;
const AT_BITMAPS: usize = AT_SPARES + 4 * MAX_SPLITPOINTS;
const _: () = assert!(AT_BITMAPS + 4 * MAX_BITMAPS + 4 == HEADER_BYTES + META_BYTES);
const _: () = assert!(BITMAP_BYTES.is_power_of_two() && BITMAP_BYTES as u32 * 8 == 1 << BITMAP_SHIFT);
const _: () = assert!(BITMAP_BYTES <= PAGE_ROOM_BYTES && PAGE_ROOM_BYTES / 2 < BITMAP_BYTES);

/// `hash_xlog_init_meta_page`.
pub(super) fn init(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = Fields::new(record.main);
    let tuple_count = fields.f64()?;
    let procedure = fields.u32()?;
    let fill_factor = fields.u16()?;
    let buckets = initial_buckets(tuple_count / f64::from(fill_factor));
    let splitpoint = spare_index(buckets);
    let high_mask = (buckets + 1).next_power_of_two() - 1;

    HashPage::init(page, &NewPage::outside_buckets(LH_META_PAGE));
    page.put_u32(HEADER_BYTES, MAGIC);
    page.put_u32(HEADER_BYTES + 4, VERSION);
    page.put_u16(AT_FILL_FACTOR, fill_factor);
    page.put_u16(AT_PAGE_ROOM, PAGE_ROOM_BYTES);
    page.put_u16(AT_BITMAP_BYTES, BITMAP_BYTES);
    page.put_u16(AT_BITMAP_SHIFT, BITMAP_SHIFT);
    page.put_u32(AT_PROCEDURE, procedure);
    page.put_u32(AT_MAX_BUCKET, buckets - 1);
    page.put_u32(AT_HIGH_MASK, high_mask);
    page.put_u32(AT_LOW_MASK, high_mask >> 1);
    page.put_u32(spare_position(splitpoint)?, 1);
    page.put_u32(AT_SPLITPOINT, splitpoint);
    page.set_lower((HEADER_BYTES + META_BYTES) as u16);
    page.set_lsn(record.end);
    Ok(())
}

/// How many buckets an index starts with whose tuples would fill `wanted`.
fn initial_buckets(wanted: f64) -> u32 {
    const MAX: u32 = 0x4000_0000;
    if wanted <= 2.0 {
        2
    } else if wanted >= f64::from(MAX) {
        MAX
    } else {
        total_buckets(spare_index(wanted as u32))
    }
}

/// `_hash_spareindex`: the splitpoint phase that a bucket count belongs to.
fn spare_index(buckets: u32) -> u32 {
    let group = buckets.next_power_of_two().trailing_zeros();
    if group < GROUPS_WITH_ONE_PHASE {
        return group;
    }
    let phase = (buckets - 1) >> (group - (PHASE_BITS + 1)) & ((1 << PHASE_BITS) - 1);
    GROUPS_WITH_ONE_PHASE + ((group - GROUPS_WITH_ONE_PHASE) << PHASE_BITS) + phase
}

/// `_hash_get_totalbuckets`: how many buckets there are up to a splitpoint phase.
fn total_buckets(phase: u32) -> u32 {
    let Some(later) = phase.checked_sub(GROUPS_WITH_ONE_PHASE) else {
        return 1 << phase;
    };
    let before = 1 << (GROUPS_WITH_ONE_PHASE + (later >> PHASE_BITS) - 1);
    let phases = (later & ((1 << PHASE_BITS) - 1)) + 1;
    before + (before >> PHASE_BITS) * phases
}

/// `hash_xlog_init_bitmap_page`, block 1: the first bitmap lies behind the first buckets.
pub(super) fn add_first_bitmap(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let buckets = page.u32_at(AT_MAX_BUCKET).wrapping_add(1);
        add_bitmap(page, buckets.wrapping_add(1))
    })
}

/// `hash_xlog_insert`, block 1.
pub(super) fn count_inserted(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        put_tuple_count(page, tuple_count(page) + 1.0);
        Ok(())
    })
}

/// `hash_xlog_vacuum_one_page`, block 1.
pub(super) fn count_vacuumed(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let mut fields = Fields::new(record.main);
        let _latest_removed_xid = fields.u32()?;
        let removed = fields.u32()? as i32;
        put_tuple_count(page, tuple_count(page) - f64::from(removed));
        Ok(())
    })
}

/// `hash_xlog_update_meta_page`.
pub(super) fn set_tuple_count(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        put_tuple_count(page, Fields::new(record.main).f64()?);
        Ok(())
    })
}

/// `hash_xlog_add_ovfl_page`, block 4.
pub(super) fn add_overflow_page(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let mut fields = Fields::new(record.main);
        let _bitmap_bytes = fields.u16()?;
        let was_free = fields.bool()?;
        page.put_u32(AT_FIRST_FREE, Fields::new(block.data).u32()?);
        if was_free {
            return Ok(());
        }
        let spare = spare_position(page.u32_at(AT_SPLITPOINT))?;
        let mut new_pages = 1;
        if let Some(bitmap) = record.block(3) {
            add_bitmap(page, bitmap.block)?;
            new_pages += 1;
        }
        page.put_u32(spare, page.u32_at(spare).wrapping_add(new_pages));
        Ok(())
    })
}

/// `hash_xlog_split_allocate_page`, block 2.
pub(super) fn add_bucket(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    const UPDATE_MASKS: u8 = 1 << 0;
    const UPDATE_SPLITPOINT: u8 = 1 << 1;
    change_if_needed(record, page, |page| {
        let mut fields = Fields::new(record.main);
        let new_bucket = fields.u32()?;
        let _old_bucket_flags = fields.u16()?;
        let _new_bucket_flags = fields.u16()?;
        let flags = fields.u8()?;
        let mut data = Fields::new(block.data);
        page.put_u32(AT_MAX_BUCKET, new_bucket);
        if flags & UPDATE_MASKS != 0 {
            page.put_u32(AT_LOW_MASK, data.u32()?);
            page.put_u32(AT_HIGH_MASK, data.u32()?);
        }
        if flags & UPDATE_SPLITPOINT != 0 {
            let splitpoint = data.u32()?;
            page.put_u32(spare_position(splitpoint)?, data.u32()?);
            page.put_u32(AT_SPLITPOINT, splitpoint);
        }
        data.finish()
    })
}

/// `hash_xlog_squeeze_page`, block 6.
pub(super) fn set_first_free(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        page.put_u32(AT_FIRST_FREE, Fields::new(block.data).u32()?);
        Ok(())
    })
}

fn tuple_count(page: &Page) -> f64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&page[AT_TUPLES..AT_TUPLES + 8]);
    f64::from_le_bytes(bytes)
}

fn put_tuple_count(page: &mut Page, count: f64) {
    page[AT_TUPLES..AT_TUPLES + 8].copy_from_slice(&count.to_le_bytes());
}

/// Where `hashm_spares[splitpoint]` is.
fn spare_position(splitpoint: u32) -> Result<usize, RedoFault> {
    element(AT_SPARES, splitpoint, MAX_SPLITPOINTS)
}

/// Appends to `hashm_mapp`.
fn add_bitmap(page: &mut Page, block: u32) -> Result<(), RedoFault> {
    let count = page.u32_at(AT_BITMAP_COUNT);
    page.put_u32(element(AT_BITMAPS, count, MAX_BITMAPS)?, block);
    page.put_u32(AT_BITMAP_COUNT, count + 1);
    Ok(())
}

/// Where element `index` of an array of `len` numbers is.
fn element(array_at: usize, index: u32, len: usize) -> Result<usize, RedoFault> {
    let at = array_at.saturating_add((index as usize).saturating_mul(4));
    if index as usize >= len {
        return Err(RedoFault::OutsidePage {
            at,
            end: at.saturating_add(4),
        });
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_counts_and_splitpoint_phases_agree() {
        let totals: Vec<u32> = (0..18).map(total_buckets).collect();
        let expected = [
            1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048,
        ];
        assert_eq!(totals, expected);
        for phase in 0..MAX_SPLITPOINTS as u32 - 4 {
            assert_eq!(spare_index(total_buckets(phase)), phase);
            assert_eq!(spare_index(total_buckets(phase) + 1), phase + 1);
        }
    }

    #[test]
    fn an_index_starts_with_whole_phases_of_buckets() {
        assert_eq!(initial_buckets(-1.0), 2);
        assert_eq!(initial_buckets(3.9), 4);
        assert_eq!(initial_buckets(513.0), 640);
        assert_eq!(initial_buckets(641.5), 768);
        assert_eq!(initial_buckets(f64::INFINITY), 0x4000_0000);
        assert_eq!(initial_buckets(f64::NAN), 1);
    }
}
