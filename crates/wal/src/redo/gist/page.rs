//! A GiST page's special space (`GISTPageOpaqueData`, gist.h, 15.18).
//!
//! ```text
//! 0 nsn (two u32, high half first, as in pd_lsn)   8 rightlink   12 flags   14 gist_page_id
//! ```

use pg_quorum_types::{BLOCK_SIZE, Lsn};

use crate::Page;
use crate::redo::error::RedoFault;
use crate::redo::page::PageLayout;

/// `sizeof(GISTPageOpaqueData)`.
const OPAQUE_BYTES: usize = 16;
/// `GIST_PAGE_ID`.
const PAGE_ID: u16 = 0xFF81;
/// `GIST_ROOT_BLKNO`.
pub(super) const ROOT_BLOCK: u32 = 0;
/// `InvalidBlockNumber`.
pub(super) const NO_BLOCK: u32 = u32::MAX;

pub(super) const F_LEAF: u16 = 1 << 0;
pub(super) const F_DELETED: u16 = 1 << 1;
pub(super) const F_TUPLES_DELETED: u16 = 1 << 2;
pub(crate) const F_FOLLOW_RIGHT: u16 = 1 << 3;
pub(crate) const F_HAS_GARBAGE: u16 = 1 << 4;

/// A GiST page with its special space in place.
pub(crate) struct GistPage<'a> {
    pub(crate) page: &'a mut Page,
    opaque: usize,
}

impl<'a> GistPage<'a> {
    /// Checks that the special space is on the page.
    pub(crate) fn of(page: &'a mut Page) -> Result<GistPage<'a>, RedoFault> {
        let opaque = usize::from(page.special());
        page.bytes(opaque, OPAQUE_BYTES)?;
        Ok(GistPage { page, opaque })
    }

    /// `gistinitpage`: an empty page.
    pub(super) fn init(page: &'a mut Page, flags: u16) -> GistPage<'a> {
        page.init(OPAQUE_BYTES);
        let mut page = GistPage {
            page,
            opaque: BLOCK_SIZE - OPAQUE_BYTES,
        };
        page.set_right_link(NO_BLOCK);
        page.set_flags(flags);
        page.page.put_u16(page.opaque + 14, PAGE_ID);
        page
    }

    /// `GistPageSetNSN`.
    pub(crate) fn set_nsn(&mut self, nsn: Lsn) {
        self.page.put_u32(self.opaque, (nsn.0 >> 32) as u32);
        self.page.put_u32(self.opaque + 4, nsn.0 as u32);
    }

    pub(super) fn set_right_link(&mut self, block: u32) {
        self.page.put_u32(self.opaque + 8, block);
    }

    fn flags(&self) -> u16 {
        self.page.u16_at(self.opaque + 12)
    }

    /// Sets these flags and leaves the others.
    pub(crate) fn set_flags(&mut self, flags: u16) {
        self.page.put_u16(self.opaque + 12, self.flags() | flags);
    }

    pub(crate) fn clear_flags(&mut self, flags: u16) {
        self.page.put_u16(self.opaque + 12, self.flags() & !flags);
    }

    /// `GistPageIsLeaf`.
    pub(crate) fn is_leaf(&self) -> bool {
        self.flags() & F_LEAF != 0
    }
}

/// Adds an item behind the last one (`gistfillbuffer`).
pub(super) fn append(page: &mut Page, item: &[u8]) -> Result<(), RedoFault> {
    page.add_index_item(page.max_offset() + 1, item)?;
    Ok(())
}
