//! The visibility map (visibilitymap.c, 15.18): two bits for each heap page.
//!
//! ```text
//! header 24 | byte 0: heap blocks 3 2 1 0, each (all frozen, all visible) | byte 1: 7 6 5 4 | ...
//! ```
//!
//! Clearing bits is a side effect of heap records that do not name the map page, and sets no LSN. So
//! it is done whatever LSN the page bears.

use pg_quorum_types::{BLOCK_SIZE, ForkNumber, Lsn, RelFileNode, RelFork};
use smallvec::SmallVec;

use super::error::RedoFault;
use super::fields::Fields;
use super::page::{HEADER_BYTES, PageLayout};
use super::{heap, heap2};
use crate::{Page, Record, Rmgr};

/// `MAPSIZE`.
const MAP_BYTES: usize = BLOCK_SIZE - HEADER_BYTES;
const BITS_PER_HEAP_BLOCK: u32 = 2;
const HEAP_BLOCKS_PER_BYTE: u32 = 4;
/// `HEAPBLOCKS_PER_PAGE`.
pub(crate) const HEAP_BLOCKS_PER_PAGE: u32 = MAP_BYTES as u32 * HEAP_BLOCKS_PER_BYTE;

/// `VISIBILITYMAP_ALL_FROZEN`.
const ALL_FROZEN: u8 = 0x02;
/// `VISIBILITYMAP_VALID_BITS`.
const VALID_BITS: u8 = 0x03;

/// Bits that a record clears without naming the map page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ImpliedClear {
    pub(crate) rel: RelFileNode,
    pub(crate) heap_block: u32,
    bits: u8,
}

impl ImpliedClear {
    /// The map page that holds the bits.
    pub(crate) fn map_page(&self) -> (RelFork, u32) {
        let map = RelFork {
            rel: self.rel,
            fork: ForkNumber::VisibilityMap,
        };
        (map, self.heap_block / HEAP_BLOCKS_PER_PAGE)
    }
}

/// Where a heap block's bits stand: index of the byte in the page, shift in the byte.
fn position(heap_block: u32) -> (usize, u32) {
    let in_page = heap_block % HEAP_BLOCKS_PER_PAGE;
    let byte = HEADER_BYTES + (in_page / HEAP_BLOCKS_PER_BYTE) as usize;
    (byte, in_page % HEAP_BLOCKS_PER_BYTE * BITS_PER_HEAP_BLOCK)
}

/// The map bits that `record` clears: the `*_ALL_VISIBLE_CLEARED` and `XLH_LOCK_ALL_FROZEN_CLEARED`
/// flags of heap records (heapam_xlog.h). An update may clear bits of two heap pages.
pub(crate) fn implied_clears(record: &Record<'_>) -> Result<SmallVec<[ImpliedClear; 2]>, RedoFault> {
    let mut clears = SmallVec::new();
    let mut clear = |id: u8, bits: u8| {
        let block = record.block(id).ok_or(RedoFault::MissingBlock { id })?;
        clears.push(ImpliedClear {
            rel: block.rel.rel,
            heap_block: block.block,
            bits,
        });
        Ok::<(), RedoFault>(())
    };
    let flags_at = |at: usize| {
        let mut fields = Fields::new(record.main);
        fields.take(at)?;
        fields.u8()
    };
    let operation = record.info & heap::kind::OPERATION_MASK;
    match (record.rmgr, operation) {
        (Rmgr::Heap, heap::kind::INSERT) if flags_at(2)? & 1 != 0 => clear(0, VALID_BITS)?,
        (Rmgr::Heap, heap::kind::DELETE) if flags_at(7)? & 1 != 0 => clear(0, VALID_BITS)?,
        (Rmgr::Heap, heap::kind::UPDATE | heap::kind::HOT_UPDATE) => {
            let flags = flags_at(7)?;
            if flags & 1 != 0 {
                clear(u8::from(record.block(1).is_some()), VALID_BITS)?;
            }
            if flags & 2 != 0 {
                clear(0, VALID_BITS)?;
            }
        }
        (Rmgr::Heap, heap::kind::LOCK) | (Rmgr::Heap2, heap2::kind::LOCK_UPDATED)
            if flags_at(7)? & 1 != 0 =>
        {
            clear(0, ALL_FROZEN)?;
        }
        (Rmgr::Heap2, heap2::kind::MULTI_INSERT) if flags_at(0)? & 1 != 0 => clear(0, VALID_BITS)?,
        _ => {}
    }
    Ok(clears)
}

/// Applies the clears that concern map page `map_block` of `rel` (`visibilitymap_clear`).
pub(super) fn apply_implied_clears(
    record: &Record<'_>,
    map: RelFork,
    map_block: u32,
    page: &mut Page,
) -> Result<(), RedoFault> {
    let mut is_affected = false;
    for clear in implied_clears(record)? {
        if clear.map_page() == (map, map_block) {
            init_if_new(page);
            let (byte, shift) = position(clear.heap_block);
            page[byte] &= !(clear.bits << shift);
            is_affected = true;
        }
    }
    if is_affected {
        Ok(())
    } else {
        Err(RedoFault::UnrelatedPage)
    }
}

/// `vm_readbuf` and `vm_extend`: a map page that nothing was written to is an empty page.
fn init_if_new(page: &mut Page) {
    if page.is_new() {
        page.init(0);
    }
}

/// The map half of `heap_xlog_visible`, with `visibilitymap_set`: bits that are there already
/// leave the page's LSN alone.
pub(super) fn set(record_end: Lsn, heap_block: u32, flags: u8, page: &mut Page) -> Result<(), RedoFault> {
    if record_end <= page.lsn() {
        return Ok(());
    }
    init_if_new(page);
    let (byte, shift) = position(heap_block);
    if flags != page[byte] >> shift & VALID_BITS {
        page[byte] |= (flags & VALID_BITS) << shift;
        page.set_lsn(record_end);
    }
    Ok(())
}

/// The map page that holds the bits of the last heap page and of none behind it, after the heap was
/// cut to `heap_blocks`. `None` if the cut is at the border of two map pages: nothing to clear.
pub(crate) fn page_with_tail_bits(heap_blocks: u32) -> Option<u32> {
    (!heap_blocks.is_multiple_of(HEAP_BLOCKS_PER_PAGE)).then_some(heap_blocks / HEAP_BLOCKS_PER_PAGE)
}

/// `visibilitymap_prepare_truncate`: clears the bits of heap blocks from `heap_blocks` on.
pub(super) fn clear_tail_bits(heap_blocks: u32, page: &mut Page) {
    init_if_new(page);
    let (byte, shift) = position(heap_blocks);
    page[byte + 1..].fill(0);
    page[byte] &= (1 << shift) - 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_keeps_the_bits_in_front_only() {
        let mut page: Page = [0xFF; BLOCK_SIZE];
        clear_tail_bits(HEAP_BLOCKS_PER_PAGE * 3 + 5, &mut page);
        assert_eq!(page[HEADER_BYTES], 0xFF);
        assert_eq!(page[HEADER_BYTES + 1], 0x03);
        assert!(page[HEADER_BYTES + 2..].iter().all(|byte| *byte == 0));
        assert_eq!(page_with_tail_bits(HEAP_BLOCKS_PER_PAGE * 3 + 5), Some(3));
        assert_eq!(page_with_tail_bits(HEAP_BLOCKS_PER_PAGE * 3), None);
    }

    #[test]
    fn the_last_heap_block_of_a_map_page_has_the_last_bits() {
        assert_eq!(position(HEAP_BLOCKS_PER_PAGE - 1), (BLOCK_SIZE - 1, 6));
        assert_eq!(position(HEAP_BLOCKS_PER_PAGE), (HEADER_BYTES, 0));
    }

    #[test]
    fn bits_that_are_set_already_leave_the_lsn_alone() {
        let mut page: Page = [0; BLOCK_SIZE];
        set(Lsn(100), 7, 3, &mut page).unwrap();
        set(Lsn(200), 7, 3, &mut page).unwrap();
        assert_eq!(page.lsn(), Lsn(100));
        set(Lsn(300), 6, 1, &mut page).unwrap();
        assert_eq!(page.lsn(), Lsn(300));
        assert_eq!(page[HEADER_BYTES + 1], 0b1101_0000);
    }
}
