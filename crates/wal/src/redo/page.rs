//! PostgreSQL's page layout (`bufpage.h`, `itemid.h`, 15.18): header, line pointers, items.
//!
//! ```text
//!  0 pd_lsn (two u32, high half first)   12 pd_lower    18 pd_pagesize_version
//!  8 pd_checksum                         14 pd_upper    20 pd_prune_xid
//! 10 pd_flags                            16 pd_special  24 line pointers ...
//! ```
//!
//! Accesses at positions that come from the page or a record are checked; a position that is off
//! the page is a [`RedoFault`], never a panic.

use pg_quorum_types::{BLOCK_SIZE, Lsn};

use super::error::RedoFault;
use crate::Page;

/// `SizeOfPageHeaderData`.
pub(crate) const HEADER_BYTES: usize = 24;
/// `sizeof(ItemIdData)`.
pub(crate) const ITEM_ID_BYTES: usize = 4;
/// `MaxOffsetNumber`.
const MAX_OFFSET_NUMBER: u16 = (BLOCK_SIZE / ITEM_ID_BYTES) as u16;
/// `MaxHeapTuplesPerPage`.
pub(crate) const MAX_HEAP_TUPLES: usize = (BLOCK_SIZE - HEADER_BYTES) / (24 + ITEM_ID_BYTES);
/// `MaxIndexTuplesPerPage`.
pub(crate) const MAX_INDEX_TUPLES: usize = (BLOCK_SIZE - HEADER_BYTES) / (16 + ITEM_ID_BYTES);

const AT_FLAGS: usize = 10;
const AT_LOWER: usize = 12;
const AT_UPPER: usize = 14;
const AT_SPECIAL: usize = 16;
const AT_SIZE_AND_VERSION: usize = 18;
const AT_PRUNE_XID: usize = 20;

/// `PG_PAGE_LAYOUT_VERSION`.
const LAYOUT_VERSION: u16 = 4;

pub(crate) const PD_HAS_FREE_LINES: u16 = 0x0001;
pub(crate) const PD_PAGE_FULL: u16 = 0x0002;
pub(crate) const PD_ALL_VISIBLE: u16 = 0x0004;

/// `MAXALIGN`.
pub(crate) const fn max_align(len: usize) -> usize {
    (len + 7) & !7
}

/// The state of a line pointer (`lp_flags`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinePointerState {
    Unused,
    Normal,
    Redirect,
    Dead,
}

/// A line pointer (`ItemIdData`): 15 bits offset, 2 bits state, 15 bits length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ItemId(pub(crate) u32);

impl ItemId {
    pub(crate) const UNUSED: ItemId = ItemId(0);

    pub(crate) fn new(offset: usize, state: LinePointerState, len: usize) -> ItemId {
        ItemId((offset as u32 & 0x7FFF) | (state as u32) << 15 | (len as u32 & 0x7FFF) << 17)
    }

    pub(crate) fn normal(offset: usize, len: usize) -> ItemId {
        ItemId::new(offset, LinePointerState::Normal, len)
    }

    pub(crate) fn redirect(to: u16) -> ItemId {
        ItemId::new(usize::from(to), LinePointerState::Redirect, 0)
    }

    pub(crate) fn dead() -> ItemId {
        ItemId::new(0, LinePointerState::Dead, 0)
    }

    pub(crate) fn offset(self) -> usize {
        (self.0 & 0x7FFF) as usize
    }

    pub(crate) fn len(self) -> usize {
        (self.0 >> 17) as usize
    }

    pub(crate) fn state(self) -> LinePointerState {
        match self.0 >> 15 & 3 {
            0 => LinePointerState::Unused,
            1 => LinePointerState::Normal,
            2 => LinePointerState::Redirect,
            _ => LinePointerState::Dead,
        }
    }

    pub(crate) fn is_used(self) -> bool {
        self.state() != LinePointerState::Unused
    }

    pub(crate) fn has_storage(self) -> bool {
        self.len() != 0
    }

    #[must_use]
    pub(crate) fn with_offset(self, offset: usize) -> ItemId {
        ItemId(self.0 & !0x7FFF | (offset as u32 & 0x7FFF))
    }
}

/// How [`PageLayout::reserve_item`] takes a line pointer that exists already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Placement {
    /// `PAI_OVERWRITE | PAI_IS_HEAP`: the line pointer must be unused or new.
    Heap,
    /// No flags: later line pointers move up by one.
    Index,
    /// `PAI_OVERWRITE`: the line pointer must be unused or new.
    Vacant,
}

/// The page as PostgreSQL sees it.
pub(crate) trait PageLayout {
    fn u16_at(&self, at: usize) -> u16;
    fn put_u16(&mut self, at: usize, value: u16);
    fn u32_at(&self, at: usize) -> u32;
    fn put_u32(&mut self, at: usize, value: u32);

    fn lsn(&self) -> Lsn;
    fn set_lsn(&mut self, lsn: Lsn);
    /// `PageIsNew`.
    fn is_new(&self) -> bool;
    fn flags(&self) -> u16;
    fn set_flags(&mut self, flags: u16);
    fn clear_flags(&mut self, flags: u16);
    fn lower(&self) -> u16;
    fn upper(&self) -> u16;
    fn special(&self) -> u16;
    fn set_lower(&mut self, lower: u16);
    fn set_upper(&mut self, upper: u16);
    fn set_prune_xid(&mut self, xid: u32);
    /// `PageSetPrunable`.
    fn set_prunable(&mut self, xid: u32);

    /// `PageInit`: an empty page with `special_bytes` (MAXALIGNed) of special space.
    fn init(&mut self, special_bytes: usize);
    /// The header's pointers are in order (`PageAddItemExtended` and its siblings check this first).
    fn check_pointers(&self) -> Result<(), RedoFault>;
    /// `PageGetMaxOffsetNumber`.
    fn max_offset(&self) -> u16;
    fn item_id(&self, offset: u16) -> Result<ItemId, RedoFault>;
    fn set_item_id(&mut self, offset: u16, item: ItemId) -> Result<(), RedoFault>;
    /// The bytes of the item at `offset`, which has storage.
    fn item(&self, offset: u16) -> Result<&[u8], RedoFault>;
    /// The same, to be changed in place.
    fn item_mut(&mut self, offset: u16) -> Result<&mut [u8], RedoFault>;
    /// Makes room for an item of `size` bytes at line pointer `offset` (`PageAddItemExtended`
    /// without its copy) and returns where its bytes belong.
    fn reserve_item(&mut self, offset: u16, size: usize, placement: Placement) -> Result<usize, RedoFault>;
    /// `PageAddItemExtended`; returns where the item's bytes are.
    fn add_item(&mut self, offset: u16, item: &[u8], placement: Placement) -> Result<usize, RedoFault>;
    /// `PageAddItem` of an index tuple.
    fn add_index_item(&mut self, offset: u16, item: &[u8]) -> Result<usize, RedoFault>;
    fn bytes(&self, at: usize, len: usize) -> Result<&[u8], RedoFault>;
    fn bytes_mut(&mut self, at: usize, len: usize) -> Result<&mut [u8], RedoFault>;
}

/// Where line pointer `offset` (one-based) stands.
fn item_id_position(offset: u16) -> Result<usize, RedoFault> {
    if offset == 0 || offset > MAX_OFFSET_NUMBER {
        return Err(RedoFault::LinePointer {
            offset,
            reason: "not a line pointer number",
        });
    }
    let at = HEADER_BYTES + (usize::from(offset) - 1) * ITEM_ID_BYTES;
    if at + ITEM_ID_BYTES > BLOCK_SIZE {
        return Err(RedoFault::LinePointer {
            offset,
            reason: "beyond the end of the page",
        });
    }
    Ok(at)
}

/// A line pointer whose item has bytes.
fn stored_item(page: &Page, offset: u16) -> Result<ItemId, RedoFault> {
    let item = page.item_id(offset)?;
    if item.has_storage() {
        Ok(item)
    } else {
        Err(RedoFault::LinePointer {
            offset,
            reason: "has no storage",
        })
    }
}

fn outside(at: usize, len: usize) -> RedoFault {
    RedoFault::OutsidePage {
        at,
        end: at.saturating_add(len),
    }
}

impl PageLayout for Page {
    /// `at` is a constant or was checked by the caller.
    #[inline]
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self[at], self[at + 1]])
    }

    #[inline]
    fn put_u16(&mut self, at: usize, value: u16) {
        self[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    #[inline]
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes([self[at], self[at + 1], self[at + 2], self[at + 3]])
    }

    #[inline]
    fn put_u32(&mut self, at: usize, value: u32) {
        self[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    #[inline]
    fn lsn(&self) -> Lsn {
        Lsn(u64::from(self.u32_at(0)) << 32 | u64::from(self.u32_at(4)))
    }

    #[inline]
    fn set_lsn(&mut self, lsn: Lsn) {
        self.put_u32(0, (lsn.0 >> 32) as u32);
        self.put_u32(4, lsn.0 as u32);
    }

    #[inline]
    fn is_new(&self) -> bool {
        self.upper() == 0
    }

    #[inline]
    fn flags(&self) -> u16 {
        self.u16_at(AT_FLAGS)
    }

    #[inline]
    fn set_flags(&mut self, flags: u16) {
        self.put_u16(AT_FLAGS, self.flags() | flags);
    }

    #[inline]
    fn clear_flags(&mut self, flags: u16) {
        self.put_u16(AT_FLAGS, self.flags() & !flags);
    }

    #[inline]
    fn lower(&self) -> u16 {
        self.u16_at(AT_LOWER)
    }

    #[inline]
    fn upper(&self) -> u16 {
        self.u16_at(AT_UPPER)
    }

    #[inline]
    fn special(&self) -> u16 {
        self.u16_at(AT_SPECIAL)
    }

    #[inline]
    fn set_lower(&mut self, lower: u16) {
        self.put_u16(AT_LOWER, lower);
    }

    #[inline]
    fn set_upper(&mut self, upper: u16) {
        self.put_u16(AT_UPPER, upper);
    }

    #[inline]
    fn set_prune_xid(&mut self, xid: u32) {
        self.put_u32(AT_PRUNE_XID, xid);
    }

    fn set_prunable(&mut self, xid: u32) {
        let prune_xid = self.u32_at(AT_PRUNE_XID);
        if prune_xid == 0 || transaction_id_precedes(xid, prune_xid) {
            self.set_prune_xid(xid);
        }
    }

    fn init(&mut self, special_bytes: usize) {
        let special = (BLOCK_SIZE - max_align(special_bytes)) as u16;
        self.fill(0);
        self.set_lower(HEADER_BYTES as u16);
        self.set_upper(special);
        self.put_u16(AT_SPECIAL, special);
        self.put_u16(AT_SIZE_AND_VERSION, BLOCK_SIZE as u16 | LAYOUT_VERSION);
    }

    fn check_pointers(&self) -> Result<(), RedoFault> {
        let (lower, upper, special) = (self.lower(), self.upper(), self.special());
        let in_order = usize::from(lower) >= HEADER_BYTES
            && lower <= upper
            && upper <= special
            && usize::from(special) <= BLOCK_SIZE
            && usize::from(special) == max_align(usize::from(special));
        if in_order {
            Ok(())
        } else {
            Err(RedoFault::PagePointers {
                lower,
                upper,
                special,
            })
        }
    }

    #[inline]
    fn max_offset(&self) -> u16 {
        (usize::from(self.lower()).saturating_sub(HEADER_BYTES) / ITEM_ID_BYTES) as u16
    }

    #[inline]
    fn item_id(&self, offset: u16) -> Result<ItemId, RedoFault> {
        let at = item_id_position(offset)?;
        if offset > self.max_offset() {
            return Err(RedoFault::LinePointer {
                offset,
                reason: "does not exist",
            });
        }
        Ok(ItemId(self.u32_at(at)))
    }

    #[inline]
    fn set_item_id(&mut self, offset: u16, item: ItemId) -> Result<(), RedoFault> {
        let at = item_id_position(offset)?;
        self.put_u32(at, item.0);
        Ok(())
    }

    fn item(&self, offset: u16) -> Result<&[u8], RedoFault> {
        let item = stored_item(self, offset)?;
        self.bytes(item.offset(), item.len())
    }

    fn item_mut(&mut self, offset: u16) -> Result<&mut [u8], RedoFault> {
        let item = stored_item(self, offset)?;
        self.bytes_mut(item.offset(), item.len())
    }

    fn reserve_item(&mut self, offset: u16, size: usize, placement: Placement) -> Result<usize, RedoFault> {
        self.check_pointers()?;
        let refused = |reason| RedoFault::LinePointer { offset, reason };
        let limit = self.max_offset() + 1;
        if offset > limit {
            return Err(refused("leaves a gap"));
        }
        let at = item_id_position(offset)?;
        match placement {
            Placement::Heap if usize::from(offset) > MAX_HEAP_TUPLES => {
                return Err(refused("more than MaxHeapTuplesPerPage"));
            }
            Placement::Heap | Placement::Vacant
                if offset < limit && self.u32_at(at) & (0x7FFF << 17 | 3 << 15) != 0 =>
            {
                return Err(refused("is in use"));
            }
            Placement::Heap | Placement::Index | Placement::Vacant => {}
        }
        let moves = offset < limit && placement == Placement::Index;
        let old_lower = usize::from(self.lower());
        let lower = if offset == limit || moves {
            old_lower + ITEM_ID_BYTES
        } else {
            old_lower
        };
        let aligned = max_align(size);
        let upper = usize::from(self.upper())
            .checked_sub(aligned)
            .filter(|upper| lower <= *upper)
            .ok_or(RedoFault::NoRoom {
                size,
                lower: self.lower(),
                upper: self.upper(),
            })?;
        if moves {
            self.copy_within(at..old_lower, at + ITEM_ID_BYTES);
        }
        self.put_u32(at, ItemId::normal(upper, size).0);
        self.set_lower(lower as u16);
        self.set_upper(upper as u16);
        Ok(upper)
    }

    fn add_index_item(&mut self, offset: u16, item: &[u8]) -> Result<usize, RedoFault> {
        self.add_item(offset, item, Placement::Index)
    }

    fn add_item(&mut self, offset: u16, item: &[u8], placement: Placement) -> Result<usize, RedoFault> {
        let at = self.reserve_item(offset, item.len(), placement)?;
        self.bytes_mut(at, item.len())?.copy_from_slice(item);
        Ok(at)
    }

    #[inline]
    fn bytes(&self, at: usize, len: usize) -> Result<&[u8], RedoFault> {
        self.get(at..at.saturating_add(len)).ok_or(outside(at, len))
    }

    #[inline]
    fn bytes_mut(&mut self, at: usize, len: usize) -> Result<&mut [u8], RedoFault> {
        self.get_mut(at..at.saturating_add(len)).ok_or(outside(at, len))
    }
}

/// `TransactionIdPrecedes` (transam.c): modulo 2^32, except for the permanent ids below 3.
pub(crate) fn transaction_id_precedes(left: u32, right: u32) -> bool {
    const FIRST_NORMAL: u32 = 3;
    if left < FIRST_NORMAL || right < FIRST_NORMAL {
        return left < right;
    }
    (left.wrapping_sub(right) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_page_has_postgresqls_header() {
        let mut page: Page = [0xFF; BLOCK_SIZE];
        page.init(16);
        assert_eq!(
            &page[8..24],
            &[0, 0, 0, 0, 24, 0, 0xF0, 0x1F, 0xF0, 0x1F, 4, 0x20, 0, 0, 0, 0]
        );
        assert_eq!(page.max_offset(), 0);
    }

    #[test]
    fn index_items_are_inserted_in_front_and_heap_items_overwrite_unused_pointers_only() {
        let mut page: Page = [0; BLOCK_SIZE];
        page.init(0);
        page.add_index_item(1, b"second").unwrap();
        page.add_index_item(1, b"first").unwrap();
        assert_eq!(page.item(1).unwrap(), b"first");
        assert_eq!(page.item(2).unwrap(), b"second");
        assert!(page.reserve_item(1, 8, Placement::Heap).is_err());
        assert!(page.reserve_item(4, 8, Placement::Heap).is_err());
        page.set_item_id(1, ItemId::UNUSED).unwrap();
        page.reserve_item(1, 8, Placement::Heap).unwrap();
    }

    #[test]
    fn an_item_larger_than_the_free_space_is_refused() {
        let mut page: Page = [0; BLOCK_SIZE];
        page.init(0);
        assert!(matches!(
            page.reserve_item(1, 8165, Placement::Heap),
            Err(RedoFault::NoRoom { .. })
        ));
        assert!(matches!(
            page.reserve_item(1, usize::MAX - 8, Placement::Heap),
            Err(RedoFault::NoRoom { .. })
        ));
        page.reserve_item(1, 8160, Placement::Heap).unwrap();
    }

    #[test]
    fn transaction_ids_compare_modulo_their_width() {
        assert!(transaction_id_precedes(u32::MAX, 3));
        assert!(!transaction_id_precedes(3, u32::MAX));
        assert!(transaction_id_precedes(2, u32::MAX));
    }
}
