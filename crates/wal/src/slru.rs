//! Which page of an SLRU holds what, and which pages a truncation removes.
//!
//! The logs of transaction state wrap around with the counters that index them, so "before" is a comparison
//! modulo 2^32. Mirrors `clog.c`, `commit_ts.c`, `multixact.c` and `slru.c` (`access/transam`, 15.18).

use pg_quorum_types::{BLOCK_SIZE, SlruKind};

/// `SLRU_PAGES_PER_SEGMENT`: pages in a file.
pub(crate) const PAGES_PER_FILE: u32 = 32;
/// `CLOG_XACTS_PER_PAGE`: two bits each.
pub(crate) const CLOG_XIDS_PER_PAGE: u32 = BLOCK_SIZE as u32 * 4;
/// `SizeOfCommitTimestampEntry`: time u64 | origin u16.
pub(crate) const COMMIT_TS_ENTRY_BYTES: usize = 10;
/// `COMMIT_TS_XACTS_PER_PAGE`.
pub(crate) const COMMIT_TS_XIDS_PER_PAGE: u32 = BLOCK_SIZE as u32 / COMMIT_TS_ENTRY_BYTES as u32;
/// `MULTIXACT_OFFSETS_PER_PAGE`.
pub(crate) const OFFSETS_PER_PAGE: u32 = BLOCK_SIZE as u32 / 4;
/// `MULTIXACT_MEMBERGROUP_SIZE`: four bytes of flags, then four transaction ids.
pub(crate) const MEMBER_GROUP_BYTES: u32 = 20;
/// `MULTIXACT_MEMBERS_PER_MEMBERGROUP`.
pub(crate) const MEMBERS_PER_GROUP: u32 = 4;
/// `MULTIXACT_MEMBERS_PER_PAGE`.
pub(crate) const MEMBERS_PER_PAGE: u32 = BLOCK_SIZE as u32 / MEMBER_GROUP_BYTES * MEMBERS_PER_GROUP;

const _: () = assert!(COMMIT_TS_XIDS_PER_PAGE == 819 && MEMBERS_PER_PAGE == 1636);

/// `FirstNormalTransactionId`.
pub(crate) const FIRST_NORMAL_XID: u32 = 3;
/// `FirstMultiXactId`.
pub(crate) const FIRST_MULTIXACT: u32 = 1;

/// The multixact after `multi`; the counter skips 0 where it wraps.
pub(crate) fn next_multixact(multi: u32) -> u32 {
    multi.wrapping_add(1).max(FIRST_MULTIXACT)
}

/// The multixact before `multi` (`PreviousMultiXactId`).
pub(crate) fn previous_multixact(multi: u32) -> u32 {
    if multi <= FIRST_MULTIXACT {
        u32::MAX
    } else {
        multi - 1
    }
}

/// `TransactionIdPrecedes`: modulo 2^32, but special ids precede all normal ones.
pub(crate) fn xid_precedes(earlier: u32, later: u32) -> bool {
    if earlier < FIRST_NORMAL_XID || later < FIRST_NORMAL_XID {
        return earlier < later;
    }
    wraps_before(earlier, later)
}

/// `MultiXactIdPrecedes`, `MultiXactOffsetPrecedes`: modulo 2^32.
pub(crate) fn wraps_before(earlier: u32, later: u32) -> bool {
    (earlier.wrapping_sub(later) as i32) < 0
}

/// Which pages of an SLRU a truncation removes. Whole files go, 32 pages each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlruTruncation {
    pub kind: SlruKind,
    pub range: SlruRange,
}

/// The removed part of an SLRU, which wraps around.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlruRange {
    /// Every file all of whose pages precede this page (`SimpleLruTruncate`).
    Before { cutoff_page: u32 },
    /// The files from `first` up to, without, `end`; they wrap around (`PerformMembersTruncation`).
    Files { first: u32, end: u32 },
    /// Everything.
    All,
}

impl SlruTruncation {
    /// Whether this page is gone afterwards. It then reads as zeros until a record makes it anew.
    pub fn removes(&self, page: u32) -> bool {
        let file = page / PAGES_PER_FILE;
        match self.range {
            SlruRange::Before { cutoff_page } => {
                let first = file * PAGES_PER_FILE;
                page_precedes(self.kind, first, cutoff_page)
                    && page_precedes(self.kind, first + (PAGES_PER_FILE - 1), cutoff_page)
            }
            SlruRange::Files { first, end } if first <= end => (first..end).contains(&file),
            SlruRange::Files { first, end } => file >= first || file < end,
            SlruRange::All => true,
        }
    }
}

/// The `PagePrecedes` functions: both ends of the later page must lie behind the start of the earlier one,
/// or half the number space lies between them.
fn page_precedes(kind: SlruKind, earlier: u32, later: u32) -> bool {
    let (per_page, first, precedes): (u32, u32, fn(u32, u32) -> bool) = match kind {
        SlruKind::Clog => (CLOG_XIDS_PER_PAGE, FIRST_NORMAL_XID + 1, xid_precedes),
        SlruKind::CommitTs => (COMMIT_TS_XIDS_PER_PAGE, FIRST_NORMAL_XID + 1, xid_precedes),
        SlruKind::MultiXactOffset => (OFFSETS_PER_PAGE, FIRST_MULTIXACT + 1, wraps_before),
        SlruKind::MultiXactMember => (MEMBERS_PER_PAGE, 0, wraps_before),
    };
    let start = |page: u32| page.wrapping_mul(per_page).wrapping_add(first);
    let (earlier, later) = (start(earlier), start(later));
    precedes(earlier, later) && precedes(earlier, later.wrapping_add(per_page - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(kind: SlruKind, cutoff_page: u32) -> SlruTruncation {
        SlruTruncation {
            kind,
            range: SlruRange::Before { cutoff_page },
        }
    }

    #[test]
    fn only_files_wholly_before_the_cutoff_go() {
        let cut = before(SlruKind::Clog, 70);
        assert!(cut.removes(0) && cut.removes(63));
        assert!(!cut.removes(64) && !cut.removes(69) && !cut.removes(70) && !cut.removes(100));
    }

    #[test]
    fn a_truncation_keeps_the_half_of_the_number_space_that_is_ahead() {
        // 131072 clog pages in all; page 10 is the oldest that counts, pages up to half the circle are ahead.
        let cut = before(SlruKind::Clog, 64);
        assert!(cut.removes(131_071) && cut.removes(0) && cut.removes(31));
        assert!(!cut.removes(64 + 65_000));
        let members = before(SlruKind::MultiXactMember, 64);
        assert!(members.removes(0) && !members.removes(64));
    }

    #[test]
    fn a_range_of_member_files_wraps() {
        let last_file = u32::MAX / MEMBERS_PER_PAGE / PAGES_PER_FILE;
        let cut = SlruTruncation {
            kind: SlruKind::MultiXactMember,
            range: SlruRange::Files {
                first: last_file,
                end: 2,
            },
        };
        for (file, removed) in [
            (last_file - 1, false),
            (last_file, true),
            (0, true),
            (1, true),
            (2, false),
        ] {
            assert_eq!(cut.removes(file * PAGES_PER_FILE + 5), removed, "{file}");
        }
    }

    #[test]
    fn multixact_numbers_skip_zero_where_they_wrap() {
        assert_eq!(next_multixact(u32::MAX), 1);
        assert_eq!(previous_multixact(1), u32::MAX);
        assert_eq!(next_multixact(41), 42);
    }
}
