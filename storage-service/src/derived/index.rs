//! The page index: which records changed which page since the persisted state.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use pg_quorum_types::{Lsn, PageKey};
use smallvec::SmallVec;

use super::record_log::LogPosition;

/// One record that changes a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    pub start: Lsn,
    /// Exclusive; the page's LSN afterwards.
    pub end: Lsn,
    pub position: LogPosition,
    /// The record alone determines the page.
    pub full: bool,
}

/// A page's records in LSN order.
pub type PageRecords = SmallVec<[IndexEntry; 1]>;

/// Memory of a page's slot in the table, in bytes, its first record included.
const SLOT_BYTES: usize = size_of::<(PageKey, PageRecords)>() * 8 / 7 + 1;

/// Records by page. All of them end above the LSN that is persisted.
#[derive(Default)]
pub struct PageIndex {
    pages: HashMap<PageKey, PageRecords>,
    /// Memory behind slots that outgrew them.
    spilled_bytes: usize,
}

fn spilled(records: &PageRecords) -> usize {
    if records.spilled() {
        records.capacity() * size_of::<IndexEntry>()
    } else {
        0
    }
}

impl PageIndex {
    /// Adds a record, which must end above all records that the page has.
    pub fn push(&mut self, key: PageKey, entry: IndexEntry) {
        let records = self.pages.entry(key).or_default();
        assert!(
            records.last().is_none_or(|last| last.end < entry.end),
            "{key}: a record that ends at {} comes behind one that ends at or above it",
            entry.end
        );
        let before = spilled(records);
        records.push(entry);
        self.spilled_bytes += spilled(records) - before;
    }

    /// The page's records that end inside the range.
    pub fn records(&self, key: &PageKey, ends: RangeInclusive<Lsn>) -> PageRecords {
        let Some(records) = self.pages.get(key) else {
            return PageRecords::new();
        };
        let from = records.partition_point(|entry| entry.end < *ends.start());
        let to = records.partition_point(|entry| entry.end <= *ends.end());
        SmallVec::from_slice(&records[from..to.max(from)])
    }

    /// Pages that have records up to `target`, in key order.
    pub fn pages_through(&self, target: Lsn) -> Vec<PageKey> {
        let pending = self
            .pages
            .iter()
            .filter(|(_, records)| records.first().is_some_and(|entry| entry.end <= target));
        let mut keys: Vec<PageKey> = pending.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// Forgets records that end at or below `target`.
    pub fn forget_through(&mut self, target: Lsn) {
        self.retain(|entry| entry.end > target);
    }

    /// Forgets records that end above `to`.
    pub fn cut(&mut self, to: Lsn) {
        self.retain(|entry| entry.end <= to);
    }

    fn retain(&mut self, keeps: impl Fn(&IndexEntry) -> bool) {
        let mut spilled_bytes = 0;
        self.pages.retain(|_, records| {
            records.retain(|entry| keeps(entry));
            records.shrink_to_fit();
            spilled_bytes += spilled(records);
            !records.is_empty()
        });
        self.spilled_bytes = spilled_bytes;
        if self.pages.len() * 4 < self.pages.capacity() {
            self.pages.shrink_to(self.pages.len() * 2);
        }
    }

    /// Memory in use, about.
    pub fn bytes(&self) -> usize {
        self.pages.len() * SLOT_BYTES + self.spilled_bytes
    }

    /// How many pages have records.
    pub fn len(&self) -> usize {
        self.pages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_quorum_types::{ForkNumber, RelFileNode};

    fn key(block: u32) -> PageKey {
        let rel = RelFileNode {
            spc: 1663,
            db: 5,
            rel: 16384,
        };
        PageKey::relation(rel, ForkNumber::Main, block)
    }

    fn entry(end: u64) -> IndexEntry {
        IndexEntry {
            start: Lsn(end - 8),
            end: Lsn(end),
            position: LogPosition {
                file: 0,
                offset: end,
                length: 8,
            },
            full: false,
        }
    }

    fn ends(index: &PageIndex, block: u32, range: RangeInclusive<u64>) -> Vec<u64> {
        let records = index.records(&key(block), Lsn(*range.start())..=Lsn(*range.end()));
        records.iter().map(|entry| entry.end.0).collect()
    }

    #[test]
    fn records_are_found_by_their_end() {
        let mut index = PageIndex::default();
        for end in [16, 32, 48] {
            index.push(key(1), entry(end));
        }
        index.push(key(0), entry(40));
        assert_eq!(ends(&index, 1, 0..=31), [16]);
        assert_eq!(ends(&index, 1, 16..=48), [16, 32, 48]);
        assert_eq!(ends(&index, 1, 17..=47), [32]);
        assert!(ends(&index, 2, 0..=100).is_empty());
        assert_eq!(index.pages_through(Lsn(16)), [key(1)]);
        assert_eq!(index.pages_through(Lsn(40)), [key(0), key(1)]);
    }

    #[test]
    fn what_is_persisted_or_cut_is_forgotten_and_its_memory_freed() {
        let mut index = PageIndex::default();
        for block in 0..100 {
            for end in 1..=50 {
                index.push(key(block), entry(end * 8));
            }
        }
        let full = index.bytes();
        index.forget_through(Lsn(200));
        assert_eq!(ends(&index, 7, 0..=216), [208, 216]);
        index.cut(Lsn(208));
        assert_eq!(ends(&index, 7, 0..=1000), [208]);
        assert!(index.bytes() < full / 5);
        index.cut(Lsn(0));
        assert_eq!(index.bytes(), 0);
    }
}
