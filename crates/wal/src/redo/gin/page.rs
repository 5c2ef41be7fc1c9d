//! A GIN page's special space (`GinPageOpaqueData`) and the layout of posting tree pages (ginblock.h, 15.18).
//!
//! ```text
//! special space:  0 rightlink   4 maxoff   6 flags
//! posting tree:  24 right bound (a TID)   30 padding   32 data, up to pd_lower
//! ```

use pg_quorum_types::BLOCK_SIZE;

use super::NO_BLOCK;
use crate::Page;
use crate::redo::error::RedoFault;
use crate::redo::page::{HEADER_BYTES, PageLayout};

/// `sizeof(GinPageOpaqueData)`.
const OPAQUE_BYTES: usize = 8;
/// `GinDataPageGetData`, `GinDataLeafPageGetPostingList`: behind the header and the right bound.
pub(super) const DATA_AT: usize = HEADER_BYTES + 8;

pub(super) const GIN_DATA: u16 = 1 << 0;
pub(super) const GIN_LEAF: u16 = 1 << 1;
pub(crate) const GIN_DELETED: u16 = 1 << 2;
pub(super) const GIN_META: u16 = 1 << 3;
pub(super) const GIN_LIST: u16 = 1 << 4;
pub(super) const GIN_LIST_FULLROW: u16 = 1 << 5;
pub(super) const GIN_INCOMPLETE_SPLIT: u16 = 1 << 6;
pub(super) const GIN_COMPRESSED: u16 = 1 << 7;

/// A GIN page with its special space in place.
pub(crate) struct GinPage<'a> {
    pub(crate) page: &'a mut Page,
    opaque: usize,
}

impl<'a> GinPage<'a> {
    /// Checks that the special space is on the page, behind where data begins.
    pub(crate) fn of(page: &'a mut Page) -> Result<GinPage<'a>, RedoFault> {
        let opaque = usize::from(page.special());
        page.bytes(opaque, OPAQUE_BYTES)?;
        if opaque < DATA_AT {
            return Err(RedoFault::PagePointers {
                lower: page.lower(),
                upper: page.upper(),
                special: page.special(),
            });
        }
        Ok(GinPage { page, opaque })
    }

    /// `GinInitPage`: an empty page.
    pub(super) fn init(page: &'a mut Page, flags: u16) -> GinPage<'a> {
        page.init(OPAQUE_BYTES);
        let mut page = GinPage {
            page,
            opaque: BLOCK_SIZE - OPAQUE_BYTES,
        };
        page.set_right_link(NO_BLOCK);
        page.set_flags(flags);
        page
    }

    pub(super) fn set_right_link(&mut self, block: u32) {
        self.page.put_u32(self.opaque, block);
    }

    /// `maxoff`: posting items of an internal posting tree page, heap tuples of a pending list's page,
    /// TIDs of a leaf in the format before 9.4.
    pub(super) fn item_count(&self) -> u16 {
        self.page.u16_at(self.opaque + 4)
    }

    pub(super) fn set_item_count(&mut self, count: u16) {
        self.page.put_u16(self.opaque + 4, count);
    }

    pub(crate) fn flags(&self) -> u16 {
        self.page.u16_at(self.opaque + 6)
    }

    pub(super) fn set_flags(&mut self, flags: u16) {
        self.page.put_u16(self.opaque + 6, flags);
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.flags() & GIN_COMPRESSED != 0
    }

    /// Exclusive end of the room for a posting tree page's data.
    pub(super) fn data_end(&self) -> usize {
        self.opaque
    }

    /// `GinDataPageSetDataSize`, where `end` is the data's exclusive end on the page.
    pub(super) fn set_end_of_data(&mut self, end: usize) {
        self.page.set_lower(end as u16);
    }

    /// PostgreSQL asserts as much.
    pub(super) fn check_is_data(&self, is_data: bool) -> Result<(), RedoFault> {
        match (self.flags() & GIN_DATA != 0, is_data) {
            (true, false) => Err(RedoFault::PageKind("it belongs to a posting tree")),
            (false, true) => Err(RedoFault::PageKind("it belongs to no posting tree")),
            _ => Ok(()),
        }
    }

    /// PostgreSQL asserts as much.
    pub(super) fn check_is_leaf(&self, is_leaf: bool) -> Result<(), RedoFault> {
        match (self.flags() & GIN_LEAF != 0, is_leaf) {
            (true, false) => Err(RedoFault::PageKind("it is a leaf")),
            (false, true) => Err(RedoFault::PageKind("it is no leaf")),
            _ => Ok(()),
        }
    }
}
