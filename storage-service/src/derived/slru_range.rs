//! Which pages of the logs of transaction state are in use.

use std::ops::Range;

use pg_quorum_types::{BLOCK_SIZE, SlruKind};
use pg_quorum_wal::CheckpointState;

/// A multixact's entry: the offset of its first member among the members, 0 for none (`multixact.c`, 15.18).
const OFFSET_BYTES: usize = 4;

/// Entries on a page: transactions (two bits each), multixacts (four bytes), members (groups of four in
/// twenty bytes), transactions (ten bytes). `clog.c`, `multixact.c`, `commit_ts.c`, 15.18.
const fn entries_per_page(kind: SlruKind) -> u32 {
    let page = BLOCK_SIZE as u32;
    match kind {
        SlruKind::Clog => page * 4,
        SlruKind::MultiXactOffset => page / OFFSET_BYTES as u32,
        SlruKind::MultiXactMember => page / 20 * 4,
        SlruKind::CommitTs => page / 10,
    }
}

/// Pages of an SLRU from `first` to `last`, both included; the numbers wrap around.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRange {
    pub kind: SlruKind,
    pub first: u32,
    pub last: u32,
}

impl PageRange {
    /// The pages of the entries from `first` to `last`, both included.
    fn of_entries(kind: SlruKind, first: u32, last: u32) -> PageRange {
        PageRange {
            kind,
            first: first / entries_per_page(kind),
            last: last / entries_per_page(kind),
        }
    }

    /// Pages in order.
    pub fn pages(self) -> impl Iterator<Item = u32> {
        let highest = u32::MAX / entries_per_page(self.kind);
        let mut next = Some(self.first);
        std::iter::from_fn(move || {
            let page = next?;
            next = (page != self.last).then_some(if page == highest { 0 } else { page + 1 });
            Some(page)
        })
    }
}

/// Transactions from the oldest that may be asked for to the next one.
pub fn clog(state: &CheckpointState) -> PageRange {
    let checkpoint = &state.checkpoint;
    PageRange::of_entries(
        SlruKind::Clog,
        checkpoint.oldest_xid,
        checkpoint.next_full_xid as u32,
    )
}

/// Multixacts from the oldest to the next one.
pub fn multixact_offsets(state: &CheckpointState) -> PageRange {
    let checkpoint = &state.checkpoint;
    PageRange::of_entries(
        SlruKind::MultiXactOffset,
        checkpoint.oldest_multi,
        checkpoint.next_multi,
    )
}

/// Where the offsets of the multixacts stand, from the oldest one on, without the next one's: pages of the offsets,
/// and the bytes of each that belong to them.
///
/// Where the counter wraps it skips 0, whose offset is none like that of a multixact that was lost in a crash.
pub fn offset_places(state: &CheckpointState) -> impl Iterator<Item = (u32, Range<usize>)> {
    let checkpoint = state.checkpoint;
    let range = multixact_offsets(state);
    let per_page = entries_per_page(SlruKind::MultiXactOffset);
    let byte_of = move |multi: u32| (multi % per_page) as usize * OFFSET_BYTES;
    range.pages().filter_map(move |page| {
        let begin = match page == range.first {
            true => byte_of(checkpoint.oldest_multi),
            false => 0,
        };
        let end = match page == range.last {
            true => byte_of(checkpoint.next_multi),
            false => BLOCK_SIZE,
        };
        (begin < end).then_some((page, begin..end))
    })
}

/// The first offset that is known in a page's bytes that [`offset_places`] named.
pub fn first_offset(offsets: &[u8]) -> Option<u32> {
    let (offsets, _) = offsets.as_chunks::<OFFSET_BYTES>();
    offsets
        .iter()
        .map(|offset| u32::from_le_bytes(*offset))
        .find(|offset| *offset != 0)
}

/// Members from the first one that is in use, `None` if no multixact has any, to the next one.
pub fn multixact_members(state: &CheckpointState, first_member: Option<u32>) -> PageRange {
    let next = state.checkpoint.next_multi_offset;
    PageRange::of_entries(SlruKind::MultiXactMember, first_member.unwrap_or(next), next)
}

/// Transactions from the oldest with a timestamp to the next one; `None` if they are not tracked.
pub fn commit_timestamps(state: &CheckpointState) -> Option<PageRange> {
    let checkpoint = &state.checkpoint;
    (state.parameters.track_commit_timestamp && checkpoint.oldest_commit_ts_xid != 0).then(|| {
        PageRange::of_entries(
            SlruKind::CommitTs,
            checkpoint.oldest_commit_ts_xid,
            checkpoint.next_full_xid as u32,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_wrap_around_with_their_counters() {
        let range = PageRange::of_entries(SlruKind::Clog, u32::MAX - 40_000, 70_000);
        let pages: Vec<u32> = range.pages().collect();
        assert_eq!(pages, [131_070, 131_071, 0, 1, 2]);
        let one = PageRange::of_entries(SlruKind::MultiXactMember, 1, 1635);
        assert_eq!(one.pages().collect::<Vec<_>>(), [0]);
    }

    fn places_of_offsets(oldest_multi: u32, next_multi: u32) -> Vec<(u32, Range<usize>)> {
        let mut state = CheckpointState::default();
        state.checkpoint.oldest_multi = oldest_multi;
        state.checkpoint.next_multi = next_multi;
        offset_places(&state).collect()
    }

    #[test]
    fn offsets_are_looked_for_from_the_oldest_multixact_to_the_next_one() {
        assert_eq!(places_of_offsets(1, 1), []);
        assert_eq!(places_of_offsets(5, 9), [(0, 20..36)]);
        assert_eq!(places_of_offsets(2047, 2048), [(0, 8188..8192)]);
        assert_eq!(
            places_of_offsets(2047, 4097),
            [(0, 8188..8192), (1, 0..8192), (2, 0..4)]
        );
        let last_page = u32::MAX / 2048;
        assert_eq!(
            places_of_offsets(u32::MAX, 2),
            [(last_page, 8188..8192), (0, 0..8)]
        );
    }

    #[test]
    fn multixacts_that_were_lost_in_a_crash_have_no_offset() {
        let offsets: Vec<u8> = [0_u32, 0, 1700, 1702]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(first_offset(&offsets), Some(1700));
        assert_eq!(first_offset(&offsets[..8]), None);
    }

    #[test]
    fn the_page_of_the_next_transaction_is_there_before_it_is_used() {
        let mut state = CheckpointState::default();
        state.checkpoint.oldest_xid = 3;
        state.checkpoint.next_full_xid = 7 << 32 | 32_768;
        assert_eq!(clog(&state).pages().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(commit_timestamps(&state), None);
    }
}
