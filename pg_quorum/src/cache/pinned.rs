//! Which pages must stay in the local cache, judged by what is on them when they are written.
//!
//! The log does not hold everything that a page of PostgreSQL holds. What only the page knows must not be
//! dropped while somebody may still ask for it:
//!
//! - a page that is not in the log at all, until it is;
//! - a page of a free space map, until it is logged in the background: its changes never are (`pg::free_space`);
//! - a sequence's page, always: values handed out inside the logged range are on the page alone;
//! - command ids other than the first, combo command ids and speculative tokens of heap tuples that a running
//!   transaction has made or deleted (redo writes the first command id, heapam.c 15.18), until the transactions that
//!   were running have ended;
//! - a visibility map page, until everything that was running in any backend has ended: bits are cleared in the
//!   buffer before the record that clears them exists (`heap_update`, heapam.c; `RelationTruncate`, storage.c, which a
//!   vacuum without a transaction id calls);
//! - a btree page's vacuum cycle id (`btpo_cycleid` is not in split records), as long.

use pg_quorum_types::{BLOCK_SIZE, ForkNumber};

/// What a page that is being written needs of the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    pub origin: Origin,
    pub awaits: Option<Awaits>,
}

/// Whether the page can be had from storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It has a record's LSN.
    Logged,
    /// It has none: an index build's page before it is logged, a new page; or an imported page that has none.
    Unlogged,
    /// A sequence's.
    Sequence,
    /// Of a free space map, whatever LSN it bears: what changes it bears none.
    FreeSpaceMap,
}

/// Whose end makes the page one like every other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaits {
    /// Of the top-level transactions that run now.
    Transactions,
    /// Of everything that runs now in any backend, vacuums without a transaction id among it.
    Backends,
}

/// No record has a lower LSN: the first WAL segment is never written, and is at least 1 MB. Index builds use lower
/// numbers as placeholders (`GistBuildLSN` is 1).
const FIRST_RECORD_LSN: u64 = 1 << 20;
const PAGE_HEADER_BYTES: usize = 24;
const LINE_POINTER_BYTES: usize = 4;
/// `LP_NORMAL`.
const NORMAL: u32 = 1;
const TUPLE_HEADER_BYTES: usize = 23;
/// `HEAP_COMBOCID`.
const COMBO_CID: u16 = 0x0020;
/// `HEAP_XMAX_IS_MULTI`: who of its members runs is not on the page.
const XMAX_IS_MULTI: u16 = 0x1000;
/// `FirstNormalTransactionId`.
const FIRST_NORMAL_XID: u32 = 3;
/// `SpecTokenOffsetNumber`.
const SPECULATIVE: u16 = 0xFFFE;
/// `MAXALIGN(sizeof(sequence_magic))`.
pub const SEQUENCE_SPECIAL_BYTES: usize = 8;
/// `SEQ_MAGIC`.
pub const SEQUENCE_MAGIC: u32 = 0x1717;
/// `sizeof(BTPageOpaqueData)`; its last field is the cycle id.
const BTREE_SPECIAL_BYTES: usize = 16;
/// `MAX_BT_CYCLE_ID`: higher values are other index types' page ids.
const MAX_CYCLE_ID: u16 = 0xFF7F;

impl Written {
    /// A block that exists as zeros.
    pub const ZEROS: Written = Written {
        origin: Origin::Unlogged,
        awaits: None,
    };

    /// Judges `page` of a fork of kind `fork`. Any bytes will do. `oldest_running_xid`, see
    /// [`super::Ended::oldest_running_xid`], is asked only if a tuple bears something volatile.
    pub fn judge(
        fork: ForkNumber,
        page: &[u8; BLOCK_SIZE],
        oldest_running_xid: impl FnOnce() -> u64,
    ) -> Written {
        if fork == ForkNumber::FreeSpaceMap {
            return Written {
                origin: Origin::FreeSpaceMap,
                awaits: None,
            };
        }
        let origin = if is_sequence(page) {
            Origin::Sequence
        } else if lsn(page) >= FIRST_RECORD_LSN {
            Origin::Logged
        } else {
            Origin::Unlogged
        };
        let awaits = match fork {
            ForkNumber::VisibilityMap => Some(Awaits::Backends),
            _ if is_heap(page) => {
                awaits_transactions(page, oldest_running_xid).then_some(Awaits::Transactions)
            }
            _ if has_cycle_id(page) => Some(Awaits::Backends),
            _ => None,
        };
        Written { origin, awaits }
    }
}

fn u16_at(page: &[u8; BLOCK_SIZE], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn u32_at(page: &[u8; BLOCK_SIZE], at: usize) -> u32 {
    u32::from(u16_at(page, at)) | u32::from(u16_at(page, at + 2)) << 16
}

/// `PageGetLSN`: the high half first.
fn lsn(page: &[u8; BLOCK_SIZE]) -> u64 {
    u64::from(u32_at(page, 0)) << 32 | u64::from(u32_at(page, 4))
}

/// Where the special space begins.
fn special(page: &[u8; BLOCK_SIZE]) -> usize {
    usize::from(u16_at(page, 16))
}

/// Only heap pages have no special space.
fn is_heap(page: &[u8; BLOCK_SIZE]) -> bool {
    special(page) == BLOCK_SIZE
}

fn is_sequence(page: &[u8; BLOCK_SIZE]) -> bool {
    let at = BLOCK_SIZE - SEQUENCE_SPECIAL_BYTES;
    special(page) == at && u32_at(page, at) == SEQUENCE_MAGIC
}

fn has_cycle_id(page: &[u8; BLOCK_SIZE]) -> bool {
    let cycle_id = u16_at(page, BLOCK_SIZE - 2);
    special(page) == BLOCK_SIZE - BTREE_SPECIAL_BYTES && (1..=MAX_CYCLE_ID).contains(&cycle_id)
}

/// Whether a tuple bears what redo would not give back and a transaction that runs may look at.
fn awaits_transactions(page: &[u8; BLOCK_SIZE], oldest_running_xid: impl FnOnce() -> u64) -> bool {
    let mut volatile = volatile_tuples(page).peekable();
    if volatile.peek().is_none() {
        return false;
    }
    let oldest = oldest_running_xid() as u32;
    let may_run = |xid: u32| xid >= FIRST_NORMAL_XID && xid.wrapping_sub(oldest) < 1 << 31;
    volatile.any(|at| {
        let (xmin, xmax, infomask) = (u32_at(page, at), u32_at(page, at + 4), u16_at(page, at + 20));
        may_run(xmin) || may_run(xmax) || infomask & XMAX_IS_MULTI != 0
    })
}

/// Where the tuples are whose command id is not the first one, or that bear a combo id or a token.
fn volatile_tuples(page: &[u8; BLOCK_SIZE]) -> impl Iterator<Item = usize> {
    let lower = usize::from(u16_at(page, 12)).min(BLOCK_SIZE);
    let count = lower.saturating_sub(PAGE_HEADER_BYTES) / LINE_POINTER_BYTES;
    (0..count).filter_map(move |number| {
        let line_pointer = u32_at(page, PAGE_HEADER_BYTES + number * LINE_POINTER_BYTES);
        let at = (line_pointer & 0x7FFF) as usize;
        if line_pointer >> 15 & 3 != NORMAL || at + TUPLE_HEADER_BYTES > BLOCK_SIZE {
            return None;
        }
        let (command_id, posid, infomask) =
            (u32_at(page, at + 8), u16_at(page, at + 16), u16_at(page, at + 20));
        let is_volatile = command_id != 0 || infomask & COMBO_CID != 0 || posid == SPECULATIVE;
        is_volatile.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGGED: u64 = 0x1_0200_0000;
    const XMIN: u32 = 1000;

    fn page(lsn: u64, special_bytes: usize) -> [u8; BLOCK_SIZE] {
        let mut page = [0; BLOCK_SIZE];
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page[12..14].copy_from_slice(&(PAGE_HEADER_BYTES as u16).to_le_bytes());
        page[16..18].copy_from_slice(&((BLOCK_SIZE - special_bytes) as u16).to_le_bytes());
        page
    }

    /// A heap page with one tuple.
    fn heap(command_id: u32, posid: u16, infomask: u16) -> [u8; BLOCK_SIZE] {
        let mut page = page(LOGGED, 0);
        let at = BLOCK_SIZE - 32;
        page[12..14].copy_from_slice(&28u16.to_le_bytes());
        page[24..28].copy_from_slice(&(at as u32 | NORMAL << 15 | 32 << 17).to_le_bytes());
        page[at..at + 4].copy_from_slice(&XMIN.to_le_bytes());
        page[at + 8..at + 12].copy_from_slice(&command_id.to_le_bytes());
        page[at + 16..at + 18].copy_from_slice(&posid.to_le_bytes());
        page[at + 20..at + 22].copy_from_slice(&infomask.to_le_bytes());
        page
    }

    fn judge(page: &[u8; BLOCK_SIZE]) -> Written {
        Written::judge(ForkNumber::Main, page, || u64::from(XMIN))
    }

    #[test]
    fn command_ids_combo_ids_and_speculative_tokens_await_transactions() {
        assert_eq!(judge(&heap(0, 1, 0x0002)).awaits, None);
        for page in [heap(1, 1, 0), heap(0, 1, COMBO_CID), heap(0, SPECULATIVE, 0)] {
            assert_eq!(judge(&page).awaits, Some(Awaits::Transactions));
        }
        let mut dead = heap(7, 1, 0);
        dead[24..28].copy_from_slice(&(3u32 << 15).to_le_bytes());
        assert_eq!(judge(&dead).awaits, None, "a dead line pointer has no tuple");
    }

    #[test]
    fn the_command_ids_of_transactions_that_have_ended_await_nothing() {
        let later = || 1 << 32 | u64::from(XMIN + 1);
        let awaits = |page: &[u8; BLOCK_SIZE]| Written::judge(ForkNumber::Main, page, later).awaits;
        let mut page = heap(1, 1, 0);
        assert_eq!(awaits(&page), None);
        let at = BLOCK_SIZE - 32;
        page[at + 4..at + 8].copy_from_slice(&(XMIN + 1).to_le_bytes());
        assert_eq!(awaits(&page), Some(Awaits::Transactions), "its deleter runs");
        assert_eq!(awaits(&heap(1, 1, XMAX_IS_MULTI)), Some(Awaits::Transactions));
    }

    #[test]
    fn a_visibility_map_page_awaits_backends_always() {
        let written = Written::judge(ForkNumber::VisibilityMap, &page(LOGGED, 0), || 0);
        assert_eq!(written.awaits, Some(Awaits::Backends));
    }

    #[test]
    fn a_vacuum_cycle_id_awaits_backends_and_other_index_types_have_none() {
        let mut btree = page(LOGGED, BTREE_SPECIAL_BYTES);
        assert_eq!(judge(&btree).awaits, None);
        btree[BLOCK_SIZE - 2..].copy_from_slice(&5u16.to_le_bytes());
        assert_eq!(judge(&btree).awaits, Some(Awaits::Backends));
        btree[BLOCK_SIZE - 2..].copy_from_slice(&0xFF81u16.to_le_bytes());
        assert_eq!(judge(&btree).awaits, None, "a GiST page");
    }

    #[test]
    fn placeholders_of_index_builds_are_no_lsn() {
        for (lsn, origin) in [
            (0, Origin::Unlogged),
            (1, Origin::Unlogged),
            (LOGGED, Origin::Logged),
        ] {
            assert_eq!(judge(&page(lsn, 16)).origin, origin);
        }
        assert_eq!(judge(&[0; BLOCK_SIZE]), Written::ZEROS);
    }

    #[test]
    fn a_sequence_stays_whatever_its_lsn() {
        let mut sequence = page(LOGGED, SEQUENCE_SPECIAL_BYTES);
        sequence[BLOCK_SIZE - 8..BLOCK_SIZE - 4].copy_from_slice(&SEQUENCE_MAGIC.to_le_bytes());
        assert_eq!(judge(&sequence).origin, Origin::Sequence);
    }

    #[test]
    fn a_free_space_map_page_is_in_no_log_whatever_its_lsn() {
        for page in [page(LOGGED, 0), heap(1, 1, 0), [0; BLOCK_SIZE]] {
            let written = Written::judge(ForkNumber::FreeSpaceMap, &page, || 0);
            assert_eq!((written.origin, written.awaits), (Origin::FreeSpaceMap, None));
        }
    }

    #[test]
    fn any_bytes_are_judged() {
        for fill in [0x00, 0x18, 0x7F, 0x80, 0xFF] {
            let mut page = [fill; BLOCK_SIZE];
            judge(&page);
            page[16..18].copy_from_slice(&(BLOCK_SIZE as u16).to_le_bytes());
            judge(&page);
        }
    }
}
