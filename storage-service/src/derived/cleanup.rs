//! Deletes what nobody can ask for any more. Being stopped in between does no harm: what is left is found
//! again by the reset that hides it, or when its page changes next.

use pg_quorum_types::{DatabaseKey, ForkNumber, Lsn, PageKey, RelFileNode, RelFork, SlruKind};
use pg_quorum_wal::SlruTruncation;

use super::engine::Engine;
use super::error::DerivedError;
use super::meta_key::{MetaKey, MetaRange, after_prefix};
use super::resets::{Dropped, ResetId};
use super::store::{Batch, Space, StoreView, VersionKey};

/// Deletions in one commit.
const DELETIONS_PER_BATCH: usize = 1000;

/// Gathers deletions and commits them by the batch.
struct Deletions<'a> {
    engine: &'a Engine,
    batch: Batch,
    number: usize,
}

impl<'a> Deletions<'a> {
    fn new(engine: &'a Engine) -> Deletions<'a> {
        Deletions {
            engine,
            batch: Batch::default(),
            number: 0,
        }
    }

    /// Says whether a batch was committed.
    fn delete(&mut self, space: Space, version: &VersionKey) -> Result<bool, DerivedError> {
        self.batch.delete(space, version);
        self.number += 1;
        if self.number < DELETIONS_PER_BATCH {
            return Ok(false);
        }
        self.flush()?;
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), DerivedError> {
        self.number = 0;
        self.engine.store.commit(std::mem::take(&mut self.batch))?;
        Ok(())
    }
}

/// Deletes page images that newer persisted ones replace.
///
/// # Errors
/// The store fails.
pub fn delete_superseded(engine: &Engine, superseded: Vec<VersionKey>) -> Result<(), DerivedError> {
    let mut deletions = Deletions::new(engine);
    for version in &superseded {
        deletions.delete(Space::Pages, version)?;
    }
    deletions.flush()
}

/// Deletes older versions of the metadata that was `written`, and versions that say that something does not
/// exist.
///
/// # Errors
/// The store fails.
pub fn delete_old_metadata(
    engine: &Engine,
    written: &[VersionKey],
    applied: Lsn,
) -> Result<(), DerivedError> {
    let view = engine.store.view();
    let mut deletions = Deletions::new(engine);
    for newest in written {
        let all = MetaRange::of_key(&newest.key);
        for version in view.scan(Space::Meta, &all.from, &all.to) {
            let (version, value) = version?;
            let is_absence = value[..] == [0] && version.lsn <= applied;
            if version.lsn < newest.lsn || is_absence {
                deletions.delete(Space::Meta, &version)?;
            }
        }
    }
    deletions.flush()
}

/// Deletes what persisted resets hide, then the resets. A large one is left for later when there is something more
/// urgent to do.
///
/// # Errors
/// The store fails.
pub fn delete_hidden(engine: &Engine, applied: Lsn) -> Result<(), DerivedError> {
    let resets = engine.state.read().resets.through(applied);
    if resets.is_empty() {
        return Ok(());
    }
    let view = engine.store.view();
    let mut deletions = Deletions::new(engine);
    let mut done: Vec<ResetId> = Vec::new();
    for (id, dropped) in &resets {
        if !delete_hidden_by(engine, &mut deletions, view.as_ref(), (*id, dropped))? {
            break;
        }
        done.push(*id);
    }
    deletions.flush()?;
    // Gone for good, before what hides them goes.
    engine.store.flush(Space::Pages)?;
    engine.store.flush(Space::Meta)?;
    engine.state.write().resets.forget(&done);
    for (lsn, number) in done {
        let key = MetaKey::Reset { lsn, number }.to_bytes();
        deletions.delete(Space::Meta, &VersionKey { key, lsn })?;
    }
    deletions.flush()
}

/// Deletes what one reset hides. False if it was left off half done, because memory is short or the node stops.
fn delete_hidden_by(
    engine: &Engine,
    deletions: &mut Deletions<'_>,
    view: &dyn StoreView,
    ((lsn, _), dropped): (ResetId, &Dropped),
) -> Result<bool, DerivedError> {
    let has_to_leave_off =
        || engine.is_stopping() || engine.state.read().bytes() > engine.settings.round_index_bytes();
    for (space, range) in hidden_ranges(dropped) {
        for version in view.versions(space, &range.from, &range.to) {
            let version = version?;
            if version.lsn < lsn && deletions.delete(space, &version)? && has_to_leave_off() {
                return Ok(false);
            }
        }
    }
    if let Dropped::Slru(truncation) = dropped {
        delete_slru(deletions, view, truncation, lsn)?;
    }
    Ok(true)
}

/// Stored keys that a reset hides versions of.
fn hidden_ranges(dropped: &Dropped) -> Vec<(Space, MetaRange)> {
    match dropped {
        Dropped::Tail { fork, from_block } => vec![(Space::Pages, fork_pages(*fork, *from_block))],
        Dropped::Fork(fork) => vec![
            (Space::Pages, fork_pages(*fork, 0)),
            (Space::Meta, MetaRange::of_key(&MetaKey::Size(*fork).to_bytes())),
        ],
        Dropped::Relation(rel) => vec![
            (Space::Pages, prefix(&first_page(*rel)[..13])),
            (Space::Meta, relation_sizes(*rel)),
        ],
        Dropped::Database(database) => vec![
            (Space::Pages, database_pages(*database)),
            (Space::Meta, MetaRange::sizes_of(*database)),
        ],
        Dropped::Slru(_) => Vec::new(),
    }
}

fn first_page(rel: RelFileNode) -> [u8; pg_quorum_types::PAGE_KEY_BYTES] {
    PageKey::relation(rel, ForkNumber::Main, 0).to_bytes()
}

fn prefix(prefix: &[u8]) -> MetaRange {
    MetaRange {
        from: prefix.to_vec(),
        to: after_prefix(prefix),
    }
}

/// Stored page keys of a fork from a block on.
pub fn fork_pages(fork: RelFork, from_block: u32) -> MetaRange {
    let from = PageKey::Relation {
        rel: fork,
        block: from_block,
    };
    let from = from.to_bytes();
    MetaRange {
        to: after_prefix(&from[..14]),
        from: from.to_vec(),
    }
}

fn database_pages(database: DatabaseKey) -> MetaRange {
    let first = first_page(RelFileNode {
        spc: database.spc,
        db: database.db,
        rel: 0,
    });
    prefix(&first[..9])
}

fn relation_sizes(rel: RelFileNode) -> MetaRange {
    let key = MetaKey::Size(RelFork {
        rel,
        fork: ForkNumber::Main,
    });
    let key = key.to_bytes();
    prefix(&key[..key.len() - 1])
}

/// Deletes the pages of an SLRU that were truncated away at `lsn`.
fn delete_slru(
    deletions: &mut Deletions<'_>,
    view: &dyn StoreView,
    truncation: &SlruTruncation,
    lsn: Lsn,
) -> Result<(), DerivedError> {
    let range = slru_pages(truncation.kind);
    for version in view.versions(Space::Pages, &range.from, &range.to) {
        let version = version?;
        if let Some(PageKey::Slru { page, .. }) = parse_page_key(&version.key)
            && truncation.removes(page)
            && version.lsn < lsn
        {
            deletions.delete(Space::Pages, &version)?;
        }
    }
    Ok(())
}

/// A stored page key without its version.
pub fn parse_page_key(key: &[u8]) -> Option<PageKey> {
    PageKey::from_bytes(key.try_into().ok()?)
}

fn slru_pages(kind: SlruKind) -> MetaRange {
    let first = PageKey::Slru { kind, page: 0 }.to_bytes();
    prefix(&first[..2])
}
