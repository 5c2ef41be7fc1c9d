//! A hash page's special space (`HashPageOpaqueData`, hash.h, 15.18).
//!
//! ```text
//! 0 hasho_prevblkno   4 hasho_nextblkno   8 hasho_bucket   12 hasho_flag   14 hasho_page_id
//! ```

use pg_quorum_types::BLOCK_SIZE;

use crate::Page;
use crate::redo::error::RedoFault;
use crate::redo::page::PageLayout;

/// `sizeof(HashPageOpaqueData)`.
const OPAQUE_BYTES: usize = 16;
/// `HASHO_PAGE_ID`.
const PAGE_ID: u16 = 0xFF80;

/// `InvalidBlockNumber`, `InvalidBucket`.
pub(super) const NONE: u32 = u32::MAX;

pub(crate) const LH_UNUSED_PAGE: u16 = 0;
pub(crate) const LH_OVERFLOW_PAGE: u16 = 1 << 0;
pub(crate) const LH_BUCKET_PAGE: u16 = 1 << 1;
pub(super) const LH_BITMAP_PAGE: u16 = 1 << 2;
pub(super) const LH_META_PAGE: u16 = 1 << 3;
pub(super) const LH_BUCKET_NEEDS_SPLIT_CLEANUP: u16 = 1 << 6;
pub(crate) const LH_PAGE_HAS_DEAD_TUPLES: u16 = 1 << 7;
/// The bits that say what a page is.
pub(crate) const LH_PAGE_TYPE: u16 = LH_OVERFLOW_PAGE | LH_BUCKET_PAGE | LH_BITMAP_PAGE | LH_META_PAGE;

/// What a new page's special space says, but for its successor, which it has none of.
pub(super) struct NewPage {
    /// The page before; of a bucket's first page, the highest bucket of that time.
    pub(super) previous: u32,
    pub(super) bucket: u32,
    pub(super) flags: u16,
}

impl NewPage {
    /// A page that belongs to no bucket.
    pub(super) fn outside_buckets(flags: u16) -> NewPage {
        NewPage {
            previous: NONE,
            bucket: NONE,
            flags,
        }
    }
}

/// A hash page with its special space in place.
pub(crate) struct HashPage<'a> {
    pub(crate) page: &'a mut Page,
    opaque: usize,
}

impl<'a> HashPage<'a> {
    /// Checks that the special space is on the page.
    pub(crate) fn of(page: &'a mut Page) -> Result<HashPage<'a>, RedoFault> {
        let opaque = usize::from(page.special());
        page.bytes(opaque, OPAQUE_BYTES)?;
        Ok(HashPage { page, opaque })
    }

    /// `_hash_pageinit` and the special space that its callers fill in (`_hash_initbuf`).
    pub(super) fn init(page: &'a mut Page, new: &NewPage) -> HashPage<'a> {
        page.init(OPAQUE_BYTES);
        let mut page = HashPage {
            page,
            opaque: BLOCK_SIZE - OPAQUE_BYTES,
        };
        page.set_previous(new.previous);
        page.set_next(NONE);
        page.page.put_u32(page.opaque + 8, new.bucket);
        page.set_flags(new.flags);
        page.page.put_u16(page.opaque + 14, PAGE_ID);
        page
    }

    pub(super) fn set_previous(&mut self, block: u32) {
        self.page.put_u32(self.opaque, block);
    }

    pub(super) fn set_next(&mut self, block: u32) {
        self.page.put_u32(self.opaque + 4, block);
    }

    pub(crate) fn flags(&self) -> u16 {
        self.page.u16_at(self.opaque + 12)
    }

    pub(crate) fn set_flags(&mut self, flags: u16) {
        self.page.put_u16(self.opaque + 12, flags);
    }

    pub(crate) fn clear_flags(&mut self, flags: u16) {
        self.set_flags(self.flags() & !flags);
    }
}
