//! From a record's effects to changes of index, overlay and resets.
//!
//! Needs what is known before the record: sizes (a page behind the end extends its fork) and the present
//! values of what is changed in place. A [`Changes`] gathers a run of records before it becomes visible.

use bytes::Bytes;
use pg_quorum_types::{DatabaseKey, ForkNumber, Lsn, PageKey, RelFileNode, RelFork};
use pg_quorum_wal::{MetaChange, PageEffect, RedoContext};
use rustc_hash::FxHashMap;

use super::error::DerivedError;
use super::index::IndexEntry;
use super::meta_key::{MetaKey, MetaValue};
use super::resets::Dropped;
use super::state::{State, encode_size};

/// What is known as of the end of the records that are already in the state.
pub trait Known {
    /// # Errors
    /// The store fails.
    fn size(&self, fork: RelFork) -> Result<Option<u32>, DerivedError>;
    /// # Errors
    /// The store fails.
    fn meta(&self, key: &MetaKey) -> Result<MetaValue, DerivedError>;
    /// PostgreSQL's major version: the content of a new `PG_VERSION`.
    fn pg_major(&self) -> u32;
}

/// Sizes that were looked up or made, so that most records need no look-up. Belongs to one cut count.
#[derive(Default)]
pub struct SizeCache {
    sizes: FxHashMap<RelFork, Option<u32>>,
}

/// Forks whose sizes are remembered; beyond that the cache starts anew.
const MAX_CACHED_SIZES: usize = 100_000;

impl SizeCache {
    fn set(&mut self, fork: RelFork, size: Option<u32>) {
        if self.sizes.len() >= MAX_CACHED_SIZES && !self.sizes.contains_key(&fork) {
            self.sizes.clear();
        }
        self.sizes.insert(fork, size);
    }

    fn drop_database(&mut self, database: DatabaseKey) {
        self.sizes
            .retain(|fork, _| (fork.rel.spc, fork.rel.db) != (database.spc, database.db));
    }

    pub fn clear(&mut self) {
        self.sizes.clear();
    }
}

/// Changes of a run of records, in LSN order. Its memory serves one run after the other.
#[derive(Default)]
pub struct Changes {
    pages: Vec<(PageKey, IndexEntry)>,
    metas: Vec<(Lsn, MetaKey, MetaValue)>,
    resets: Vec<(Lsn, Dropped)>,
    contexts: Vec<(Lsn, RedoContext)>,
}

impl Changes {
    /// Forgets them.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.metas.clear();
        self.resets.clear();
        self.contexts.clear();
    }

    /// Adds what one record changes. `entry` is the record, with any `full`.
    ///
    /// # Errors
    /// A look-up failed.
    pub fn add(
        &mut self,
        entry: IndexEntry,
        pages: &[PageEffect],
        metas: impl IntoIterator<Item = MetaChange>,
        sizes: &mut SizeCache,
        known: &dyn Known,
    ) -> Result<(), DerivedError> {
        for change in metas {
            self.add_meta(entry.end, change, sizes, known)?;
        }
        for effect in pages {
            self.add_page(entry, effect, sizes, known)?;
        }
        Ok(())
    }

    /// From `end` on another context holds.
    pub fn add_context(&mut self, end: Lsn, context: RedoContext) {
        self.contexts.push((end, context));
    }

    /// Metadata that no effect names.
    pub fn put(&mut self, lsn: Lsn, key: MetaKey, value: MetaValue) {
        self.metas.push((lsn, key, value));
    }

    /// Makes the changes visible to reads; none are left.
    pub fn apply_to(&mut self, state: &mut State) {
        for (lsn, dropped) in self.resets.drain(..) {
            state.resets.push(lsn, dropped);
        }
        for (lsn, key, value) in self.metas.drain(..) {
            state.overlay.put(key.to_bytes(), lsn, value);
        }
        state.index.push_all(&self.pages);
        self.pages.clear();
        for (end, context) in self.contexts.drain(..) {
            state.contexts.push(end, context);
        }
    }

    fn add_page(
        &mut self,
        entry: IndexEntry,
        effect: &PageEffect,
        sizes: &mut SizeCache,
        known: &dyn Known,
    ) -> Result<(), DerivedError> {
        if let PageKey::Relation { rel: fork, block } = effect.key {
            if self.is_late_hint(fork, sizes, known)? {
                return Ok(());
            }
            let size = self.size(fork, sizes, known)?;
            if size.is_none_or(|size| block >= size) {
                if !effect.extends {
                    return Ok(());
                }
                let end = block.checked_add(1).ok_or_else(|| {
                    DerivedError::Damaged(format!("{} at {} is no block", effect.key, entry.start))
                })?;
                self.set_size(entry.end, fork, end, sizes);
            }
        }
        let full = effect.full;
        self.pages.push((effect.key, IndexEntry { full, ..entry }));
        Ok(())
    }

    /// Whether this is a page of a free space map whose relation is gone. Whoever logs such pages holds no lock on the
    /// relation: its drop may come first in the log, and nothing would ever take the fork away again.
    fn is_late_hint(
        &self,
        fork: RelFork,
        sizes: &mut SizeCache,
        known: &dyn Known,
    ) -> Result<bool, DerivedError> {
        let main = RelFork {
            fork: ForkNumber::Main,
            ..fork
        };
        Ok(fork.fork == ForkNumber::FreeSpaceMap && self.size(main, sizes, known)?.is_none())
    }

    fn size(
        &self,
        fork: RelFork,
        sizes: &mut SizeCache,
        known: &dyn Known,
    ) -> Result<Option<u32>, DerivedError> {
        if let Some(size) = sizes.sizes.get(&fork) {
            return Ok(*size);
        }
        // A size of this run may have left the cache; then it is in the run's own changes.
        let size = match self.unflushed_size(fork) {
            Some(size) => size,
            None => known.size(fork)?,
        };
        sizes.set(fork, size);
        Ok(size)
    }

    fn unflushed_size(&self, fork: RelFork) -> Option<Option<u32>> {
        let key = MetaKey::Size(fork);
        let made = self.metas.iter().rev().find(|(_, made, _)| *made == key);
        let made = made.map(|(lsn, _, value)| (*lsn, value.as_ref().and_then(size_of)));
        let hidden = self.resets.iter().rev().find(|(_, dropped)| match dropped {
            Dropped::Fork(dropped) => *dropped == fork,
            Dropped::Relation(rel) => *rel == fork.rel,
            Dropped::Database(database) => (database.spc, database.db) == (fork.rel.spc, fork.rel.db),
            Dropped::Tail { .. } | Dropped::Slru(_) => false,
        });
        match (made, hidden) {
            (Some((made, size)), Some((hidden, _))) => Some(size.filter(|_| made >= *hidden)),
            (Some((_, size)), None) => Some(size),
            (None, Some(_)) => Some(None),
            (None, None) => None,
        }
    }

    fn set_size(&mut self, lsn: Lsn, fork: RelFork, blocks: u32, sizes: &mut SizeCache) {
        sizes.set(fork, Some(blocks));
        self.put(lsn, MetaKey::Size(fork), Some(encode_size(blocks)));
    }

    fn drop_relation(&mut self, lsn: Lsn, rel: RelFileNode, sizes: &mut SizeCache) {
        self.resets.push((lsn, Dropped::Relation(rel)));
        for fork in ForkNumber::ALL {
            sizes.set(RelFork { rel, fork }, None);
        }
    }

    fn add_meta(
        &mut self,
        lsn: Lsn,
        change: MetaChange,
        sizes: &mut SizeCache,
        known: &dyn Known,
    ) -> Result<(), DerivedError> {
        match change {
            MetaChange::RelationCreated { fork } => {
                // PostgreSQL makes a fork's file exactly once (`RelationCreateStorage`, storage.c, 15.18) and
                // logs that before any page of it: whatever bears this number is of an earlier relation
                // whose drop was never logged (its transaction ended with a crash).
                if fork.fork == ForkNumber::Main {
                    self.drop_relation(lsn, fork.rel, sizes);
                } else {
                    self.resets.push((lsn, Dropped::Fork(fork)));
                }
                self.set_size(lsn, fork, 0, sizes);
            }
            MetaChange::RelationTruncated { fork, blocks } => {
                self.resets.push((
                    lsn,
                    Dropped::Tail {
                        fork,
                        from_block: blocks,
                    },
                ));
                if self.size(fork, sizes, known)?.is_some_and(|size| size > blocks) {
                    self.set_size(lsn, fork, blocks, sizes);
                }
            }
            MetaChange::RelationDropped { rel } => self.drop_relation(lsn, rel, sizes),
            MetaChange::DatabaseCreated { database } => {
                self.resets.push((lsn, Dropped::Database(database)));
                sizes.drop_database(database);
                let version_file = Bytes::from(format!("{}\n", known.pg_major()));
                self.put(lsn, MetaKey::Database(database), Some(version_file));
                self.put(lsn, MetaKey::RelationMap(database), None);
            }
            MetaChange::DatabaseCopied { .. } => {
                unreachable!("a copy of a database is carried out by itself, between two runs of records")
            }
            MetaChange::DatabaseDropped { database } => {
                self.resets.push((lsn, Dropped::Database(database)));
                sizes.drop_database(database);
                self.put(lsn, MetaKey::Database(database), None);
                self.put(lsn, MetaKey::RelationMap(database), None);
            }
            MetaChange::TablespaceCreated { spc, location } => {
                self.put(lsn, MetaKey::Tablespace(spc), Some(own(&location)));
            }
            MetaChange::TablespaceDropped { spc } => self.put(lsn, MetaKey::Tablespace(spc), None),
            MetaChange::RelationMapUpdated { database, map } => {
                self.put(lsn, MetaKey::RelationMap(database), Some(own(&map)));
            }
            MetaChange::TransactionPrepared {
                xid,
                start,
                end,
                state,
            } => {
                let value = PreparedValue { start, end, state }.to_bytes();
                self.put(lsn, MetaKey::Prepared(xid), Some(value));
            }
            MetaChange::PreparedTransactionFinished { xid } => {
                self.put(lsn, MetaKey::Prepared(xid), None);
            }
            MetaChange::SlruTruncated(truncation) => {
                self.resets.push((lsn, Dropped::Slru(truncation)));
            }
            MetaChange::ReplicationOriginAdvanced {
                origin,
                remote_lsn,
                local_lsn,
                backwards,
            } => self.advance_origin(
                lsn,
                u32::from(origin),
                OriginValue {
                    remote_lsn,
                    local_lsn,
                },
                backwards,
                known,
            )?,
            MetaChange::ReplicationOriginDropped { origin } => {
                self.put(lsn, MetaKey::Origin(u32::from(origin)), None);
            }
        }
        Ok(())
    }

    /// `replorigin_advance` (origin.c, 15.18): neither position falls, unless it is told to.
    fn advance_origin(
        &mut self,
        lsn: Lsn,
        origin: u32,
        to: OriginValue,
        backwards: bool,
        known: &dyn Known,
    ) -> Result<(), DerivedError> {
        let key = MetaKey::Origin(origin);
        let made = self.metas.iter().rev().find(|(_, made, _)| *made == key);
        let present = match made {
            Some((_, _, value)) => value.clone(),
            None => known.meta(&key)?,
        };
        let present = present.as_ref().and_then(OriginValue::from_bytes);
        let next = match present {
            Some(present) => OriginValue {
                remote_lsn: if backwards || present.remote_lsn < to.remote_lsn {
                    to.remote_lsn
                } else {
                    present.remote_lsn
                },
                local_lsn: if to.local_lsn.is_valid() && (backwards || present.local_lsn < to.local_lsn) {
                    to.local_lsn
                } else {
                    present.local_lsn
                },
            },
            None => to,
        };
        self.put(lsn, key, Some(next.to_bytes()));
        Ok(())
    }
}

fn size_of(value: &Bytes) -> Option<u32> {
    Some(u32::from_le_bytes(value[..].try_into().ok()?))
}

/// A copy that does not hold on to the buffer that the record came in.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The value of a [`MetaKey::Prepared`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreparedValue {
    pub start: Lsn,
    pub end: Lsn,
    pub state: Bytes,
}

impl PreparedValue {
    pub fn to_bytes(&self) -> Bytes {
        [
            &self.start.0.to_le_bytes()[..],
            &self.end.0.to_le_bytes(),
            &self.state,
        ]
        .concat()
        .into()
    }

    pub fn from_bytes(bytes: &Bytes) -> Option<PreparedValue> {
        Some(PreparedValue {
            start: Lsn(u64::from_le_bytes(*bytes.first_chunk()?)),
            end: Lsn(u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?)),
            state: bytes.slice(16..),
        })
    }
}

/// The value of a [`MetaKey::Origin`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OriginValue {
    pub remote_lsn: Lsn,
    pub local_lsn: Lsn,
}

impl OriginValue {
    pub fn to_bytes(self) -> Bytes {
        [self.remote_lsn.0.to_le_bytes(), self.local_lsn.0.to_le_bytes()]
            .concat()
            .into()
    }

    pub fn from_bytes(bytes: &Bytes) -> Option<OriginValue> {
        Some(OriginValue {
            remote_lsn: Lsn(u64::from_le_bytes(*bytes.first_chunk()?)),
            local_lsn: Lsn(u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let bytes = Bytes::from(bytes);
            prop_assert_eq!(size_of(&bytes).is_some(), bytes.len() == 4);
            prop_assert_eq!(OriginValue::from_bytes(&bytes).is_some(), bytes.len() >= 16);
            match PreparedValue::from_bytes(&bytes) {
                Some(prepared) => prop_assert_eq!(prepared.to_bytes(), bytes),
                None => prop_assert!(bytes.len() < 16),
            }
        }
    }
}
