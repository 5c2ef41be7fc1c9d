//! BRIN pages (`brin_page.h`, 15.18): the metapage, the range map, regular pages.
//!
//! ```text
//! special space:     4 flags   6 page type
//! metapage, page 24: 0 brinMagic   4 brinVersion   8 pagesPerRange   12 lastRevmapPage
//! revmap, page 24:   1360 TIDs of tuples, 6 bytes each
//! ```

use crate::Page;
use crate::redo::error::RedoFault;
use crate::redo::heap_tuple::TupleId;
use crate::redo::page::{HEADER_BYTES, PageLayout};

/// `sizeof(BrinSpecialSpace)`.
const SPECIAL_BYTES: usize = 8;
const AT_FLAGS: usize = 4;
const AT_TYPE: usize = 6;
/// `REVMAP_PAGE_MAXITEMS`.
const TIDS_PER_REVMAP_PAGE: u32 = (8192 - 24 - SPECIAL_BYTES as u32) / 6;
/// `BRIN_META_MAGIC`.
const META_MAGIC: u32 = 0xA810_9CFA;
/// `sizeof(BrinMetaPageData)`.
const META_BYTES: usize = 16;

/// `BRIN_PAGETYPE_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageType {
    Meta = 0xF091,
    Revmap = 0xF092,
    Regular = 0xF093,
}

/// `BRIN_EVACUATE_PAGE`.
pub(crate) const EVACUATE: u16 = 1 << 0;

/// Where the special space is, which must be on the page.
fn special(page: &Page) -> Result<usize, RedoFault> {
    let special = usize::from(page.special());
    page.bytes(special, SPECIAL_BYTES)?;
    Ok(special)
}

pub(crate) fn is_of_type(page: &Page, page_type: PageType) -> Result<bool, RedoFault> {
    Ok(page.u16_at(special(page)? + AT_TYPE) == page_type as u16)
}

/// `BrinPageFlags`, cleared.
pub(crate) fn clear_brin_flags(page: &mut Page, flags: u16) -> Result<(), RedoFault> {
    let at = special(page)? + AT_FLAGS;
    page.put_u16(at, page.u16_at(at) & !flags);
    Ok(())
}

/// `brin_page_init`.
pub(super) fn init(page: &mut Page, page_type: PageType) {
    page.init(SPECIAL_BYTES);
    let special = usize::from(page.special());
    page.put_u16(special + AT_TYPE, page_type as u16);
}

/// `brin_metapage_init`.
pub(super) fn init_meta(page: &mut Page, pages_per_range: u32, version: u16) {
    init(page, PageType::Meta);
    page.put_u32(HEADER_BYTES, META_MAGIC);
    page.put_u32(HEADER_BYTES + 4, u32::from(version));
    page.put_u32(HEADER_BYTES + 8, pages_per_range);
    set_last_revmap_page(page, 0);
}

/// A metapage says where the range map ends. `pd_lower` follows, which old versions left at the page's start.
pub(super) fn set_last_revmap_page(page: &mut Page, block: u32) {
    page.put_u32(HEADER_BYTES + 12, block);
    page.set_lower((HEADER_BYTES + META_BYTES) as u16);
}

/// `brinSetHeapBlockItemptr`: where a revmap page says that a range's tuple is; `None` if it has none.
pub(super) fn set_tuple_of_range(
    page: &mut Page,
    pages_per_range: u32,
    heap_block: u32,
    tuple: Option<TupleId>,
) -> Result<(), RedoFault> {
    /// `ItemPointerSetInvalid`.
    const INVALID: TupleId = TupleId {
        block: u32::MAX,
        offset: 0,
    };
    let range = heap_block.checked_div(pages_per_range).ok_or(RedoFault::Tuple {
        offset: 0,
        reason: "belongs to a range of no pages",
    })?;
    let at = HEADER_BYTES + (range % TIDS_PER_REVMAP_PAGE) as usize * 6;
    page[at..at + 6].copy_from_slice(&tuple.unwrap_or(INVALID).to_bytes());
    Ok(())
}
