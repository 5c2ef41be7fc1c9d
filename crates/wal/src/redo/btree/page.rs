//! A B-tree page's special space (`BTPageOpaqueData`, nbtree.h, 15.18).
//!
//! ```text
//! 0 btpo_prev   4 btpo_next   8 btpo_level   12 btpo_flags   14 btpo_cycleid
//! ```

use pg_quorum_types::BLOCK_SIZE;

use crate::Page;
use crate::redo::error::RedoFault;
use crate::redo::page::{HEADER_BYTES, ITEM_ID_BYTES, ItemId, PageLayout, max_align};

/// `sizeof(BTPageOpaqueData)`.
const OPAQUE_BYTES: usize = 16;
/// `P_HIKEY`.
pub(super) const HIGH_KEY: u16 = 1;

pub(crate) const BTP_LEAF: u16 = 1 << 0;
pub(super) const BTP_ROOT: u16 = 1 << 1;
pub(super) const BTP_DELETED: u16 = 1 << 2;
pub(super) const BTP_META: u16 = 1 << 3;
pub(super) const BTP_HALF_DEAD: u16 = 1 << 4;
pub(crate) const BTP_SPLIT_END: u16 = 1 << 5;
pub(crate) const BTP_HAS_GARBAGE: u16 = 1 << 6;
pub(super) const BTP_INCOMPLETE_SPLIT: u16 = 1 << 7;
pub(super) const BTP_HAS_FULLXID: u16 = 1 << 8;

/// A B-tree page with its special space in place.
pub(crate) struct BtreePage<'a> {
    pub(crate) page: &'a mut Page,
    opaque: usize,
}

impl<'a> BtreePage<'a> {
    /// Checks that the special space is on the page and behind its header (`PageValidateSpecialPointer`).
    pub(crate) fn of(page: &'a mut Page) -> Result<BtreePage<'a>, RedoFault> {
        let opaque = usize::from(page.special());
        page.bytes(opaque, OPAQUE_BYTES)?;
        if opaque < HEADER_BYTES {
            return Err(RedoFault::PagePointers {
                lower: page.lower(),
                upper: page.upper(),
                special: page.special(),
            });
        }
        Ok(BtreePage { page, opaque })
    }

    /// `_bt_pageinit`: an empty page.
    pub(super) fn init(page: &'a mut Page) -> BtreePage<'a> {
        page.init(OPAQUE_BYTES);
        BtreePage {
            page,
            opaque: BLOCK_SIZE - OPAQUE_BYTES,
        }
    }

    pub(super) fn set_previous(&mut self, block: u32) {
        self.page.put_u32(self.opaque, block);
    }

    pub(super) fn next(&self) -> u32 {
        self.page.u32_at(self.opaque + 4)
    }

    pub(super) fn set_next(&mut self, block: u32) {
        self.page.put_u32(self.opaque + 4, block);
    }

    pub(super) fn set_level(&mut self, level: u32) {
        self.page.put_u32(self.opaque + 8, level);
    }

    pub(crate) fn flags(&self) -> u16 {
        self.page.u16_at(self.opaque + 12)
    }

    pub(crate) fn set_flags(&mut self, flags: u16) {
        self.page.put_u16(self.opaque + 12, flags);
    }

    pub(crate) fn set_cycle_id(&mut self, id: u16) {
        self.page.put_u16(self.opaque + 14, id);
    }

    /// `P_FIRSTDATAKEY`: the rightmost page of a level has no high key.
    pub(super) fn first_data_key(&self) -> u16 {
        if self.next() == 0 { HIGH_KEY } else { HIGH_KEY + 1 }
    }

    /// `PageGetTempPageCopySpecial` into `copy`: an empty page with this one's special space.
    pub(super) fn empty_copy(&self, copy: &mut Page) {
        copy.init(BLOCK_SIZE - self.opaque);
        copy[self.opaque..].copy_from_slice(&self.page[self.opaque..]);
    }

    /// `_bt_restore_page`: all items of a page from a copy of its item space, in which the item with
    /// the highest number comes first. The page is empty.
    pub(super) fn restore_items(&mut self, items: &[u8]) -> Result<(), RedoFault> {
        let mut count = 0usize;
        for item in ItemsInSpace(items) {
            item?;
            count += 1;
        }
        let lower = usize::from(self.page.lower()) + count * ITEM_ID_BYTES;
        let at = self
            .opaque
            .checked_sub(items.len())
            .filter(|at| lower <= *at)
            .ok_or(RedoFault::NoRoom {
                size: items.len(),
                lower: self.page.lower(),
                upper: self.page.upper(),
            })?;
        self.page[at..self.opaque].copy_from_slice(items);
        let mut item_at = at;
        for (offset, item) in (1..=count as u16).rev().zip(ItemsInSpace(items)) {
            let len = item?;
            self.page.set_item_id(offset, ItemId::normal(item_at, len))?;
            item_at += len;
        }
        self.page.set_lower(lower as u16);
        self.page.set_upper(at as u16);
        Ok(())
    }
}

/// The MAXALIGNed sizes of the index tuples that stand one after the other.
struct ItemsInSpace<'a>(&'a [u8]);

impl Iterator for ItemsInSpace<'_> {
    type Item = Result<usize, RedoFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let len = super::tuple::size(self.0).map(max_align);
        match len.map(|len| (len, self.0.split_at_checked(len))) {
            Ok((len, Some((_, rest)))) if len > 0 => {
                self.0 = rest;
                Some(Ok(len))
            }
            Ok((len, _)) => Some(Err(RedoFault::RecordTooShort {
                needed: len.max(8),
                available: std::mem::take(&mut self.0).len(),
            })),
            Err(fault) => {
                self.0 = &[];
                Some(Err(fault))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_special_space_inside_the_header_or_behind_the_page_is_refused() {
        for (special, is_refused) in [(0, true), (8, true), (24, false), (8176, false), (8177, true)] {
            let mut page: Page = [0; BLOCK_SIZE];
            page.init(OPAQUE_BYTES);
            page[16..18].copy_from_slice(&u16::to_le_bytes(special));
            assert_eq!(BtreePage::of(&mut page).is_err(), is_refused, "{special}");
        }
    }
}
