//! Drops and truncations: from which LSN on what pages start from zeros again.
//!
//! A relation's number may be used again after it was dropped. The old images are deleted some time
//! later; until then a reset hides everything of before: images, records, and sizes if the fork as a whole
//! went. What bears the reset's own LSN comes after it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use pg_quorum_types::{DatabaseKey, ForkNumber, Lsn, PageKey, RelFileNode, RelFork, SlruKind};
use pg_quorum_wal::{SlruRange, SlruTruncation};

/// What went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// Blocks from `from_block` on. The fork stays.
    Tail { fork: RelFork, from_block: u32 },
    /// The fork as a whole.
    Fork(RelFork),
    /// All forks.
    Relation(RelFileNode),
    /// All relations of a database in a tablespace.
    Database(DatabaseKey),
    /// Pages of an SLRU.
    Slru(SlruTruncation),
}

/// A reset's name: its LSN and its number among those of the same LSN.
pub type ResetId = (Lsn, u32);

/// Resets that must still be looked at.
#[derive(Clone, Default)]
pub struct Resets {
    all: BTreeMap<ResetId, Dropped>,
    relations: HashMap<RelFileNode, Vec<(ResetId, Dropped)>>,
    databases: HashMap<DatabaseKey, Vec<Lsn>>,
    slrus: Vec<(ResetId, SlruTruncation)>,
}

fn database_of(rel: RelFileNode) -> DatabaseKey {
    DatabaseKey {
        spc: rel.spc,
        db: rel.db,
    }
}

impl Dropped {
    fn relation(&self) -> Option<RelFileNode> {
        match self {
            Dropped::Tail { fork, .. } | Dropped::Fork(fork) => Some(fork.rel),
            Dropped::Relation(rel) => Some(*rel),
            Dropped::Database(_) | Dropped::Slru(_) => None,
        }
    }

    fn hides_page(&self, of: RelFork, block: u32) -> bool {
        match self {
            Dropped::Tail { fork, from_block } => *fork == of && block >= *from_block,
            _ => self.hides_size(of),
        }
    }

    fn hides_size(&self, of: RelFork) -> bool {
        match self {
            Dropped::Tail { .. } | Dropped::Slru(_) => false,
            Dropped::Fork(fork) => *fork == of,
            Dropped::Relation(rel) => *rel == of.rel,
            Dropped::Database(database) => *database == database_of(of.rel),
        }
    }

    /// ```text
    /// 1 | spc u32 | db u32 | rel u32 | fork u8 | from_block u32
    /// 2 | spc | db | rel | fork
    /// 3 | spc | db | rel
    /// 4 | spc | db
    /// 5 | kind u8 | range u8 (0 before, 1 files, 2 all) | first or cutoff u32 | end u32
    /// ```
    /// all numbers in little-endian order.
    pub fn to_bytes(self) -> Bytes {
        let rel = |bytes: &mut Vec<u8>, rel: RelFileNode| {
            for number in [rel.spc, rel.db, rel.rel] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        };
        let mut bytes = Vec::with_capacity(18);
        match self {
            Dropped::Tail { fork, from_block } => {
                bytes.push(1);
                rel(&mut bytes, fork.rel);
                bytes.push(fork.fork as u8);
                bytes.extend_from_slice(&from_block.to_le_bytes());
            }
            Dropped::Fork(fork) => {
                bytes.push(2);
                rel(&mut bytes, fork.rel);
                bytes.push(fork.fork as u8);
            }
            Dropped::Relation(dropped) => {
                bytes.push(3);
                rel(&mut bytes, dropped);
            }
            Dropped::Database(database) => {
                bytes.push(4);
                bytes.extend_from_slice(&database.spc.to_le_bytes());
                bytes.extend_from_slice(&database.db.to_le_bytes());
            }
            Dropped::Slru(truncation) => {
                let (range, first, end) = match truncation.range {
                    SlruRange::Before { cutoff_page } => (0, cutoff_page, 0),
                    SlruRange::Files { first, end } => (1, first, end),
                    SlruRange::All => (2, 0, 0),
                };
                bytes.extend_from_slice(&[5, truncation.kind as u8, range]);
                bytes.extend_from_slice(&first.to_le_bytes());
                bytes.extend_from_slice(&end.to_le_bytes());
            }
        }
        bytes.into()
    }

    /// The inverse of [`Dropped::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Dropped> {
        let (&tag, rest) = bytes.split_first()?;
        let word = |at: usize| Some(u32::from_le_bytes(*rest.get(at..)?.first_chunk()?));
        let rel = || {
            Some(RelFileNode {
                spc: word(0)?,
                db: word(4)?,
                rel: word(8)?,
            })
        };
        let fork = || {
            Some(RelFork {
                rel: rel()?,
                fork: ForkNumber::from_number(*rest.get(12)?)?,
            })
        };
        match tag {
            1 => Some(Dropped::Tail {
                fork: fork()?,
                from_block: word(13)?,
            }),
            2 => Some(Dropped::Fork(fork()?)),
            3 => Some(Dropped::Relation(rel()?)),
            4 => Some(Dropped::Database(DatabaseKey {
                spc: word(0)?,
                db: word(4)?,
            })),
            5 => Some(Dropped::Slru(SlruTruncation {
                kind: SlruKind::from_number(*rest.first()?)?,
                range: match rest.get(1)? {
                    0 => SlruRange::Before {
                        cutoff_page: word(2)?,
                    },
                    1 => SlruRange::Files {
                        first: word(2)?,
                        end: word(6)?,
                    },
                    2 => SlruRange::All,
                    _ => return None,
                },
            })),
            _ => None,
        }
    }
}

impl Resets {
    /// Adds a reset at `lsn`, behind all others of that LSN. Returns its name.
    pub fn push(&mut self, lsn: Lsn, dropped: Dropped) -> ResetId {
        let last = self.all.range((lsn, 0)..=(lsn, u32::MAX)).next_back();
        let id = (lsn, last.map_or(0, |((_, number), _)| number + 1));
        self.restore(id, dropped);
        id
    }

    /// Adds a reset under the name that it had.
    pub fn restore(&mut self, id: ResetId, dropped: Dropped) {
        self.all.insert(id, dropped);
        if let Some(rel) = dropped.relation() {
            self.relations.entry(rel).or_default().push((id, dropped));
        } else if let Dropped::Database(database) = dropped {
            self.databases.entry(database).or_default().push(id.0);
        } else if let Dropped::Slru(truncation) = dropped {
            self.slrus.push((id, truncation));
        }
    }

    /// The last reset at or below `at` that hides this page: only what bears this LSN or a higher one
    /// counts. [`Lsn::INVALID`] if nothing is hidden.
    pub fn hidden_page(&self, key: &PageKey, at: Lsn) -> Lsn {
        match key {
            PageKey::Relation { rel, block } => {
                self.last(*rel, at, |dropped| dropped.hides_page(*rel, *block))
            }
            PageKey::Slru { kind, page } => {
                let truncations = self.slrus.iter().filter(|((lsn, _), truncation)| {
                    *lsn <= at && truncation.kind == *kind && truncation.removes(*page)
                });
                let last = truncations.map(|((lsn, _), _)| *lsn).max();
                last.unwrap_or(Lsn::INVALID)
            }
        }
    }

    /// The same for the size of a fork.
    pub fn hidden_size(&self, fork: RelFork, at: Lsn) -> Lsn {
        self.last(fork, at, |dropped| dropped.hides_size(fork))
    }

    fn last(&self, fork: RelFork, at: Lsn, hides: impl Fn(&Dropped) -> bool) -> Lsn {
        let by_relation = self.relations.get(&fork.rel).into_iter().flatten();
        let by_relation = by_relation
            .filter(|((lsn, _), dropped)| *lsn <= at && hides(dropped))
            .map(|((lsn, _), _)| *lsn);
        let by_database = self.databases.get(&database_of(fork.rel)).into_iter().flatten();
        let by_database = by_database.copied().filter(|lsn| *lsn <= at);
        by_relation.chain(by_database).max().unwrap_or(Lsn::INVALID)
    }

    /// All resets at or below `target`, oldest first.
    pub fn through(&self, target: Lsn) -> Vec<(ResetId, Dropped)> {
        let range = self.all.range(..=(target, u32::MAX));
        range.map(|(id, dropped)| (*id, *dropped)).collect()
    }

    /// Forgets resets whose deletions are done.
    pub fn forget(&mut self, ids: &[ResetId]) {
        for id in ids {
            self.remove(*id);
        }
    }

    /// Forgets resets above `to`.
    pub fn cut(&mut self, to: Lsn) {
        let above: Vec<_> = self.all.range((to + 1, 0)..).map(|(id, _)| *id).collect();
        self.forget(&above);
    }

    fn remove(&mut self, id: ResetId) {
        let Some(dropped) = self.all.remove(&id) else {
            return;
        };
        if let Some(rel) = dropped.relation()
            && let Some(resets) = self.relations.get_mut(&rel)
        {
            resets.retain(|(other, _)| *other != id);
            if resets.is_empty() {
                self.relations.remove(&rel);
            }
        } else if let Dropped::Database(database) = dropped
            && let Some(lsns) = self.databases.get_mut(&database)
        {
            lsns.retain(|lsn| *lsn != id.0);
            if lsns.is_empty() {
                self.databases.remove(&database);
            }
        } else if let Dropped::Slru(_) = dropped {
            self.slrus.retain(|(other, _)| *other != id);
        }
    }

    /// Memory in use, about.
    pub fn bytes(&self) -> usize {
        self.all.len() * 160
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REL: RelFileNode = RelFileNode {
        spc: 1663,
        db: 5,
        rel: 16384,
    };
    const MAIN: RelFork = RelFork {
        rel: REL,
        fork: ForkNumber::Main,
    };

    fn main_block(block: u32) -> PageKey {
        PageKey::relation(REL, ForkNumber::Main, block)
    }

    #[test]
    fn a_truncation_hides_the_tail_only_and_no_size() {
        let mut resets = Resets::default();
        resets.push(
            Lsn(100),
            Dropped::Tail {
                fork: MAIN,
                from_block: 3,
            },
        );
        assert_eq!(resets.hidden_page(&main_block(2), Lsn(500)), Lsn::INVALID);
        assert_eq!(resets.hidden_page(&main_block(3), Lsn(500)), Lsn(100));
        assert_eq!(resets.hidden_page(&main_block(3), Lsn(99)), Lsn::INVALID);
        assert_eq!(resets.hidden_size(MAIN, Lsn(500)), Lsn::INVALID);
    }

    #[test]
    fn the_last_of_several_drops_counts() {
        let mut resets = Resets::default();
        resets.push(Lsn(100), Dropped::Relation(REL));
        resets.push(Lsn(200), Dropped::Database(DatabaseKey { spc: 1663, db: 5 }));
        let last = resets.push(Lsn(200), Dropped::Fork(MAIN));
        assert_eq!(last, (Lsn(200), 1));
        assert_eq!(resets.hidden_size(MAIN, Lsn(150)), Lsn(100));
        assert_eq!(resets.hidden_size(MAIN, Lsn(200)), Lsn(200));
        resets.cut(Lsn(199));
        assert_eq!(resets.hidden_page(&main_block(0), Lsn(900)), Lsn(100));
        resets.forget(&[(Lsn(100), 0)]);
        assert_eq!(resets.hidden_page(&main_block(0), Lsn(900)), Lsn::INVALID);
        assert_eq!(resets.bytes(), 0);
    }

    #[test]
    fn stored_resets_come_back_unchanged() {
        let slru = |range| {
            Dropped::Slru(SlruTruncation {
                kind: SlruKind::MultiXactMember,
                range,
            })
        };
        for dropped in [
            Dropped::Tail {
                fork: MAIN,
                from_block: 77,
            },
            Dropped::Fork(MAIN),
            Dropped::Relation(REL),
            Dropped::Database(DatabaseKey { spc: 1663, db: 5 }),
            slru(SlruRange::Before { cutoff_page: 64 }),
            slru(SlruRange::Files { first: 9, end: 2 }),
            slru(SlruRange::All),
        ] {
            assert_eq!(Dropped::from_bytes(&dropped.to_bytes()), Some(dropped));
        }
        assert_eq!(Dropped::from_bytes(&[1, 2]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(tag in 0..7_u8, bytes in prop::collection::vec(0..6_u8, 0..24)) {
            if let Some(dropped) = Dropped::from_bytes(&[&[tag], &bytes[..]].concat()) {
                prop_assert_eq!(Dropped::from_bytes(&dropped.to_bytes()), Some(dropped));
            }
        }
    }
}
