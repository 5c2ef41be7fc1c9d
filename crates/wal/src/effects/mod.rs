//! What a record changes: pages, and everything that is not a page.
//!
//! A node indexes pages and versions the rest by what stands here; the redo modules then say *how* a page
//! changes. Every record is known: there is no "other" that is skipped.

mod blocks;
mod directories;
mod free_space;
mod meta;
mod origin;
mod settings;
mod slru;
mod storage;
mod transaction;
mod visibility;

use pg_quorum_types::PageKey;
use smallvec::SmallVec;

use crate::{Record, Rmgr, WalError};

pub use meta::MetaChange;

/// What redo must know beside the record: settings that the log itself carries.
///
/// As of the place before the record. [`crate::CheckpointState`] tracks them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RedoContext {
    /// `XLogHintBitIsNeeded()`: data checksums or `wal_log_hints`.
    pub hint_bits_logged: bool,
    /// Commit timestamps are recorded.
    pub track_commit_timestamp: bool,
}

/// One page that a record changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageEffect {
    pub key: PageKey,
    /// The record alone determines the page: what was there before does not matter.
    pub full: bool,
    /// The fork has at least this block after the record. False where redo changes a page only if it
    /// exists already (the tail of a truncated visibility map).
    pub extends: bool,
}

/// All that a record changes.
///
/// Order: apply `meta` first, then `pages`. A truncation leaves the tail of the visibility map behind it,
/// a dropped relation has no pages in the same record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Effects {
    /// Each page at most once.
    pub pages: SmallVec<[PageEffect; 2]>,
    pub meta: Vec<MetaChange>,
}

impl Effects {
    /// A page that exists afterwards, one of a few: it counts once, however often it is added.
    fn add_page(&mut self, key: PageKey, full: bool) {
        if !self.pages.iter().any(|effect| effect.key == key) {
            self.push_page(key, full);
        }
    }

    /// A page that exists afterwards and has not been added. A record can have a great many.
    fn push_page(&mut self, key: PageKey, full: bool) {
        self.pages.push(PageEffect {
            key,
            full,
            extends: true,
        });
    }
}

/// What `record` changes.
///
/// # Errors
/// A record that contradicts the format of its kind.
pub fn effects(record: &Record<'_>, ctx: &RedoContext) -> Result<Effects, WalError> {
    let mut effects = Effects::default();
    effects.read(record, ctx)?;
    Ok(effects)
}

impl Effects {
    /// [`effects`] in place, whatever was there.
    ///
    /// # Errors
    /// As for [`effects`]; what is there then means nothing.
    #[inline]
    pub fn read(&mut self, record: &Record<'_>, ctx: &RedoContext) -> Result<(), WalError> {
        self.pages.clear();
        self.meta.clear();
        add(record, ctx, self)
    }

    /// [`Effects::read`] of a record that changes pages and does nothing else, whatever the context: no metadata, and
    /// of what [`crate::CheckpointState`] tracks only the next transaction advances past the record's. False if it
    /// may do more.
    ///
    /// # Errors
    /// As for [`effects`].
    pub fn read_pages_only(&mut self, record: &Record<'_>) -> Result<bool, WalError> {
        let is_of_pages = matches!(
            record.rmgr,
            Rmgr::Heap2
                | Rmgr::Heap
                | Rmgr::Btree
                | Rmgr::Hash
                | Rmgr::Gin
                | Rmgr::Gist
                | Rmgr::Sequence
                | Rmgr::SpGist
                | Rmgr::Brin
                | Rmgr::Generic
        );
        if is_of_pages {
            self.read(record, &RedoContext::default())?;
        }
        Ok(is_of_pages)
    }
}

fn add(record: &Record<'_>, ctx: &RedoContext, effects: &mut Effects) -> Result<(), WalError> {
    blocks::add_referenced_blocks(record, effects)?;
    match record.rmgr {
        // The pages that they name, and maps of what is visible.
        Rmgr::Heap2 | Rmgr::Heap => visibility::add(record, effects)?,
        // Only the pages that they name.
        Rmgr::Btree
        | Rmgr::Hash
        | Rmgr::Gin
        | Rmgr::Gist
        | Rmgr::Sequence
        | Rmgr::SpGist
        | Rmgr::Brin
        | Rmgr::Generic => {}
        Rmgr::Xlog => settings::add(record, ctx, effects)?,
        Rmgr::Transaction => transaction::add(record, ctx, effects)?,
        Rmgr::Storage => storage::add(record, effects)?,
        Rmgr::Clog => slru::add_clog(record, effects)?,
        Rmgr::CommitTs => slru::add_commit_ts(record, effects)?,
        Rmgr::MultiXact => slru::add_multixact(record, effects)?,
        Rmgr::Database => directories::add_database(record, effects)?,
        Rmgr::Tablespace => directories::add_tablespace(record, effects)?,
        Rmgr::RelMap => directories::add_relation_map(record, effects)?,
        Rmgr::ReplicationOrigin => origin::add(record, effects)?,
        // For standbys and decoding only.
        Rmgr::Standby | Rmgr::LogicalMessage => {}
    }
    Ok(())
}

/// For a kind that the caller's `match` does not list: [`Record::decode`] has refused it before.
fn unknown(record: &Record<'_>) -> WalError {
    WalError::UnknownRecord {
        lsn: record.start,
        rmgr: record.rmgr,
        info: record.info,
    }
}
