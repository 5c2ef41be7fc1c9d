//! One complete base and what follows it: the store, the state in memory, and the two background threads.
//!
//! ```text
//!  log --ingest--> index, overlay --coalesce--> store
//!                         \______ reads ______/
//! ```
//! Lock order: `state` before the store's views; nobody waits for the log or the disk while holding it,
//! but for looking up metadata.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use pg_quorum_types::{ClusterFacts, Lsn};
use tokio::sync::{Notify, watch};

use super::background;
use super::base::ImportedBase;
use super::error::DerivedError;
use super::marks::Mark;
use super::meta_key::{MetaKey, MetaRange, VolumeItem};
use super::record_log::{LogView, RecordLog};
use super::resets::{Dropped, Resets};
use super::settings::DerivedSettings;
use super::state::{State, decode};
use super::store::{PageStore, Space, StoreView};
use super::unbuildable::UnbuildablePages;

/// See the module.
pub struct Engine {
    pub base: ImportedBase,
    pub settings: DerivedSettings,
    pub store: Arc<dyn PageStore>,
    pub log: Arc<dyn RecordLog>,
    pub view: watch::Receiver<LogView>,
    pub state: RwLock<State>,
    pub indexed: Indexed,
    failures: Mutex<[String; 2]>,
    /// The store has failed and must be opened anew.
    pub has_store_failed: AtomicBool,
    pub counters: Counters,
    pub unbuildable: UnbuildablePages,
    /// Woken after each coalesced round.
    pub round_done: Condvar,
    pub round_lock: Mutex<()>,
    /// Wakes the coalescing thread.
    pub wanted: Condvar,
    /// Up to where somebody waits for everything to be persisted.
    pub wanted_through: Mutex<Lsn>,
    /// Up to where a reader waits for records to be indexed.
    pub wanted_indexed: Mutex<Lsn>,
    /// Wakes the indexing thread while it lets records gather.
    pub is_wanted: Condvar,
    pub stop: AtomicBool,
    /// Wakes the indexing thread, which otherwise waits for the segment to tell something.
    pub wake_ingest: Notify,
}

/// How far the index is, for those who wait. Outlives an engine.
#[derive(Clone, Debug)]
pub struct Indexed {
    /// Follows `State::indexed`.
    pub all: watch::Sender<Lsn>,
    /// The same while memory is not short, and where it became so: the log behind it finds room.
    pub with_room: watch::Sender<Lsn>,
}

impl Default for Indexed {
    fn default() -> Self {
        Indexed {
            all: watch::Sender::new(Lsn::INVALID),
            with_room: watch::Sender::new(Lsn::INVALID),
        }
    }
}

/// What the two background threads do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Indexing = 0,
    Coalescing = 1,
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Work::Indexing => "indexing",
            Work::Coalescing => "coalescing",
        })
    }
}

/// Counts since the start, for people.
#[derive(Default, Debug)]
pub struct Counters {
    pub pages_served: AtomicU64,
    pub pages_failed: AtomicU64,
    pub pages_mended: AtomicU64,
    pub records_indexed: AtomicU64,
    pub wal_bytes_indexed: AtomicU64,
    pub images_written: AtomicU64,
    pub rounds: AtomicU64,
    pub index_full_waits: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }
}

impl Engine {
    /// Opens a store that a finished import or an earlier run left.
    ///
    /// # Errors
    /// The directory cannot be read or is damaged.
    pub fn open(
        directory: &Path,
        settings: DerivedSettings,
        log: Arc<dyn RecordLog>,
        view: watch::Receiver<LogView>,
        indexed: Indexed,
    ) -> Result<Engine, DerivedError> {
        let store: Arc<dyn PageStore> = open_store(directory, &settings)?.into();
        let (base, state) = recover(store.view().as_ref())?;
        indexed.all.send_replace(state.indexed);
        indexed.with_room.send_replace(state.indexed);
        Ok(Engine {
            base,
            settings,
            store,
            log,
            view,
            state: RwLock::new(state),
            indexed,
            failures: Mutex::default(),
            has_store_failed: AtomicBool::new(false),
            counters: Counters::default(),
            unbuildable: UnbuildablePages::default(),
            round_done: Condvar::new(),
            round_lock: Mutex::new(()),
            wanted: Condvar::new(),
            wanted_through: Mutex::new(Lsn::INVALID),
            wanted_indexed: Mutex::new(Lsn::INVALID),
            is_wanted: Condvar::new(),
            stop: AtomicBool::new(false),
            wake_ingest: Notify::new(),
        })
    }

    pub fn facts(&self) -> &ClusterFacts {
        &self.base.facts
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Asks both threads to end.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake_ingest.notify_one();
        drop(self.wanted_through.lock());
        self.wanted.notify_all();
        drop(self.round_lock.lock());
        self.round_done.notify_all();
        drop(self.wanted_indexed.lock());
        self.is_wanted.notify_all();
    }

    /// A reader waits until `lsn` is indexed.
    pub fn want_indexed(&self, lsn: Lsn) {
        let mut wanted = self.wanted_indexed.lock();
        if *wanted < lsn {
            *wanted = lsn;
            self.is_wanted.notify_all();
            // Indexing may wait for a round to give memory back, and need not any more.
            self.round_done.notify_all();
        }
    }

    /// The index, or the memory that it takes, has changed.
    pub fn tell_indexed(&self, state: &State) {
        self.indexed.all.send_replace(state.indexed);
        let is_short = state.bytes() > self.settings.ample_index_bytes();
        self.indexed.with_room.send_modify(|with_room| {
            *with_room = if is_short {
                state.indexed.min(*with_room)
            } else {
                state.indexed
            };
        });
    }

    /// Notes why a thread cannot go on, once per reason.
    pub fn set_failure(&self, work: Work, reason: &DerivedError) {
        if matches!(reason, DerivedError::Store(_)) {
            self.has_store_failed.store(true, Ordering::Release);
        }
        self.tell(work, &reason.to_string());
    }

    /// The thread goes on.
    pub fn clear_failure(&self, work: Work) {
        self.tell(work, "");
    }

    fn tell(&self, work: Work, reason: &str) {
        let failure = &mut self.failures.lock()[work as usize];
        if *failure != reason {
            if reason.is_empty() {
                tracing::info!("{work} goes on");
            } else {
                tracing::error!(reason, "{work} stands still");
            }
            reason.clone_into(failure);
        }
    }

    /// Why indexing or coalescing stands still; empty if it does not.
    pub fn failure(&self) -> String {
        let failures = self.failures.lock();
        let reasons: Vec<&str> = failures
            .iter()
            .map(String::as_str)
            .filter(|reason| !reason.is_empty())
            .collect();
        reasons.join("; ")
    }

    /// Sleeps, but not past a stop.
    pub fn pause(&self, duration: Duration) {
        let mut wanted = self.wanted_through.lock();
        if !self.is_stopping() {
            self.wanted.wait_for(&mut wanted, duration);
        }
    }

    /// Sleeps until a round of coalescing ends, at most for `timeout`.
    pub fn wait_for_round(&self, timeout: Duration) {
        let mut lock = self.round_lock.lock();
        if !self.is_stopping() {
            self.round_done.wait_for(&mut lock, timeout);
        }
    }

    pub fn notify_round_done(&self) {
        drop(self.round_lock.lock());
        self.round_done.notify_all();
    }

    /// Up to here state may be persisted: no cut undoes it, and nobody reads below it any more.
    pub fn persistable(&self, state: &State) -> Lsn {
        let view = *self.view.borrow();
        let mut limit = view.vdl.min(view.scl);
        if view.pgmrpl.is_valid() {
            limit = limit.min(view.pgmrpl);
        }
        match state.pins.first_key_value() {
            Some((pin, _)) => limit.min(*pin),
            None => limit,
        }
    }

    /// Wakes the coalescing thread: everything through `lsn` is wanted in the store.
    pub fn want_applied(&self, lsn: Lsn) {
        let mut wanted = self.wanted_through.lock();
        *wanted = lsn.max(*wanted);
        self.wanted.notify_all();
    }

    /// The error for a position that is not indexed yet.
    pub fn not_indexed(&self, asked: Lsn, indexed: Lsn) -> DerivedError {
        DerivedError::NotIndexed {
            asked,
            indexed,
            reason: self.failure(),
        }
    }

    /// Goes back to `to` or below; see [`State::cut`].
    pub fn cut(&self, to: Lsn) {
        let mut state = self.state.write();
        state.cut(to);
        self.tell_indexed(&state);
        self.wake_ingest.notify_one();
    }

    /// No record that ends at or below this is needed here any more. WAL is handed out from the start of the
    /// segment that the persisted state ends in.
    pub fn log_floor(&self) -> Lsn {
        let applied = self.state.read().applied;
        let segment_start = applied.0 - applied.0 % u64::from(self.base.facts.wal_segment_bytes);
        Lsn(segment_start)
    }
}

/// Opens the store where its own threads give way to the foreground, too.
fn open_store(directory: &Path, settings: &DerivedSettings) -> Result<Box<dyn PageStore>, DerivedError> {
    let (directory, settings) = (directory.to_owned(), settings.store.clone());
    let open = move || settings.open(&directory);
    let failed = |problem: String| DerivedError::Store(format!("opening the page store: {problem}"));
    let thread =
        background::spawn("open store".to_owned(), open).map_err(|error| failed(error.to_string()))?;
    Ok(thread.join().map_err(|_| failed("it panicked".to_owned()))??)
}

/// Base and state from the store.
fn recover(view: &dyn StoreView) -> Result<(ImportedBase, State), DerivedError> {
    let item = |item: VolumeItem| -> Result<_, DerivedError> {
        let found = view.newest(Space::Meta, &MetaKey::Volume(item).to_bytes(), Lsn::MAX)?;
        let missing = || DerivedError::Damaged(format!("{item:?} is missing"));
        decode(&found.ok_or_else(missing)?.1)?.ok_or_else(missing)
    };
    let base = ImportedBase::from_bytes(&item(VolumeItem::Base)?)?;
    let applied = Mark::from_bytes(&item(VolumeItem::Applied)?)
        .ok_or_else(|| DerivedError::Damaged("the persisted position".to_owned()))?;
    let mut resets = Resets::default();
    let range = MetaRange::resets();
    for version in view.scan(Space::Meta, &range.from, &range.to) {
        let (version, value) = version?;
        let damaged = || DerivedError::Damaged("a reset".to_owned());
        let Some(MetaKey::Reset { lsn, number }) = MetaKey::from_bytes(&version.key) else {
            return Err(damaged());
        };
        let value = decode(&value)?.ok_or_else(damaged)?;
        resets.restore((lsn, number), Dropped::from_bytes(&value).ok_or_else(damaged)?);
    }
    let state = State::new(applied, &base.facts, resets);
    Ok((base, state))
}
