//! The page index: which records changed which page since the persisted state.
//!
//! All entries stand in one queue in LSN order. Each knows its page and leads to the page's entry before it:
//!
//! ```text
//! pages    key A ------------------------┐   key B ----┐
//! entries  [A] <----- [A] <----- [B] <-- [A]  <------- [B]
//!          front: the oldest                         back: the newest
//! ```
//! So a new entry touches the queue's end and its page's place only, and what is persisted is the queue's front.

use std::collections::VecDeque;
use std::collections::hash_map;
use std::hint::black_box;
use std::ops::RangeInclusive;

use pg_quorum_types::{Lsn, PageKey};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::record_log::LogPosition;
use super::redo_threads::RedoThreads;

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

/// The n-th entry that was added, modulo 2^32.
type EntryNumber = u32;

/// An [`IndexEntry`] in the queue.
#[derive(Clone, Copy)]
struct Entry {
    end: Lsn,
    position: LogPosition,
    /// Bytes from the record's start to its end, and [`FULL`].
    span: u32,
    /// The page's entry before this one; this one itself if it is the page's first. It may be forgotten by now.
    previous: EntryNumber,
    /// Index in [`PageIndex::keys`].
    page: u32,
}

/// In [`Entry::span`]: the record alone determines the page.
const FULL: u32 = 1 << 31;

const _: () = assert!(size_of::<Entry>() == 32, "most of the memory that a node takes");

impl From<&Entry> for IndexEntry {
    fn from(entry: &Entry) -> IndexEntry {
        IndexEntry {
            start: Lsn(entry.end.0 - u64::from(entry.span & !FULL)),
            end: entry.end,
            position: entry.position,
            full: entry.span & FULL != 0,
        }
    }
}

/// A page that has entries.
#[derive(Clone, Copy)]
struct Indexed {
    page: u32,
    last: EntryNumber,
    last_end: Lsn,
}

/// Memory of a page's places in the tables, in bytes.
const SLOT_BYTES: usize = size_of::<(PageKey, Indexed)>() * 8 / 7 + 1 + size_of::<PageKey>();

/// Pages that are looked up ahead, so that their places come from memory side by side.
const AHEAD: usize = 16;

/// Records by page. All of them end above the LSN that is persisted.
#[derive(Default)]
pub struct PageIndex {
    pages: FxHashMap<PageKey, Indexed>,
    /// Keys of pages by number.
    keys: Vec<PageKey>,
    /// Numbers that no page has.
    free: Vec<u32>,
    entries: Queue,
}

/// A page that a round turns into an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingPage {
    pub key: PageKey,
    /// How many records it has up to the round's target.
    pub record_count: usize,
    /// Index in [`PageIndex::keys`].
    page: u32,
}

/// All of a round's pages in portions, with their records.
pub struct Pending {
    pub portions: Vec<Portion>,
    /// The log in stretches, one behind the other.
    stretches: Vec<Stretch>,
    /// By the page's number: its place in its portion.
    places: Vec<u32>,
}

/// Pages that are built together.
pub struct Portion {
    pub keys: Vec<PageKey>,
    /// Index in [`Pending::portions`].
    number: usize,
}

/// The entries of a stretch of the log.
struct Stretch {
    /// By portion, each one's in LSN order.
    entries: Vec<EntryNumber>,
    /// By portion: where its entries end.
    ends: Vec<usize>,
}

impl Stretch {
    /// Entries by the portions of their pages, of which there are so many for each portion.
    fn sorted(pieces: &[Piece<'_>], portion_of: &[u32], counts: impl Iterator<Item = usize>) -> Stretch {
        let mut total = 0;
        // Where the next entry of each portion belongs: in the end, behind its last one.
        let mut ends: Vec<usize> = counts
            .map(|count| {
                total += count;
                total - count
            })
            .collect();
        let mut sorted = vec![0; total];
        for (first, entries) in pieces {
            for (number, entry) in (0..).zip(*entries) {
                let next = &mut ends[portion_of[entry.page as usize] as usize];
                sorted[*next] = first.wrapping_add(number);
                *next += 1;
            }
        }
        Stretch {
            entries: sorted,
            ends,
        }
    }

    fn of_portion(&self, number: usize) -> &[EntryNumber] {
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[begin..self.ends[number]]
    }
}

impl PageIndex {
    /// Adds records, as [`PageIndex::push`] does one after the other.
    pub fn push_all(&mut self, records: &[(PageKey, IndexEntry)]) {
        for records in records.chunks(AHEAD) {
            let pages = records.iter().filter_map(|(key, _)| self.pages.get(key));
            black_box(pages.fold(0, |all, indexed| all ^ indexed.page));
            for (key, entry) in records {
                self.push(*key, *entry);
            }
        }
    }

    /// Adds a record, which must end above all records that the page has, and not below any other.
    fn push(&mut self, key: PageKey, entry: IndexEntry) {
        let number = self.entries.next_number();
        let span = u32::try_from(entry.end.bytes_since(entry.start)).unwrap_or(FULL);
        assert!(
            span < FULL,
            "{key}: a record from {} to {}",
            entry.start,
            entry.end
        );
        let (page, previous) = match self.pages.entry(key) {
            hash_map::Entry::Occupied(mut place) => {
                let indexed = place.get_mut();
                assert!(
                    indexed.last_end < entry.end,
                    "{key}: a record that ends at {} comes behind one that ends at {}",
                    entry.end,
                    indexed.last_end
                );
                let previous = std::mem::replace(&mut indexed.last, number);
                indexed.last_end = entry.end;
                (indexed.page, previous)
            }
            hash_map::Entry::Vacant(place) => {
                let page = self.free.pop().unwrap_or_else(|| {
                    self.keys.push(key);
                    (self.keys.len() - 1) as u32
                });
                self.keys[page as usize] = key;
                place.insert(Indexed {
                    page,
                    last: number,
                    last_end: entry.end,
                });
                (page, number)
            }
        };
        self.entries.push(Entry {
            end: entry.end,
            position: entry.position,
            span: span | if entry.full { FULL } else { 0 },
            previous,
            page,
        });
    }

    /// The page's records that end inside the range.
    pub fn records(&self, key: &PageKey, ends: RangeInclusive<Lsn>) -> PageRecords {
        let mut records = PageRecords::new();
        let mut next = self.pages.get(key).map(|indexed| indexed.last);
        while let Some(entry) = next.and_then(|number| self.entries.get(number)) {
            if entry.end < *ends.start() {
                break;
            }
            if entry.end <= *ends.end() {
                records.push(entry.into());
            }
            next = (Some(entry.previous) != next).then_some(entry.previous);
        }
        records.reverse();
        records
    }

    /// Where the page's last record ends, `None` if it has none.
    pub fn last_change(&self, key: &PageKey) -> Option<Lsn> {
        self.pages.get(key).map(|indexed| indexed.last_end)
    }

    /// The pages that have records up to `target`, as `divide` cuts them into portions: it gets them in key order.
    /// Helpers join if they may.
    pub fn pending(
        &self,
        target: Lsn,
        threads: &RedoThreads,
        may_help: bool,
        divide: impl FnOnce(Vec<PendingPage>) -> Vec<Vec<PendingPage>>,
    ) -> Pending {
        let pieces: Vec<_> = self.entries.through(target).collect();
        // Each stretch has a count for each page: all of them together are no more than there are entries and pages.
        let most = self.entries.len() / self.keys.len().max(1) + 1;
        let stretches = if may_help { threads.count().min(most) } else { 1 };
        let stretches: Vec<&[Piece<'_>]> = pieces.chunks(pieces.len().div_ceil(stretches).max(1)).collect();
        let counts = threads.map(&stretches, || may_help, |pieces| self.counts(pieces));
        let count = |page: usize| counts.iter().map(|counts| counts[page] as usize).sum();
        let pages = (0..).zip(&self.keys).map(|(page, key)| PendingPage {
            key: *key,
            record_count: count(page as usize),
            page,
        });
        let mut pages: Vec<PendingPage> = pages.filter(|page| page.record_count > 0).collect();
        pages.sort_unstable_by_key(|page| page.key);
        let portions = divide(pages);
        let mut portion_of = vec![0; self.keys.len()];
        let mut places = vec![0; self.keys.len()];
        for (number, pages) in (0..).zip(&portions) {
            for (place, page) in (0..).zip(pages) {
                portion_of[page.page as usize] = number;
                places[page.page as usize] = place;
            }
        }
        let sort = |(pieces, counts): &(&[Piece<'_>], &Vec<u32>)| {
            let of_portion = |pages: &Vec<PendingPage>| -> usize {
                pages.iter().map(|page| counts[page.page as usize] as usize).sum()
            };
            Stretch::sorted(pieces, &portion_of, portions.iter().map(of_portion))
        };
        let counted: Vec<_> = stretches.into_iter().zip(&counts).collect();
        let stretches = threads.map(&counted, || may_help, sort);
        let portions = portions.iter().enumerate().map(|(number, pages)| Portion {
            keys: pages.iter().map(|page| page.key).collect(),
            number,
        });
        Pending {
            portions: portions.collect(),
            stretches,
            places,
        }
    }

    /// How many of these entries each page has, by its number.
    fn counts(&self, pieces: &[Piece<'_>]) -> Vec<u32> {
        let mut counts = vec![0; self.keys.len()];
        for entry in pieces.iter().flat_map(|(_, entries)| *entries) {
            counts[entry.page as usize] += 1;
        }
        counts
    }

    /// The records of a portion's pages in LSN order, each with its page's place in [`Portion::keys`].
    ///
    /// # Panics
    /// Something of it was forgotten or cut meanwhile.
    pub fn portion_records<'a>(
        &'a self,
        pending: &'a Pending,
        portion: &Portion,
    ) -> impl Iterator<Item = (u32, IndexEntry)> + use<'a> {
        let number = portion.number;
        let stretches = pending.stretches.iter();
        let entries = stretches.flat_map(move |stretch| stretch.of_portion(number));
        entries.map(|number| {
            let entry = self.entries.get(*number).expect("a pending entry is kept");
            (pending.places[entry.page as usize], entry.into())
        })
    }

    /// Forgets records that end at or below `target`.
    pub fn forget_through(&mut self, target: Lsn) {
        self.entries.forget_through(target);
        let free = &mut self.free;
        self.pages.retain(|_, indexed| {
            let keeps = indexed.last_end > target;
            if !keeps {
                free.push(indexed.page);
            }
            keeps
        });
        self.shrink();
    }

    /// Forgets records that end above `to`.
    pub fn cut(&mut self, to: Lsn) {
        while let Some(entry) = self.entries.back().filter(|entry| entry.end > to).copied() {
            let number = self.entries.next_number().wrapping_sub(1);
            self.entries.pop_back();
            let key = self.keys[entry.page as usize];
            let previous = (entry.previous != number).then_some(entry.previous);
            match previous.and_then(|previous| Some((previous, self.entries.get(previous)?.end))) {
                Some((last, last_end)) => {
                    let page = entry.page;
                    self.pages.insert(key, Indexed { page, last, last_end });
                }
                None => {
                    self.pages.remove(&key);
                    self.free.push(entry.page);
                }
            }
        }
        self.shrink();
    }

    /// Gives memory back.
    fn shrink(&mut self) {
        if self.pages.len() * 4 < self.pages.capacity() {
            self.pages.shrink_to(self.pages.len() * 2);
        }
        if self.pages.is_empty() {
            self.keys = Vec::new();
            self.free = Vec::new();
        }
    }

    /// Memory in use, about.
    pub fn bytes(&self) -> usize {
        self.pages.len() * SLOT_BYTES + self.entries.len() * size_of::<Entry>()
    }

    /// How many pages have records.
    pub fn len(&self) -> usize {
        self.pages.len()
    }
}

/// Entries of one piece of the queue's memory.
const CHUNK_ENTRIES: usize = 4096;

/// Some consecutive entries, and the number of the first one.
type Piece<'a> = (EntryNumber, &'a [Entry]);

/// Entries by number, in pieces so that nothing is moved when it grows.
#[derive(Default)]
struct Queue {
    chunks: VecDeque<Vec<Entry>>,
    /// The number of the first chunk's first entry.
    base: EntryNumber,
    /// Entries of the first chunk that are gone.
    gone: usize,
    len: usize,
}

impl Queue {
    fn len(&self) -> usize {
        self.len
    }

    fn next_number(&self) -> EntryNumber {
        self.base.wrapping_add((self.gone + self.len) as u32)
    }

    /// `None` for a number that is gone.
    fn get(&self, number: EntryNumber) -> Option<&Entry> {
        let at = number.wrapping_sub(self.base) as usize;
        if at < self.gone || at >= self.gone + self.len {
            return None;
        }
        Some(&self.chunks[at / CHUNK_ENTRIES][at % CHUNK_ENTRIES])
    }

    fn push(&mut self, entry: Entry) {
        assert!(self.len < 1 << 31, "more entries than numbers");
        assert!(
            self.back().is_none_or(|back| back.end <= entry.end),
            "records are indexed in their order"
        );
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_ENTRIES => chunk.push(entry),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_ENTRIES);
                chunk.push(entry);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
    }

    fn back(&self) -> Option<&Entry> {
        self.chunks.back()?.last().filter(|_| self.len > 0)
    }

    /// Drops entries at the front that end at or below `target`, whole chunks at once.
    fn forget_through(&mut self, target: Lsn) {
        while let Some(chunk) = self.chunks.front() {
            let through = chunk.partition_point(|entry| entry.end <= target).max(self.gone);
            self.len -= through - self.gone;
            self.gone = through;
            if through < CHUNK_ENTRIES {
                return;
            }
            self.chunks.pop_front();
            self.base = self.base.wrapping_add(CHUNK_ENTRIES as u32);
            self.gone = 0;
        }
    }

    fn pop_back(&mut self) {
        self.len -= 1;
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.pop();
            if chunk.is_empty() {
                self.chunks.pop_back();
            }
        }
    }

    /// Those that end at or below `target`, oldest first.
    fn through(&self, target: Lsn) -> impl Iterator<Item = Piece<'_>> {
        let starts = (0..).map(|chunk| chunk * CHUNK_ENTRIES);
        let pieces = starts.zip(&self.chunks).map(move |(start, chunk)| {
            let from = if start == 0 { self.gone } else { 0 };
            let through = chunk.partition_point(|entry| entry.end <= target).max(from);
            (
                self.base.wrapping_add((start + from) as u32),
                &chunk[from..through],
            )
        });
        pieces.take_while(|(_, entries)| !entries.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_quorum_types::{ForkNumber, RelFileNode};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::num::NonZeroUsize;

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
                offset: end as u32,
                length: 8,
            },
            full: end.is_multiple_of(48),
        }
    }

    fn ends(index: &PageIndex, block: u32, range: RangeInclusive<u64>) -> Vec<u64> {
        let records = index.records(&key(block), Lsn(*range.start())..=Lsn(*range.end()));
        records.iter().map(|entry| entry.end.0).collect()
    }

    fn threads(count: usize) -> RedoThreads {
        RedoThreads::new(NonZeroUsize::new(count).unwrap())
    }

    /// What a round would do up to `target` with portions of so many pages, and as many threads: for each one keys and
    /// ends.
    fn pending(index: &PageIndex, target: u64, pages: usize) -> Vec<Vec<(PageKey, Vec<u64>)>> {
        let divide = |all: Vec<PendingPage>| all.chunks(pages).map(<[_]>::to_vec).collect();
        let pending = index.pending(Lsn(target), &threads(pages), true, divide);
        let of_portion = |portion: &Portion| {
            let records: Vec<_> = index.portion_records(&pending, portion).collect();
            assert!(records.is_sorted_by_key(|(_, entry)| entry.end));
            let ends_of = |(place, key): (u32, &PageKey)| {
                let of_page = records.iter().filter(|(page, _)| *page == place);
                (*key, of_page.map(|(_, entry)| entry.end.0).collect())
            };
            (0..).zip(&portion.keys).map(ends_of).collect()
        };
        pending.portions.iter().map(of_portion).collect()
    }

    #[test]
    fn records_are_found_by_their_end() {
        let mut index = PageIndex::default();
        for (block, end) in [(1, 16), (1, 32), (0, 40), (1, 48)] {
            index.push(key(block), entry(end));
        }
        assert_eq!(ends(&index, 1, 0..=31), [16]);
        assert_eq!(ends(&index, 1, 16..=48), [16, 32, 48]);
        assert_eq!(ends(&index, 1, 17..=47), [32]);
        assert!(ends(&index, 2, 0..=100).is_empty());
        assert_eq!(
            index.records(&key(1), Lsn(40)..=Lsn(50)).as_slice(),
            [entry(48)],
            "an entry comes back as it was"
        );
        assert_eq!(pending(&index, 16, 1), [[(key(1), vec![16])]]);
        let both = [(key(0), vec![40]), (key(1), vec![16, 32])];
        assert_eq!(pending(&index, 40, 1), both.clone().map(|page| [page]));
        assert_eq!(pending(&index, 40, 2), [both]);
    }

    #[test]
    fn what_is_persisted_or_cut_is_forgotten_and_its_memory_freed() {
        let mut index = PageIndex::default();
        for end in 1..=50 {
            for block in 0..100 {
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

    #[derive(Clone, Debug)]
    enum Step {
        /// So many records, on pages that follow from the seed.
        Push(u32, u32),
        /// In percent of the way from the oldest to the newest record.
        Forget(u64),
        Cut(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1..9000_u32, any::<u32>()).prop_map(|(count, seed)| Step::Push(count, seed)),
            1 => (0..=100_u64).prop_map(Step::Forget),
            1 => (0..=100_u64).prop_map(Step::Cut),
        ];
        proptest::collection::vec(step, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Against a vector of records for each page.
        #[test]
        fn it_holds_what_was_added_and_neither_forgotten_nor_cut(steps in steps()) {
            let mut index = PageIndex::default();
            let mut model: BTreeMap<PageKey, Vec<u64>> = BTreeMap::new();
            let (mut oldest, mut newest) = (8, 8);
            for step in steps {
                let place = |percent: u64| oldest + (newest - oldest) * percent / 100;
                match step {
                    Step::Push(count, seed) => {
                        let mut records = Vec::new();
                        for number in 0..count {
                            newest += 8;
                            let key = key((number.wrapping_mul(seed | 1) >> 7) % 50);
                            records.push((key, entry(newest)));
                            model.entry(key).or_default().push(newest);
                        }
                        index.push_all(&records);
                    }
                    Step::Forget(percent) => {
                        let target = place(percent);
                        index.forget_through(Lsn(target));
                        model.values_mut().for_each(|ends| ends.retain(|end| *end > target));
                        oldest = target;
                    }
                    Step::Cut(percent) => {
                        let to = place(percent);
                        index.cut(Lsn(to));
                        model.values_mut().for_each(|ends| ends.retain(|end| *end <= to));
                        newest = to;
                    }
                }
                model.retain(|_, ends| !ends.is_empty());
                prop_assert_eq!(index.len(), model.len());
                for block in 0..50 {
                    let expected = model.get(&key(block)).cloned().unwrap_or_default();
                    prop_assert_eq!(ends(&index, block, 0..=u64::MAX), expected);
                }
                let expected: Vec<_> = model.iter().map(|(key, ends)| (*key, ends.clone())).collect();
                for pages in [1, 7, 100] {
                    prop_assert_eq!(pending(&index, u64::MAX, pages).concat(), expected.clone());
                }
            }
        }
    }
}
