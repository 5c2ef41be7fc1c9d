//! The store on fjall: an LSM tree whose large values stand in files of their own, so that compaction
//! moves keys and not page images.
//!
//! The engine's journal is needed for what was not flushed only, and nobody depends on that. So a journal that a
//! power failure has damaged, which the engine does not open, is thrown away.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fjall::{
    Database, Guard, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable, Snapshot,
};
use pg_quorum_types::Lsn;

use super::{Batch, PageStore, Space, StoreError, StoreView, Version, VersionKey};

/// Limits of one store. Six stores may share a process.
#[derive(Clone, Debug)]
pub struct FjallSettings {
    /// Blocks and values that are kept in memory.
    pub cache_bytes: u64,
    /// Page images that are gathered before they are written out; a few times as much is in memory.
    pub pages_memtable_bytes: u64,
    /// The same for metadata.
    pub meta_memtable_bytes: u64,
    /// The engine's own journal on disk; 64 MiB is the least that it takes.
    pub journal_bytes: u64,
    /// Open files.
    pub open_files: usize,
    /// Size of the files that hold page images.
    pub value_file_bytes: u64,
    /// The part of such a file that may be garbage before it is rewritten.
    pub garbage_share: f32,
}

impl Default for FjallSettings {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            pages_memtable_bytes: 16 << 20,
            meta_memtable_bytes: 4 << 20,
            journal_bytes: 96 << 20,
            open_files: 128,
            value_file_bytes: 64 << 20,
            garbage_share: 0.33,
        }
    }
}

/// Threads of the engine that write memtables out and compact. With more than one the first of them spins while
/// another compacts (fjall 3.1.13, `worker_pool.rs`); memtables that one thread does not get to are bounded all the
/// same, since the store rotates them itself and the engine holds up writers at four.
const THREADS: usize = 1;
/// How often a flush looks whether it is done.
const FLUSH_POLL: Duration = Duration::from_millis(2);

/// Values below this stay in the tree: markers and small metadata.
const SEPARATION_THRESHOLD_BYTES: u32 = 1024;

/// See the module.
pub struct FjallStore {
    database: Database,
    pages: Keyspace,
    meta: Keyspace,
    /// Bytes of page images since their memtable was rotated.
    pages_bytes: AtomicUsize,
    pages_memtable_bytes: usize,
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        StoreError(error.to_string())
    }
}

impl FjallStore {
    /// Opens the store in `directory`, or makes one there.
    ///
    /// # Errors
    /// The directory cannot be used or holds something else.
    pub fn open(directory: &Path, settings: &FjallSettings) -> Result<FjallStore, StoreError> {
        let open = || {
            Database::builder(directory)
                .cache_size(settings.cache_bytes)
                .max_journaling_size(settings.journal_bytes)
                .max_cached_files(Some(settings.open_files))
                .worker_threads(THREADS)
                .open()
        };
        let database = match open() {
            Err(fjall::Error::JournalRecovery(error)) => {
                tracing::warn!(?error, directory = %directory.display(), "the journal is damaged: going on from what was flushed");
                remove_journals(directory).map_err(|error| StoreError(error.to_string()))?;
                open()?
            }
            other => other?,
        };
        let separation = KvSeparationOptions::default()
            .separation_threshold(SEPARATION_THRESHOLD_BYTES)
            .file_target_size(settings.value_file_bytes)
            .staleness_threshold(settings.garbage_share);
        let pages = database.keyspace("pages", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(settings.pages_memtable_bytes)
                .with_kv_separation(Some(separation))
        })?;
        let meta = database.keyspace("meta", || {
            KeyspaceCreateOptions::default().max_memtable_size(settings.meta_memtable_bytes)
        })?;
        Ok(FjallStore {
            database,
            pages,
            meta,
            pages_bytes: AtomicUsize::new(0),
            pages_memtable_bytes: usize::try_from(settings.pages_memtable_bytes).unwrap_or(usize::MAX),
        })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Pages => &self.pages,
            Space::Meta => &self.meta,
        }
    }

    /// Has a memtable written out that has become large.
    fn rotate_when_large(&self, more: usize) -> Result<(), StoreError> {
        let bytes = self.pages_bytes.fetch_add(more, Ordering::Relaxed) + more;
        if bytes >= self.pages_memtable_bytes {
            self.pages_bytes.store(0, Ordering::Relaxed);
            self.pages.rotate_memtable()?;
        }
        Ok(())
    }
}

/// Removes the engine's journal: what was flushed does not need it.
fn remove_journals(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "jnl") {
            fs::remove_file(path)?;
        }
    }
    fs::File::open(directory)?.sync_all()
}

impl PageStore for FjallStore {
    fn view(&self) -> Box<dyn StoreView> {
        Box::new(FjallView {
            snapshot: self.database.snapshot(),
            pages: self.pages.clone(),
            meta: self.meta.clone(),
        })
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if !batch.is_empty() {
            let pages = batch.changes.iter().filter(|(space, ..)| *space == Space::Pages);
            let pages = pages
                .map(|(_, key, value)| key.len() + value.as_ref().map_or(0, Bytes::len))
                .sum();
            let mut changes = self.database.batch();
            for (space, key, value) in batch.changes {
                match value {
                    Some(value) => changes.insert(self.keyspace(space), key, value),
                    None => changes.remove(self.keyspace(space), key),
                }
            }
            changes.commit()?;
            self.rotate_when_large(pages)?;
        }
        Ok(())
    }

    fn flush(&self, space: Space) -> Result<(), StoreError> {
        let keyspace = self.keyspace(space);
        keyspace.rotate_memtable()?;
        while keyspace.sealed_memtable_count() > 0 {
            // An engine that has failed says so here; its threads have ended, and nothing is written out any more.
            self.database.persist(PersistMode::Buffer)?;
            std::thread::sleep(FLUSH_POLL);
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        // Without the journal's size (a failure to look at it) the rest is still worth telling.
        self.database
            .disk_space()
            .unwrap_or_else(|_| self.pages.disk_space() + self.meta.disk_space())
    }
}

struct FjallView {
    snapshot: Snapshot,
    pages: Keyspace,
    meta: Keyspace,
}

impl FjallView {
    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Pages => &self.pages,
            Space::Meta => &self.meta,
        }
    }
}

fn version(guard: Guard) -> Result<Version, StoreError> {
    let (key, value) = guard.into_inner()?;
    Ok((VersionKey::parse(&key)?, Bytes::from(value)))
}

impl StoreView for FjallView {
    fn newest(&self, space: Space, key: &[u8], at: Lsn) -> Result<Option<(Lsn, Bytes)>, StoreError> {
        let bounds = VersionKey::stored(key, Lsn::INVALID)..=VersionKey::stored(key, at);
        let Some(guard) = self.snapshot.range(self.keyspace(space), bounds).next_back() else {
            return Ok(None);
        };
        let (version, value) = version(guard)?;
        Ok(Some((version.lsn, value)))
    }

    fn versions(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Box<dyn Iterator<Item = Result<VersionKey, StoreError>> + '_> {
        let range = self
            .snapshot
            .range(self.keyspace(space), from.to_vec()..to.to_vec());
        Box::new(range.map(|guard| VersionKey::parse(&guard.key()?)))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Box<dyn Iterator<Item = Result<Version, StoreError>> + '_> {
        let range = self
            .snapshot
            .range(self.keyspace(space), from.to_vec()..to.to_vec());
        Box::new(range.map(version))
    }
}
