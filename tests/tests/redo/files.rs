//! The final comparison: every page, unmasked, with the files of a stock standby that replayed the same WAL.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use pg_quorum_tests::fork::Fork;
use pg_quorum_tests::volume::Volume;
use pg_quorum_types::{ForkNumber, PageKey, RelFork};
use pg_quorum_wal::Page;
use storage_service::derived::set_page_checksum;

use crate::replay::{Difference, Mismatch, Replay, first_difference};

/// `pd_checksum`.
const CHECKSUM: Range<usize> = 8..10;

/// A reason for which a standby's file may legally differ from replayed pages. Whatever has none is a mismatch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// A page of transaction state that no file reaches reads as zeros.
    StateBeyondItsFile,
}

impl Rule {
    pub fn text(self) -> &'static str {
        match self {
            Rule::StateBeyondItsFile => "a page of transaction state that is in no file is all zeros",
        }
    }
}

/// How much was compared.
#[derive(Default, Debug)]
pub struct FinalComparison {
    pub relation_pages: u64,
    pub slru_pages: u64,
    /// Pages that differ, and legally, by reason.
    pub legal: BTreeMap<Rule, u64>,
    pub mismatches: Vec<Mismatch>,
}

/// Compares all forks but free space maps, which a standby fills by itself as it replays (`XLogRecordPageWithFreeSpace`,
/// freespace.c 15.18), and all pages of transaction state.
pub fn compare(replay: &Replay, standby: &Volume, has_checksums: bool) -> FinalComparison {
    let mut comparison = FinalComparison::default();
    let ours = &replay.volume;
    let forks: BTreeSet<RelFork> = ours.forks.keys().chain(standby.forks.keys()).copied().collect();
    for fork in forks {
        if fork.fork == ForkNumber::FreeSpaceMap {
            continue;
        }
        let blocks = |volume: &Volume| volume.forks.get(&fork).map_or(0, Fork::blocks) as u32;
        for block in 0..blocks(ours).max(blocks(standby)) {
            let key = PageKey::Relation { rel: fork, block };
            comparison.relation_pages += 1;
            match (ours.existing(key), standby.existing(key)) {
                (Some(ours), Some(theirs)) => {
                    comparison.relation_page(key, block, ours, theirs, has_checksums);
                }
                (Some(_), None) => comparison.note(key, Difference::OnlyOurs),
                (None, _) => comparison.note(key, Difference::OnlyTheirs),
            }
        }
    }
    let pages: BTreeSet<_> = ours.slru.keys().chain(standby.slru.keys()).copied().collect();
    for (kind, page) in pages {
        let key = PageKey::Slru { kind, page };
        comparison.slru_pages += 1;
        match first_difference(&ours.page(key), &standby.page(key)) {
            Some(difference) => comparison.note(key, difference),
            None if ours.existing(key).is_none() || standby.existing(key).is_none() => {
                comparison.excuse(Rule::StateBeyondItsFile);
            }
            None => {}
        }
    }
    comparison
}

impl FinalComparison {
    fn relation_page(&mut self, key: PageKey, block: u32, ours: &Page, theirs: &Page, has_checksums: bool) {
        let mut served: Page = *ours;
        let mut content: Page = *ours;
        if has_checksums {
            // Memory bears an old checksum: PostgreSQL computes it as it writes a page, a node as it serves one.
            set_page_checksum(&mut served, block);
            content[CHECKSUM].copy_from_slice(&theirs[CHECKSUM]);
        }
        // Other bytes first: if one differs, so does the checksum, which tells less.
        if let Some(what) = first_difference(&content, theirs).or_else(|| first_difference(&served, theirs)) {
            self.note(key, what);
        }
    }

    fn excuse(&mut self, rule: Rule) {
        *self.legal.entry(rule).or_default() += 1;
    }

    fn note(&mut self, key: PageKey, what: Difference) {
        self.mismatches.push(Mismatch {
            record: None,
            key,
            what,
        });
    }
}
