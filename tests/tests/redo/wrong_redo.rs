//! Redo that is wrong on purpose, to see that the comparisons notice it.

use std::ops::Range;

use pg_quorum_types::{BLOCK_SIZE, ForkNumber, PageKey};
use pg_quorum_wal::{Page, Record, Rmgr};

use crate::replay::{Difference, Mismatch};

/// Heap blocks of a page of the visibility map: two bits each behind the header (`HEAPBLOCKS_PER_PAGE`).
const HEAP_BLOCKS_PER_MAP_PAGE: u32 = (BLOCK_SIZE as u32 - 24) * 4;
/// `pd_lsn.xrecoff`.
const LSN_LOW_HALF: Range<usize> = 4..8;
/// `pd_prune_xid`.
const PRUNE_XID: Range<usize> = 20..24;
/// The visibility map's bits.
const MAP: Range<usize> = 24..BLOCK_SIZE;
/// `BTPageOpaqueData` ends the page: prev u32 | next u32 | level u32 | flags u16 | cycle id u16.
const BTREE_LEVEL: Range<usize> = BLOCK_SIZE - 8..BLOCK_SIZE - 4;
const BTREE_CYCLE_ID: Range<usize> = BLOCK_SIZE - 2..BLOCK_SIZE;
/// `GISTPageOpaqueData` ends the page, and begins with the NSN: high half u32 | low half u32.
const GIST_NSN: Range<usize> = BLOCK_SIZE - 16..BLOCK_SIZE - 8;
const TUPLE_BIT: u8 = 0x10;

/// A mistake that redo makes each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrongRedo {
    /// An insertion writes one byte of the tuple wrong.
    TupleByte,
    /// An insertion leaves a wrong LSN; masks hide it.
    PageLsn,
    /// A deletion does not say that the page can be pruned; masks hide it.
    PruneXid,
    /// A page that becomes all-visible is not so in the map; a mask hides all of the map's page.
    VisibilityMapBit,
    /// An insertion into a leaf changes its level, which stands in the special space.
    SpecialSpace,
    /// A split leaves a vacuum's cycle number behind; the mask hides it.
    BtreeCycleId,
    /// A split leaves wrong NSNs in its parts; the mask hides them. Later records set those of all parts but the last.
    GistNsn,
}

impl WrongRedo {
    /// Spoils a page that redo has just made from `record`, if the mistake is one of this record and page.
    pub fn spoil(self, record: &Record<'_>, key: PageKey, page: &mut Page) -> bool {
        let PageKey::Relation { rel, .. } = key else {
            return false;
        };
        let kind = (record.rmgr, record.kind_name());
        let is_meant = match self {
            WrongRedo::TupleByte | WrongRedo::PageLsn => {
                kind == (Rmgr::Heap, "INSERT") && rel.fork == ForkNumber::Main
            }
            WrongRedo::PruneXid => kind == (Rmgr::Heap, "DELETE") && rel.fork == ForkNumber::Main,
            WrongRedo::VisibilityMapBit => {
                kind == (Rmgr::Heap2, "VISIBLE") && rel.fork == ForkNumber::VisibilityMap
            }
            WrongRedo::SpecialSpace => kind == (Rmgr::Btree, "INSERT_LEAF"),
            WrongRedo::BtreeCycleId => matches!(kind, (Rmgr::Btree, "SPLIT_L" | "SPLIT_R")),
            WrongRedo::GistNsn => kind == (Rmgr::Gist, "PAGE_SPLIT"),
        };
        if !is_meant {
            return false;
        }
        match self {
            WrongRedo::TupleByte => {
                // The newest tuple is the lowest; its data follows a header of 24 bytes if it has no nulls.
                let upper = usize::from(u16::from_le_bytes([page[14], page[15]]));
                page[upper + 24] ^= TUPLE_BIT;
            }
            WrongRedo::PageLsn => page[LSN_LOW_HALF.start] ^= 0x10,
            WrongRedo::PruneXid => page[PRUNE_XID].fill(0),
            WrongRedo::VisibilityMapBit => {
                let heap = record
                    .blocks
                    .iter()
                    .find(|block| block.rel.fork == ForkNumber::Main)
                    .expect("the heap page that is all-visible");
                let in_page = heap.block % HEAP_BLOCKS_PER_MAP_PAGE;
                page[MAP][in_page as usize / 4] &= !(1 << (in_page % 4 * 2));
            }
            WrongRedo::SpecialSpace => page[BTREE_LEVEL.start] = 7,
            WrongRedo::BtreeCycleId => page[BTREE_CYCLE_ID.start] = 7,
            WrongRedo::GistNsn => page[GIST_NSN.start] ^= 0x10,
        }
        true
    }

    /// Whether a difference can be this mistake's.
    pub fn explains(self, mismatch: &Mismatch) -> bool {
        let Difference::Byte { offset, ours, theirs } = mismatch.what else {
            return false;
        };
        let field = match self {
            WrongRedo::TupleByte => return ours ^ theirs == TUPLE_BIT,
            WrongRedo::PageLsn => LSN_LOW_HALF,
            WrongRedo::PruneXid => PRUNE_XID,
            WrongRedo::VisibilityMapBit => MAP,
            WrongRedo::SpecialSpace => BTREE_LEVEL,
            WrongRedo::BtreeCycleId => BTREE_CYCLE_ID,
            WrongRedo::GistNsn => GIST_NSN,
        };
        field.contains(&offset)
    }
}
