//! Which pages of the logs of transaction state are in use.

use pg_quorum_types::{BLOCK_SIZE, SlruKind};
use pg_quorum_wal::CheckpointState;

/// Entries on a page: transactions (two bits each), multixacts (four bytes), members (groups of four in
/// twenty bytes), transactions (ten bytes). `clog.c`, `multixact.c`, `commit_ts.c`, 15.18.
const fn entries_per_page(kind: SlruKind) -> u32 {
    let page = BLOCK_SIZE as u32;
    match kind {
        SlruKind::Clog => page * 4,
        SlruKind::MultiXactOffset => page / 4,
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

/// Where the oldest multixact's offset stands: page of the offsets, byte in it. `None` if there is no
/// multixact.
pub fn oldest_offset_place(state: &CheckpointState) -> Option<(u32, usize)> {
    let checkpoint = &state.checkpoint;
    if checkpoint.oldest_multi == checkpoint.next_multi {
        return None;
    }
    let per_page = entries_per_page(SlruKind::MultiXactOffset);
    let entry = checkpoint.oldest_multi % per_page;
    Some((checkpoint.oldest_multi / per_page, entry as usize * 4))
}

/// Members from the oldest multixact's first one, if known, to the next one.
pub fn multixact_members(state: &CheckpointState, oldest_offset: Option<u32>) -> PageRange {
    let next = state.checkpoint.next_multi_offset;
    PageRange::of_entries(SlruKind::MultiXactMember, oldest_offset.unwrap_or(next), next)
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

    #[test]
    fn the_page_of_the_next_transaction_is_there_before_it_is_used() {
        let mut state = CheckpointState::default();
        state.checkpoint.oldest_xid = 3;
        state.checkpoint.next_full_xid = 7 << 32 | 32_768;
        assert_eq!(clog(&state).pages().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(commit_timestamps(&state), None);
    }
}
