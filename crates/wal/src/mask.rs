//! What may differ between a replayed page and the image that its writer took (bufmask.c and the
//! `rm_mask` functions, 15.18).
//!
//! Serves `wal_consistency_checking` only: both pages are masked, then they must be equal.

use pg_quorum_types::Lsn;

use crate::redo::RedoFault;
use crate::redo::brin::{self, PageType};
use crate::redo::btree::{BTP_HAS_GARBAGE, BTP_LEAF, BTP_SPLIT_END, BtreePage};
use crate::redo::gin::{GIN_DELETED, GinPage};
use crate::redo::gist::{F_FOLLOW_RIGHT, F_HAS_GARBAGE, GistPage};
use crate::redo::hash::{
    HashPage, LH_BUCKET_PAGE, LH_OVERFLOW_PAGE, LH_PAGE_HAS_DEAD_TUPLES, LH_PAGE_TYPE, LH_UNUSED_PAGE,
};
use crate::redo::heap_tuple::{HEAP_XMAX_COMMITTED, HEAP_XMAX_INVALID, HeapTuple, TupleId};
use crate::redo::page::{
    HEADER_BYTES, ItemId, LinePointerState, PD_ALL_VISIBLE, PD_HAS_FREE_LINES, PD_PAGE_FULL, PageLayout,
    max_align,
};
use crate::{Page, Rmgr};

/// `HEAP_XACT_MASK`.
const HEAP_XACT_MASK: u16 = 0xFFF0;
const AT_CHECKSUM: usize = 8;
const AT_PRUNE_XID: usize = 20;

/// Masks `page`, which is block `block`, as resource manager `rmgr` does. Resource managers without
/// a mask, and those whose pages are not rebuilt here, leave the page alone.
///
/// # Errors
/// A page whose header or items are damaged.
pub fn mask_page(rmgr: Rmgr, page: &mut Page, block: u32) -> Result<(), RedoFault> {
    match rmgr {
        Rmgr::Heap | Rmgr::Heap2 => mask_heap(page, block),
        Rmgr::Btree => mask_btree(page),
        Rmgr::Hash => mask_hash(page),
        Rmgr::Brin => mask_brin(page),
        Rmgr::Gin => mask_gin(page),
        Rmgr::Gist => mask_gist(page),
        Rmgr::SpGist => mask_spgist(page),
        Rmgr::Sequence | Rmgr::Generic => {
            mask_lsn_and_checksum(page);
            mask_unused_space(page)
        }
        Rmgr::Xlog
        | Rmgr::Transaction
        | Rmgr::Storage
        | Rmgr::Clog
        | Rmgr::Database
        | Rmgr::Tablespace
        | Rmgr::MultiXact
        | Rmgr::RelMap
        | Rmgr::Standby
        | Rmgr::CommitTs
        | Rmgr::ReplicationOrigin
        | Rmgr::LogicalMessage => Ok(()),
    }
}

/// `mask_page_lsn_and_checksum`.
fn mask_lsn_and_checksum(page: &mut Page) {
    page[..AT_CHECKSUM + 2].fill(0);
}

/// `mask_page_hint_bits`.
fn mask_hint_bits(page: &mut Page) {
    page.put_u32(AT_PRUNE_XID, 0);
    page.clear_flags(PD_PAGE_FULL | PD_HAS_FREE_LINES | PD_ALL_VISIBLE);
}

/// `mask_unused_space`.
fn mask_unused_space(page: &mut Page) -> Result<(), RedoFault> {
    let (lower, upper, special) = (page.lower(), page.upper(), page.special());
    if lower > upper || upper > special || usize::from(lower) < HEADER_BYTES {
        return Err(RedoFault::PagePointers {
            lower,
            upper,
            special,
        });
    }
    let (lower, upper) = (usize::from(lower), usize::from(upper));
    page.bytes_mut(lower, upper - lower)?.fill(0);
    Ok(())
}

/// `heap_mask`.
fn mask_heap(page: &mut Page, block: u32) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page);
    mask_hint_bits(page);
    mask_unused_space(page)?;
    for offset in 1..=page.max_offset() {
        let item = page.item_id(offset)?;
        if item.state() == LinePointerState::Normal {
            let mut tuple = HeapTuple::normal_at(page, offset)?;
            let hints = if tuple.is_xmin_frozen() {
                HEAP_XMAX_INVALID | HEAP_XMAX_COMMITTED
            } else {
                HEAP_XACT_MASK
            };
            tuple.set_infomask(tuple.infomask() & !hints);
            tuple.set_command_id(0);
            if tuple.is_speculative() {
                tuple.set_ctid(TupleId { block, offset });
            }
        }
        if item.has_storage() {
            let padding = max_align(item.len()) - item.len();
            page.bytes_mut(item.offset() + item.len(), padding)?.fill(0);
        }
    }
    Ok(())
}

/// `btree_mask`.
fn mask_btree(page: &mut Page) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page);
    mask_hint_bits(page);
    mask_unused_space(page)?;
    let mut btree_page = BtreePage::of(page)?;
    if btree_page.flags() & BTP_LEAF != 0 {
        mask_line_pointer_flags(btree_page.page)?;
    }
    btree_page.set_flags(btree_page.flags() & !(BTP_HAS_GARBAGE | BTP_SPLIT_END));
    btree_page.set_cycle_id(0);
    Ok(())
}

/// `hash_mask`.
fn mask_hash(page: &mut Page) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page);
    mask_hint_bits(page);
    mask_unused_space(page)?;
    let mut hash_page = HashPage::of(page)?;
    match hash_page.flags() & LH_PAGE_TYPE {
        LH_UNUSED_PAGE => mask_content(hash_page.page),
        LH_BUCKET_PAGE | LH_OVERFLOW_PAGE => mask_line_pointer_flags(hash_page.page)?,
        _ => {}
    }
    hash_page.clear_flags(LH_PAGE_HAS_DEAD_TUPLES);
    Ok(())
}

/// `brin_mask`. An old version may have left a metapage's `pd_lower` at its start.
fn mask_brin(page: &mut Page) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page);
    mask_hint_bits(page);
    let is_meta_with_lower =
        brin::is_of_type(page, PageType::Meta)? && usize::from(page.lower()) > HEADER_BYTES;
    if brin::is_of_type(page, PageType::Regular)? || is_meta_with_lower {
        mask_unused_space(page)?;
    }
    brin::clear_brin_flags(page, brin::EVACUATE)
}

/// `gin_mask`.
fn mask_gin(page: &mut Page) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page);
    mask_hint_bits(page);
    if GinPage::of(page)?.flags() & GIN_DELETED != 0 {
        mask_content(page);
        Ok(())
    } else if usize::from(page.lower()) > HEADER_BYTES {
        mask_unused_space(page)
    } else {
        Ok(())
    }
}

/// `mask_page_content`.
fn mask_content(page: &mut Page) {
    page[HEADER_BYTES..].fill(0);
    page.set_lower(0);
    page.set_upper(0);
}

/// `gist_mask`.
fn mask_gist(page: &mut Page) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page);
    mask_hint_bits(page);
    mask_unused_space(page)?;
    let mut gist_page = GistPage::of(page)?;
    gist_page.set_nsn(Lsn(0));
    gist_page.set_flags(F_FOLLOW_RIGHT);
    if gist_page.is_leaf() {
        mask_line_pointer_flags(gist_page.page)?;
    }
    gist_page.clear_flags(F_HAS_GARBAGE);
    Ok(())
}

/// `spg_mask`: the unused space only if `pd_lower` seems to have been set.
fn mask_spgist(page: &mut Page) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page);
    mask_hint_bits(page);
    if usize::from(page.lower()) >= HEADER_BYTES {
        mask_unused_space(page)?;
    }
    Ok(())
}

/// `mask_lp_flags`.
fn mask_line_pointer_flags(page: &mut Page) -> Result<(), RedoFault> {
    for offset in 1..=page.max_offset() {
        let item = page.item_id(offset)?;
        if item.is_used() {
            let unused = ItemId::new(item.offset(), LinePointerState::Unused, item.len());
            page.set_item_id(offset, unused)?;
        }
    }
    Ok(())
}
