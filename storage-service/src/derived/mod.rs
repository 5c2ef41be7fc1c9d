//! Derived state: what the log means. Pages, sizes and everything else that a compute needs, as of an LSN.
//!
//! ```text
//!  log --ingest--> index + overlay (memory) --coalesce--> page store (disk)
//!                          \____________ reads ____________/
//! ```
//! Promises: an answer is of exactly the LSN that was asked for, or an error; the store never holds the
//! effect of a record above min(VDL, SCL), so that no cut undoes it. It knows nothing of epochs, peers and
//! requests: the services check who may ask.

mod background;
mod base;
mod build_page;
mod cleanup;
mod coalesce;
mod compute_image;
mod content;
mod copy_database;
mod engine;
mod error;
mod import;
mod index;
mod ingest;
mod marks;
mod meta_key;
mod overlay;
mod read_pages;
mod read_point;
mod record_changes;
mod record_log;
mod redo_threads;
mod resets;
mod settings;
mod slru_range;
mod state;
pub mod store;
mod stored_page;
mod unbuildable;
mod unchanged;
mod wal_bytes;

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pg_quorum_types::{Base, ClusterFacts, Lsn, PageKey, RelFork};
use pg_quorum_wal::Page;
use tokio::sync::watch;

pub use base::ImportedBase;
pub use compute_image::ImagePart;
pub use content::ContentItem;
pub use error::DerivedError;
pub use read_pages::ReadPage;
pub use record_log::{LogPosition, LogRecords, LogView, RecordLog};
pub use redo_threads::RedoThreads;
pub use settings::DerivedSettings;
pub use stored_page::{page_checksum, set_page_checksum};
pub use unbuildable::UnbuildablePage;
pub use unchanged::BLOCKS as UNCHANGED_BLOCKS;

use engine::{Engine, Indexed, Work};
use import::Import;
use read_point::ReadPoint;

/// What there is to say about the derived state, for people.
#[derive(Clone, Debug, Default)]
pub struct DerivedStats {
    pub indexed: Lsn,
    pub applied: Lsn,
    /// Reads below it are refused.
    pub floor: Lsn,
    pub store_bytes: u64,
    /// Memory of index and overlay.
    pub memory_bytes: u64,
    pub indexed_pages: u64,
    pub pages_served: u64,
    pub pages_failed: u64,
    /// Pages that cannot be built here now; the reason of one of them.
    pub pages_unbuildable: u64,
    pub unbuildable_because: String,
    /// Pages that a peer's copy has replaced.
    pub pages_mended: u64,
    pub records_indexed: u64,
    pub wal_bytes_indexed: u64,
    pub images_written: u64,
    pub rounds: u64,
    /// How often indexing had to wait for memory.
    pub index_full_waits: u64,
    /// Why indexing or coalescing stands still; empty if it does not.
    pub failure: String,
}

/// The derived state of one segment. See the module.
pub struct Derived {
    root: PathBuf,
    settings: DerivedSettings,
    log: Arc<dyn RecordLog>,
    view: watch::Receiver<LogView>,
    indexed: Indexed,
    running: RwLock<Option<Running>>,
    /// The store of the complete base could not be opened again.
    is_waiting_for_store: AtomicBool,
    import: Mutex<Option<Import>>,
}

/// An engine and its threads.
struct Running {
    engine: Arc<Engine>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(engine: Engine) -> Result<Running, DerivedError> {
        let engine = Arc::new(engine);
        let mut running = Running {
            engine,
            threads: Vec::new(),
        };
        running.spawn(Work::Indexing, ingest::run)?;
        running.spawn(Work::Coalescing, coalesce::run)?;
        Ok(running)
    }

    /// A panic ends the thread, not the node, which goes on keeping the log: the node says so.
    fn spawn(&mut self, work: Work, body: fn(&Arc<Engine>)) -> Result<(), DerivedError> {
        let engine = Arc::clone(&self.engine);
        let thread = background::spawn(work.to_string(), move || {
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| body(&engine)));
            if outcome.is_err() {
                engine.set_failure(work, &DerivedError::Panicked);
            }
        })
        .map_err(|error| DerivedError::Store(format!("starting a thread: {error}")))?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.request_stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the derived state ended with a panic");
            }
        }
    }
}

impl Derived {
    /// Opens the directory. Without a complete base in it nothing can be read until an import is finished.
    ///
    /// # Errors
    /// The directory cannot be used or is damaged.
    pub fn open(
        root: &Path,
        settings: DerivedSettings,
        log: Arc<dyn RecordLog>,
        view: watch::Receiver<LogView>,
    ) -> Result<Derived, DerivedError> {
        fs::create_dir_all(root)
            .map_err(|error| DerivedError::Store(format!("making {}: {error}", root.display())))?;
        let derived = Derived {
            root: root.to_owned(),
            settings,
            log,
            view,
            indexed: Indexed::default(),
            running: RwLock::new(None),
            is_waiting_for_store: AtomicBool::new(false),
            import: Mutex::new(None),
        };
        if let Some(directory) = import::current_store(root)? {
            derived.start(&directory)?;
        }
        Ok(derived)
    }

    fn start(&self, directory: &Path) -> Result<(), DerivedError> {
        // Its threads end before others begin. The lock is not held meanwhile, nor while the store is opened, which takes
        // seconds with a large one: tasks of the network ask for the engine, and must hear that there is none.
        self.is_waiting_for_store.store(true, Ordering::Release);
        let before = self.running.write().take();
        drop(before);
        let engine = Engine::open(
            directory,
            self.settings.clone(),
            Arc::clone(&self.log),
            self.view.clone(),
            self.indexed.clone(),
        )?;
        let running = Running::start(engine)?;
        *self.running.write() = Some(running);
        self.is_waiting_for_store.store(false, Ordering::Release);
        Ok(())
    }

    fn engine(&self) -> Result<Arc<Engine>, DerivedError> {
        let running = self.running.read();
        let running = running.as_ref().ok_or(DerivedError::NoBase)?;
        Ok(Arc::clone(&running.engine))
    }

    /// The complete base, if there is one.
    pub fn base(&self) -> Option<ImportedBase> {
        self.engine().ok().map(|engine| engine.base)
    }

    /// Begins an import; an unfinished one is thrown away. A complete base stays until this one is finished.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn begin_import(&self, base: Base, facts: ClusterFacts) -> Result<(), DerivedError> {
        let base = ImportedBase { base, facts };
        let mut import = self.import.lock();
        *import = None;
        *import = Some(Import::begin(&self.root, base, &self.settings)?);
        Ok(())
    }

    /// Takes items of `base` in, in any order.
    ///
    /// # Errors
    /// No import of it was begun, an item is malformed, or the disk fails: the import is void.
    pub fn import_items(&self, base: Base, items: Vec<ContentItem>) -> Result<(), DerivedError> {
        let mut import = self.import.lock();
        let begun = import.as_mut().filter(|import| import.base().base == base);
        let begun = begun.ok_or_else(not_begun)?;
        let added = begun.add(items);
        if added.is_err() {
            *import = None;
        }
        added
    }

    /// Syncs the import and makes it the base. Reads begin at its LSN.
    ///
    /// # Errors
    /// As for [`Derived::import_items`], or something is missing.
    pub fn finish_import(&self, base: Base) -> Result<ImportedBase, DerivedError> {
        // Held to the end: another import begins by removing what is not complete.
        let mut held = self.import.lock();
        let import = held.take_if(|import| import.base().base == base);
        let import = import.ok_or_else(not_begun)?;
        let base = *import.base();
        let directory = import.finish()?;
        self.start(&directory)?;
        Ok(base)
    }

    /// Goes back to `to`, which is at or above every VDL that was ever told: records above it do not count any
    /// more. Returns when no read can see them.
    pub fn cut(&self, to: Lsn) {
        if let Ok(engine) = self.engine() {
            engine.cut(to);
        }
    }

    /// Follows the last position up to which pages can be read.
    pub fn indexed(&self) -> watch::Receiver<Lsn> {
        self.indexed.all.subscribe()
    }

    /// Follows the position up to which the log was indexed while there was memory for more: what stands behind it is
    /// indexed without waiting for anything, if it is not too much.
    pub fn indexed_with_room(&self) -> watch::Receiver<Lsn> {
        self.indexed.with_room.subscribe()
    }

    /// Waits until `lsn` is indexed, for a bounded time. Returns what is indexed then.
    pub async fn wait_indexed(&self, lsn: Lsn, timeout: Duration) -> Lsn {
        if *self.indexed.all.borrow() < lsn
            && let Ok(engine) = self.engine()
        {
            engine.want_indexed(lsn);
        }
        let mut indexed = self.indexed();
        let reached = indexed.wait_for(|indexed| *indexed >= lsn);
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(indexed)) => *indexed,
            _ => *self.indexed.all.borrow(),
        }
    }

    /// How long a read may wait for records that are on their way.
    pub fn read_wait(&self) -> Duration {
        self.settings.read_wait
    }

    pub fn indexed_lsn(&self) -> Lsn {
        *self.indexed.all.borrow()
    }

    /// End of the last record whose effects are on disk.
    pub fn applied_lsn(&self) -> Lsn {
        self.engine()
            .map_or(Lsn::INVALID, |engine| engine.state.read().applied)
    }

    /// No record that ends at or below this is needed for the derived state or for rebuilding WAL.
    pub fn log_floor(&self) -> Lsn {
        self.engine().map_or(Lsn::INVALID, |engine| engine.log_floor())
    }

    /// A page as of `at`, which must be indexed. Blocks on the disk.
    ///
    /// # Errors
    /// `at` is not kept or not indexed; the disk fails.
    pub fn page(&self, key: PageKey, at: Lsn) -> Result<ReadPage, DerivedError> {
        read_pages::page(self.engine()?.as_ref(), key, at)
    }

    /// Pages as of `at`, in the order of `keys`. Blocks on the disk.
    ///
    /// # Errors
    /// As for [`Derived::page`].
    pub fn pages(&self, keys: &[PageKey], at: Lsn) -> Result<Vec<ReadPage>, DerivedError> {
        read_pages::pages(self.engine()?.as_ref(), keys, at)
    }

    /// The blocks from `first_block` on, at most [`UNCHANGED_BLOCKS`], that no record has changed that ends above `since`:
    /// a bit for each. Of a log that is indexed up to `at` or further. Blocks on the disk.
    ///
    /// # Errors
    /// `at` is not indexed; the disk fails.
    pub fn unchanged(
        &self,
        fork: RelFork,
        first_block: u32,
        since: Lsn,
        at: Lsn,
    ) -> Result<u128, DerivedError> {
        unchanged::unchanged(self.engine()?.as_ref(), fork, first_block, since, at)
    }

    /// Pages that cannot be built here, `limit` of them at most.
    pub fn unbuildable_pages(&self, limit: usize) -> Vec<UnbuildablePage> {
        self.engine()
            .map_or_else(|_| Vec::new(), |engine| engine.unbuildable.first(limit).0)
    }

    /// Takes a peer's copy of a page, as of `at`, in the place of one that cannot be built here. Returns whether that
    /// was so. Blocks on the disk.
    ///
    /// # Errors
    /// `at` is not durable, not indexed or not kept; the disk fails.
    pub fn take_copy(&self, key: PageKey, copy: &Page, at: Lsn) -> Result<bool, DerivedError> {
        unbuildable::take_copy(self.engine()?.as_ref(), key, copy, at)
    }

    /// Blocks of a fork as of `at`, `None` if it does not exist. Blocks on the disk.
    ///
    /// # Errors
    /// As for [`Derived::page`].
    pub fn relation_size(&self, fork: RelFork, at: Lsn) -> Result<Option<u32>, DerivedError> {
        read_pages::size(self.engine()?.as_ref(), fork, at)
    }

    /// Hands `give` all that a compute needs as of `at` besides pages of relations, part by part, until it
    /// returns false. Blocks on the disk.
    ///
    /// # Errors
    /// As for [`Derived::page`].
    pub fn compute_image(
        &self,
        at: Lsn,
        control_file_only: bool,
        give: &mut dyn FnMut(ImagePart) -> bool,
    ) -> Result<(), DerivedError> {
        let read_point = ReadPoint::new(&self.engine()?, at)?;
        compute_image::stream(&read_point, control_file_only, give)
    }

    /// Keeps what can be read at `at` until the result is dropped.
    ///
    /// # Errors
    /// `at` is below what is kept or above what is indexed.
    pub fn hold(&self, at: Lsn) -> Result<ReadPoint, DerivedError> {
        ReadPoint::new(&self.engine()?, at)
    }

    /// Hands `give` the WAL bytes `[start, end)`, piece by piece, until it returns false. Blocks on the disk.
    ///
    /// # Errors
    /// `start` is not kept or `end` not indexed; the disk fails.
    pub fn read_wal(
        &self,
        start: Lsn,
        end: Lsn,
        give: &mut dyn FnMut(Lsn, Vec<u8>) -> bool,
    ) -> Result<(), DerivedError> {
        let engine = self.engine()?;
        let mut reader = wal_bytes::WalReader::new(&engine, start, end)?;
        while let Some((lsn, wal)) = reader.next_piece()? {
            if !give(lsn, wal) {
                break;
            }
        }
        Ok(())
    }

    /// For people and for Status.
    pub fn stats(&self) -> DerivedStats {
        let Ok(engine) = self.engine() else {
            return DerivedStats::default();
        };
        let counters = &engine.counters;
        let mut stats = DerivedStats {
            store_bytes: engine.store.disk_bytes(),
            pages_served: counters.pages_served.load(Ordering::Relaxed),
            pages_failed: counters.pages_failed.load(Ordering::Relaxed),
            pages_mended: counters.pages_mended.load(Ordering::Relaxed),
            records_indexed: counters.records_indexed.load(Ordering::Relaxed),
            wal_bytes_indexed: counters.wal_bytes_indexed.load(Ordering::Relaxed),
            images_written: counters.images_written.load(Ordering::Relaxed),
            rounds: counters.rounds.load(Ordering::Relaxed),
            index_full_waits: counters.index_full_waits.load(Ordering::Relaxed),
            failure: engine.failure(),
            ..DerivedStats::default()
        };
        let (first, count) = engine.unbuildable.first(1);
        stats.pages_unbuildable = count as u64;
        stats.unbuildable_because = first.into_iter().next().map_or_else(String::new, |page| page.why);
        let state = engine.state.read();
        stats.indexed = state.indexed;
        stats.applied = state.applied;
        stats.floor = state.applied;
        stats.memory_bytes = state.bytes() as u64;
        stats.indexed_pages = state.index.len() as u64;
        stats
    }

    /// Asks for everything up to min(VDL, SCL) to be turned into pages soon, and returns at once.
    pub fn request_coalescing(&self) {
        if let Ok(engine) = self.engine() {
            let through = engine.persistable(&engine.state.read());
            engine.want_applied(through);
        }
    }

    /// After the store has failed (its disk was full, say): opens it again, if that can be done now. Called now
    /// and then.
    pub fn try_store_again(&self) {
        // First of all: under this lock nobody else is opening it.
        let import = self.import.lock();
        let has_failed = |running: &Running| running.engine.has_store_failed.load(Ordering::Acquire);
        let is_due = match self.running.read().as_ref() {
            Some(running) => has_failed(running),
            None => self.is_waiting_for_store.load(Ordering::Acquire),
        };
        if !is_due || import.is_some() {
            return;
        }
        match import::current_store(&self.root)
            .and_then(|directory| directory.map_or(Ok(()), |it| self.start(&it)))
        {
            Ok(()) => tracing::info!("the page store was opened again"),
            Err(error) => tracing::warn!(%error, "the page store cannot be opened again yet"),
        }
    }

    /// Ends the background work and closes the store. Reads fail from here on.
    pub fn shut_down(&self) {
        *self.import.lock() = None;
        let running = self.running.write().take();
        drop(running);
    }
}

fn not_begun() -> DerivedError {
    DerivedError::Import("no import was begun, or it failed".to_owned())
}
