//! The final comparison: every page, unmasked, with the files of a stock standby that replayed the same WAL.

use std::collections::BTreeSet;

use pg_quorum_tests::volume::Volume;
use pg_quorum_types::{BLOCK_SIZE, ForkNumber, PageKey, RelFork};
use pg_quorum_wal::Page;

use crate::replay::{Difference, Mismatch, Replay, first_difference};

/// Where a standby's file may legally differ from replayed pages.
pub struct Rules {
    /// `pd_checksum` is computed when a page is written to a file; pages in memory carry an old one.
    pub checksums_are_set_at_write: bool,
}

/// How much was compared.
#[derive(Default, Debug)]
pub struct FinalComparison {
    pub relation_pages: u64,
    pub slru_pages: u64,
    pub mismatches: Vec<Mismatch>,
}

/// Compares all forks but free space maps, and all pages of transaction state.
pub fn compare(replay: &Replay, standby: &Volume, rules: &Rules) -> FinalComparison {
    let mut comparison = FinalComparison::default();
    let ours = &replay.volume;
    let forks: BTreeSet<RelFork> = ours.forks.keys().chain(standby.forks.keys()).copied().collect();
    for fork in forks {
        if replay.unsupported_forks.contains(&fork) || fork.fork == ForkNumber::FreeSpaceMap {
            continue;
        }
        let blocks = |volume: &Volume| volume.forks.get(&fork).map_or(0, Vec::len) as u32;
        for block in 0..blocks(ours).max(blocks(standby)) {
            let key = PageKey::Relation { rel: fork, block };
            comparison.relation_pages += 1;
            let difference = match (ours.existing(key), standby.existing(key)) {
                (Some(ours), Some(theirs)) => relation_difference(ours, theirs, rules),
                (Some(_), None) => Some(Difference::OnlyOurs),
                (None, _) => Some(Difference::OnlyTheirs),
            };
            comparison.note(key, difference);
        }
    }
    let pages: BTreeSet<_> = ours.slru.keys().chain(standby.slru.keys()).copied().collect();
    for (kind, page) in pages {
        let key = PageKey::Slru { kind, page };
        comparison.slru_pages += 1;
        // A page that no file reaches is a page of zeros.
        comparison.note(key, first_difference(&ours.page(key), &standby.page(key)));
    }
    comparison
}

impl FinalComparison {
    fn note(&mut self, key: PageKey, difference: Option<Difference>) {
        if let Some(what) = difference {
            self.mismatches.push(Mismatch {
                record: None,
                key,
                what,
            });
        }
    }
}

fn relation_difference(ours: &Page, theirs: &Page, rules: &Rules) -> Option<Difference> {
    if ours == theirs {
        return None;
    }
    let (mut ours, mut theirs): (Page, Page) = (*ours, *theirs);
    if rules.checksums_are_set_at_write && theirs != [0; BLOCK_SIZE] {
        ours[8..10].fill(0);
        theirs[8..10].fill(0);
    }
    first_difference(&ours, &theirs)
}
