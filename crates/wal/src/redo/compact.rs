//! Moving items inside a page (bufpage.c, 15.18): `PageRepairFragmentation`,
//! `PageTruncateLinePointerArray`, `PageIndexTupleDelete`, `PageIndexTupleDeleteNoCompact`,
//! `PageIndexMultiDelete`, `PageIndexTupleOverwrite`.
//!
//! Bytes between `pd_lower` and `pd_upper` matter too: a standby's file keeps what was moved away,
//! so these functions leave the same remains behind.

use std::ops::Range;

use pg_quorum_types::BLOCK_SIZE;

use super::error::RedoFault;
use super::page::{
    HEADER_BYTES, ITEM_ID_BYTES, ItemId, LinePointerState, MAX_HEAP_TUPLES, MAX_INDEX_TUPLES,
    PD_HAS_FREE_LINES, PageLayout, max_align,
};
use crate::Page;

/// An item that stays (`itemIdCompactData`).
#[derive(Clone, Copy, Default)]
struct KeptItem {
    /// Line pointer number that it gets or keeps.
    offset: u16,
    at: u16,
    aligned_len: u16,
}

impl KeptItem {
    /// Where it lies, padding included: first byte, exclusive end.
    #[inline]
    fn extent(&self) -> (usize, usize) {
        let at = usize::from(self.at);
        (at, at + usize::from(self.aligned_len))
    }
}

/// The items that stay, in line pointer order, with room for the largest page.
struct KeptItems<const MAX: usize> {
    items: [KeptItem; MAX],
    count: usize,
    total: usize,
    /// Where the last one lies.
    last_at: u16,
    /// Each item lies before the previous one: they can move up in place.
    presorted: bool,
}

impl<const MAX: usize> KeptItems<MAX> {
    fn new(special: u16) -> Self {
        KeptItems {
            items: [KeptItem::default(); MAX],
            count: 0,
            total: 0,
            last_at: special,
            presorted: true,
        }
    }

    #[inline]
    fn push(&mut self, offset: u16, item: ItemId, special: u16) -> Result<(), RedoFault> {
        let aligned_len = max_align(item.len());
        if item.offset() + aligned_len > usize::from(special) {
            return Err(corrupted(offset));
        }
        let at = item.offset() as u16;
        self.presorted &= self.last_at > at;
        self.last_at = at;
        *self.items.get_mut(self.count).ok_or(too_many(offset))? = KeptItem {
            offset,
            at,
            aligned_len: aligned_len as u16,
        };
        self.count += 1;
        self.total += aligned_len;
        Ok(())
    }

    /// `compactify_tuples`: packs the items against the special space, in reverse line pointer order.
    fn compactify(&self, page: &mut Page) -> Result<(), RedoFault> {
        let available = usize::from(page.special()) - usize::from(page.lower());
        if self.total > available {
            return Err(RedoFault::NoRoom {
                size: self.total,
                lower: page.lower(),
                upper: page.upper(),
            });
        }
        if self.presorted {
            self.compactify_with(page, |page, from, to, len| page.copy_within(from..from + len, to))
        } else {
            let moved = self.moved(usize::from(page.special()));
            let mut before: Page = [0; BLOCK_SIZE];
            before[moved.clone()].copy_from_slice(&page[moved]);
            self.compactify_with(page, |page, from, to, len| {
                page[to..to + len].copy_from_slice(&before[from..from + len]);
            })
        }
    }

    /// Where the items lie that are not yet where they belong; those behind them, by number the first, are.
    fn moved(&self, special: usize) -> Range<usize> {
        let items = &self.items[..self.count];
        let mut in_place = special;
        let first = items.iter().take_while(|kept| {
            let (at, end) = kept.extent();
            let is_in_place = end == in_place;
            in_place = at;
            is_in_place
        });
        let moved = &items[first.count()..];
        let start = moved.iter().map(|kept| kept.extent().0).min();
        let end = moved.iter().map(|kept| kept.extent().1).max();
        start.unwrap_or_default()..end.unwrap_or_default()
    }

    /// Items that lie one before the other move together.
    fn compactify_with(
        &self,
        page: &mut Page,
        mut copy: impl FnMut(&mut Page, usize, usize, usize),
    ) -> Result<(), RedoFault> {
        let mut upper = usize::from(page.special());
        // What is to be moved next: from here, up to there, to where it ends.
        let (mut from, mut end, mut target_end) = (upper, upper, upper);
        for kept in &self.items[..self.count] {
            let (at, item_end) = kept.extent();
            if item_end != from {
                if end != target_end && from < end {
                    copy(page, from, upper, end - from);
                }
                (end, target_end) = (item_end, upper);
            }
            from = at;
            upper -= item_end - at;
            if at != upper {
                let line_pointer = HEADER_BYTES + (usize::from(kept.offset) - 1) * ITEM_ID_BYTES;
                let item = ItemId(page.u32_at(line_pointer));
                page.put_u32(line_pointer, item.with_offset(upper).0);
            }
        }
        if end != target_end && from < end {
            copy(page, from, upper, end - from);
        }
        page.set_upper(upper as u16);
        Ok(())
    }
}

fn corrupted(offset: u16) -> RedoFault {
    RedoFault::LinePointer {
        offset,
        reason: "points outside the item space",
    }
}

fn too_many(offset: u16) -> RedoFault {
    RedoFault::LinePointer {
        offset,
        reason: "more items than a page can have",
    }
}

/// `PageRepairFragmentation`: packs a heap page and drops unused line pointers at its end.
pub(crate) fn repair_fragmentation(page: &mut Page) -> Result<(), RedoFault> {
    page.check_pointers()?;
    let (upper, special) = (usize::from(page.upper()), page.special());
    let last = page.max_offset();
    let mut kept = KeptItems::<MAX_HEAP_TUPLES>::new(special);
    let mut unused = 0;
    let mut final_used = 0;
    let (words, _) = page.as_chunks_mut::<ITEM_ID_BYTES>();
    for (offset, word) in (1..=last).zip(&mut words[HEADER_BYTES / ITEM_ID_BYTES..]) {
        let item = ItemId(u32::from_le_bytes(*word));
        if !item.is_used() {
            *word = ItemId::UNUSED.0.to_le_bytes();
            unused += 1;
            continue;
        }
        if item.has_storage() {
            if item.offset() < upper || item.offset() >= usize::from(special) {
                return Err(corrupted(offset));
            }
            kept.push(offset, item, special)?;
        }
        final_used = offset;
    }
    if kept.count == 0 {
        page.set_upper(special);
    } else {
        kept.compactify(page)?;
    }
    let unused_at_end = last - final_used;
    unused -= unused_at_end;
    page.set_lower(page.lower() - unused_at_end * ITEM_ID_BYTES as u16);
    set_free_lines_hint(page, unused > 0);
    Ok(())
}

/// `PageTruncateLinePointerArray`: drops unused line pointers at the end, but never the first one.
pub(crate) fn truncate_line_pointer_array(page: &mut Page) -> Result<(), RedoFault> {
    let mut unused_at_end = 0;
    let mut counted = false;
    let mut unused_left = false;
    for offset in (1..=page.max_offset()).rev() {
        let is_used = page.item_id(offset)?.is_used();
        if !counted && offset > 1 {
            if is_used {
                counted = true;
            } else {
                unused_at_end += 1;
            }
        } else if !is_used {
            unused_left = true;
            break;
        }
    }
    page.set_lower(page.lower() - unused_at_end * ITEM_ID_BYTES as u16);
    set_free_lines_hint(page, unused_left);
    Ok(())
}

fn set_free_lines_hint(page: &mut Page, has_free_lines: bool) {
    if has_free_lines {
        page.set_flags(PD_HAS_FREE_LINES);
    } else {
        page.clear_flags(PD_HAS_FREE_LINES);
    }
}

/// A line pointer of an index page whose item lies in the item space.
fn index_item(page: &Page, offset: u16) -> Result<ItemId, RedoFault> {
    let item = page.item_id(offset)?;
    let in_item_space = item.offset() >= usize::from(page.upper())
        && item.offset() + max_align(item.len()) <= usize::from(page.special())
        && item.offset() == max_align(item.offset());
    if in_item_space {
        Ok(item)
    } else {
        Err(corrupted(offset))
    }
}

/// `PageIndexTupleDelete`: removes one item and its line pointer.
pub(crate) fn delete_index_item(page: &mut Page, offset: u16) -> Result<(), RedoFault> {
    page.check_pointers()?;
    let item = index_item(page, offset)?;
    let old_lower = usize::from(page.lower());
    let line_pointer = HEADER_BYTES + (usize::from(offset) - 1) * ITEM_ID_BYTES;
    page.copy_within(line_pointer + ITEM_ID_BYTES..old_lower, line_pointer);
    page.set_lower((old_lower - ITEM_ID_BYTES) as u16);
    close_gap(page, item)
}

/// `PageIndexTupleDeleteNoCompact`: removes one item. Its line pointer becomes unused, so that the others
/// keep their numbers; the last one goes.
pub(crate) fn delete_index_item_keeping_numbers(page: &mut Page, offset: u16) -> Result<(), RedoFault> {
    page.check_pointers()?;
    let item = index_item(page, offset)?;
    if offset < page.max_offset() {
        page.set_item_id(offset, ItemId::UNUSED)?;
    } else {
        page.set_lower(page.lower() - ITEM_ID_BYTES as u16);
    }
    close_gap(page, item)
}

/// Moves the items in front of `gone` to where it was.
fn close_gap(page: &mut Page, gone: ItemId) -> Result<(), RedoFault> {
    let size = max_align(gone.len());
    let upper = usize::from(page.upper());
    page.copy_within(upper..gone.offset(), upper + size);
    page.set_upper((upper + size) as u16);
    shift_item_ids(page, gone.offset(), size as isize)
}

/// Adds `by` to the position of every stored item at or before `up_to`.
fn shift_item_ids(page: &mut Page, up_to: usize, by: isize) -> Result<(), RedoFault> {
    for offset in 1..=page.max_offset() {
        let item = page.item_id(offset)?;
        if item.has_storage() && item.offset() <= up_to {
            page.set_item_id(offset, item.with_offset(item.offset().wrapping_add_signed(by)))?;
        }
    }
    Ok(())
}

/// `PageIndexMultiDelete`: removes the items at `offsets`, which rise.
pub(crate) fn delete_index_items<Offsets>(page: &mut Page, offsets: Offsets) -> Result<(), RedoFault>
where
    Offsets: IntoIterator<Item = u16, IntoIter: DoubleEndedIterator + ExactSizeIterator>,
{
    let offsets = offsets.into_iter();
    if offsets.len() <= 2 {
        return offsets
            .rev()
            .try_for_each(|offset| delete_index_item(page, offset));
    }
    page.check_pointers()?;
    let special = page.special();
    let mut doomed = offsets.peekable();
    let mut kept = KeptItems::<MAX_INDEX_TUPLES>::new(special);
    let mut kept_ids = [ItemId::UNUSED; MAX_INDEX_TUPLES];
    for offset in 1..=page.max_offset() {
        let item = index_item(page, offset)?;
        if doomed.next_if_eq(&offset).is_some() {
            continue;
        }
        *kept_ids.get_mut(kept.count).ok_or(too_many(offset))? = item;
        kept.push(kept.count as u16 + 1, item, special)?;
    }
    if let Some(offset) = doomed.next() {
        return Err(RedoFault::LinePointer {
            offset,
            reason: "to be deleted, does not exist or is out of order",
        });
    }
    let available = usize::from(special) - usize::from(page.lower());
    if kept.total > available {
        return Err(corrupted(page.max_offset()));
    }
    page.set_lower((HEADER_BYTES + kept.count * ITEM_ID_BYTES) as u16);
    for (offset, item) in (1..).zip(&kept_ids[..kept.count]) {
        page.set_item_id(offset, *item)?;
    }
    if kept.count == 0 {
        page.set_upper(special);
        return Ok(());
    }
    kept.compactify(page)
}

/// `PageIndexTupleOverwrite`: replaces the item at `offset`, moving the items before it.
pub(crate) fn overwrite_index_item(page: &mut Page, offset: u16, new: &[u8]) -> Result<(), RedoFault> {
    page.check_pointers()?;
    let old = index_item(page, offset)?;
    let (upper, lower) = (usize::from(page.upper()), usize::from(page.lower()));
    let old_size = max_align(old.len());
    let new_size = max_align(new.len());
    if new_size > old_size + (upper - lower) {
        return Err(RedoFault::NoRoom {
            size: new.len(),
            lower: page.lower(),
            upper: page.upper(),
        });
    }
    let shrinks_by = old_size as isize - new_size as isize;
    let at = old.offset().wrapping_add_signed(shrinks_by);
    if shrinks_by != 0 {
        page.copy_within(upper..old.offset(), upper.wrapping_add_signed(shrinks_by));
        page.set_upper(upper.wrapping_add_signed(shrinks_by) as u16);
        shift_item_ids(page, old.offset(), shrinks_by)?;
    }
    page.set_item_id(offset, ItemId::new(at, old.state(), new.len()))?;
    page.bytes_mut(at, new.len())?.copy_from_slice(new);
    Ok(())
}

/// Turns a dead line pointer without storage into an unused one (`heap_xlog_vacuum`).
pub(crate) fn free_dead_line_pointer(page: &mut Page, offset: u16) -> Result<(), RedoFault> {
    let item = page.item_id(offset)?;
    if item.state() != LinePointerState::Dead || item.has_storage() {
        return Err(RedoFault::LinePointer {
            offset,
            reason: "is not dead",
        });
    }
    page.set_item_id(offset, ItemId::UNUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redo::fields::{Fields, U16Array};
    use crate::redo::page::Placement;

    fn page_with(items: &[&[u8]]) -> Page {
        let mut page: Page = [0; BLOCK_SIZE];
        page.init(16);
        for (offset, item) in (1..).zip(items) {
            page.add_index_item(offset, item).unwrap();
        }
        page
    }

    fn items(page: &Page) -> Vec<Vec<u8>> {
        (1..=page.max_offset())
            .map(|offset| page.item(offset).unwrap().to_vec())
            .collect()
    }

    fn offsets(bytes: &[u8]) -> U16Array<'_> {
        Fields::new(bytes).u16_array(bytes.len() / 2).unwrap()
    }

    #[test]
    fn deleting_many_items_equals_deleting_them_one_by_one() {
        let all: Vec<Vec<u8>> = (1..30).map(|len| vec![len as u8; len * 3]).collect();
        let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let mut one_by_one = page_with(&all);
        let mut together = one_by_one;
        for offset in [20, 11, 10, 1] {
            delete_index_item(&mut one_by_one, offset).unwrap();
        }
        delete_index_items(&mut together, offsets(&[1, 0, 10, 0, 11, 0, 20, 0])).unwrap();
        assert_eq!(items(&together), items(&one_by_one));
        assert_eq!(together.upper(), one_by_one.upper());
        assert_eq!(together.lower(), one_by_one.lower());
    }

    #[test]
    fn items_that_are_not_in_reverse_order_are_packed_too() {
        let mut page = page_with(&[b"aaaa", b"bbbbbbbbbbbb", b"cc", b"dddd", b"eeeeeeeeeeeeeeeeee"]);
        page.add_index_item(1, b"in front, but stored last").unwrap();
        delete_index_items(&mut page, offsets(&[2, 0, 4, 0, 5, 0])).unwrap();
        let expected: [&[u8]; 3] = [
            b"in front, but stored last",
            b"bbbbbbbbbbbb",
            b"eeeeeeeeeeeeeeeeee",
        ];
        assert_eq!(items(&page), expected);
        assert_eq!(usize::from(page.upper()), BLOCK_SIZE - 16 - 32 - 16 - 24);
    }

    #[test]
    fn deleting_an_item_may_leave_the_numbers_of_the_others() {
        let mut page = page_with(&[b"aaaa", b"bbbbbbbbbbbb", b"cc"]);
        delete_index_item_keeping_numbers(&mut page, 2).unwrap();
        assert_eq!(
            (page.item(1).unwrap(), page.item(3).unwrap()),
            (&b"aaaa"[..], &b"cc"[..])
        );
        assert_eq!(page.item_id(2).unwrap(), ItemId::UNUSED);
        assert_eq!(usize::from(page.upper()), BLOCK_SIZE - 16 - 16);
        assert!(delete_index_item_keeping_numbers(&mut page, 2).is_err());
        delete_index_item_keeping_numbers(&mut page, 3).unwrap();
        assert_eq!(page.max_offset(), 2);
    }

    #[test]
    fn offsets_to_delete_must_rise_and_exist() {
        let mut page = page_with(&[b"a", b"b", b"c", b"d"]);
        assert!(delete_index_items(&mut page, offsets(&[1, 0, 3, 0, 2, 0])).is_err());
        assert!(delete_index_items(&mut page, offsets(&[1, 0, 3, 0, 9, 0])).is_err());
        assert!(delete_index_items(&mut page, offsets(&[0, 0])).is_err());
    }

    #[test]
    fn overwriting_moves_the_items_in_front() {
        let mut page = page_with(&[b"a", b"bbbbbbbbbbbbbbbbbbbb", b"c"]);
        overwrite_index_item(&mut page, 2, b"b").unwrap();
        let expected: [&[u8]; 3] = [b"a", b"b", b"c"];
        assert_eq!(items(&page), expected);
        assert_eq!(usize::from(page.upper()), BLOCK_SIZE - 16 - 24);
        overwrite_index_item(&mut page, 2, &[7; 100]).unwrap();
        assert_eq!(page.item(3).unwrap(), b"c");
        assert!(overwrite_index_item(&mut page, 2, &[7; 8150]).is_err());
    }

    #[test]
    fn unused_line_pointers_at_the_end_are_dropped() {
        let mut page: Page = [0; BLOCK_SIZE];
        page.init(0);
        for offset in 1..=5 {
            page.reserve_item(offset, 30, Placement::Heap).unwrap();
        }
        for offset in [2, 4, 5] {
            page.set_item_id(offset, ItemId::UNUSED).unwrap();
        }
        let mut vacuumed = page;
        repair_fragmentation(&mut page).unwrap();
        assert_eq!(page.max_offset(), 3);
        assert_eq!(usize::from(page.upper()), BLOCK_SIZE - 64);
        assert_eq!(page.flags(), PD_HAS_FREE_LINES);
        truncate_line_pointer_array(&mut vacuumed).unwrap();
        assert_eq!(vacuumed.max_offset(), 3);
        for offset in 1..=3 {
            vacuumed.set_item_id(offset, ItemId::UNUSED).unwrap();
        }
        truncate_line_pointer_array(&mut vacuumed).unwrap();
        assert_eq!(vacuumed.max_offset(), 1);
    }
}
