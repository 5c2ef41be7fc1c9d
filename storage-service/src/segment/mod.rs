//! One segment: the quorum's machine with a disk, a log and peers around it.
//!
//! ```text
//!  Promise, Start, Create, Import ──▶ control (one at a time, blocking) ──▶ machine ──▶ commands
//!  Append ──▶ append ──▶ machine, then log queue            (one short lock)
//!  log's writer thread ──▶ observer ──▶ machine ──▶ LogView (watch): replies, derived state, Start
//!  catch_up: gossip, pulls        upkeep: metadata, trimming, a disk that was full
//! ```
//! Invariant: nothing is told of a change that is not persisted: the [`LogView`] is published only when a
//! control request has ended.

mod append;
pub mod catch_up;
mod control;
mod meta_file;
mod upkeep;

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pg_quorum_quorum::catch_up::PeerReport;
use pg_quorum_quorum::segment::{SegmentMachine, SegmentMeta};
use pg_quorum_quorum::{Monotonic, Refused, RequestContext};
use pg_quorum_tls::Tls;
use pg_quorum_types::{AzName, History, Lsn, Membership, NodeName, SegmentId, VolumeId};
use pg_quorum_wal::WalLayout;
use tokio::sync::{Notify, watch};

pub use append::{AppendOutcome, ack_of};
pub use meta_file::MetaFileError;

use crate::abort::AbortOnPanic;
use crate::disk::Disk;
use crate::log::{HotLog, LogError, LogObserver, LogSettings, LogView, OpenLog};
use meta_file::MetaFile;

/// What the segment needs of the derived state.
pub trait DerivedState: Send + Sync + 'static {
    /// Goes back to `to`; returns when no read sees anything above it.
    fn cut(&self, to: Lsn);
    /// No record that ends at or below this is needed.
    fn log_floor(&self) -> Lsn;
    /// What has to be done now and then. May block.
    fn upkeep(&self);
}

/// What a segment is opened with.
pub struct SegmentSettings {
    pub node: NodeName,
    pub az: AzName,
    pub lease: Duration,
    /// How often peers tell each other how far they are.
    pub gossip_interval: Duration,
    pub log: LogSettings,
    /// How peers are reached; `None`: in the clear.
    pub tls: Option<Tls>,
}

/// The segment cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error(transparent)]
    Meta(#[from] MetaFileError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("starting the log's writer thread: {0}")]
    Thread(#[source] io::Error),
}

struct Guarded {
    machine: SegmentMachine,
    /// Rises with everything that is to be persisted, so that an older write never replaces a newer one.
    sequence: u64,
    /// A control request is being carried out: nothing is appended, nothing is published.
    in_control: bool,
}

/// One segment.
pub struct Segment {
    settings: SegmentSettings,
    segment: SegmentId,
    state: Mutex<Guarded>,
    /// Held by the one control request that is carried out.
    control: Mutex<()>,
    log: Arc<HotLog>,
    meta: MetaFile,
    view: watch::Sender<LogView>,
    derived: OnceLock<Arc<dyn DerivedState>>,
    /// What each peer said last.
    peers: Mutex<Vec<(SegmentId, PeerReport)>>,
    /// Wakes the catch-up task.
    catch_up_now: Notify,
    origin: Instant,
}

impl Segment {
    /// Opens the segment in `dir`, which is formatted if it is empty.
    ///
    /// # Errors
    /// The directory is not (or no more) this node's, or cannot be read.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: SegmentSettings,
    ) -> Result<Arc<Segment>, SegmentError> {
        let (meta_file, meta) = MetaFile::open(Arc::clone(&disk), dir, &settings.node)?;
        let (log, found) = HotLog::open(OpenLog {
            disk,
            dir: dir.join("log"),
            segment: meta.segment,
            history: effective_history(&meta),
            layout: meta.base.map(|complete| WalLayout::new(&complete.facts)),
            settings: settings.log,
        })?;
        let segment = meta.segment;
        let has_base = meta.base.is_some();
        let (scl, vdl) = if has_base {
            (found.scl, found.vdl)
        } else {
            (Lsn::INVALID, Lsn::INVALID)
        };
        if found.torn_bytes > 0 {
            tracing::info!(
                node = %settings.node,
                bytes = found.torn_bytes,
                "cut off what was being written when the process ended"
            );
        }
        let origin = Instant::now();
        let mut machine = SegmentMachine::recover(meta, scl, vdl, settings.lease, Monotonic::default());
        if let Some(damage) = found.damage.filter(|_| has_base) {
            machine.set_damaged(damage);
        }
        if let Some(trouble) = machine.trouble() {
            tracing::error!(node = %settings.node, "the segment is damaged and does not vote: {trouble}");
        }
        let view = watch::Sender::new(view_of(&machine));
        let name = settings.node.clone();
        let opened = Arc::new(Segment {
            settings,
            segment,
            state: Mutex::new(Guarded {
                machine,
                sequence: 0,
                in_control: false,
            }),
            control: Mutex::new(()),
            log,
            meta: meta_file,
            view,
            derived: OnceLock::new(),
            peers: Mutex::new(Vec::new()),
            catch_up_now: Notify::new(),
            origin,
        });
        opened.adopt_after_restart();
        let observer: Arc<dyn LogObserver> = opened.clone();
        opened
            .log
            .run(&name.0, Arc::downgrade(&observer))
            .map_err(SegmentError::Thread)?;
        Ok(opened)
    }

    /// The derived state that follows the log; set once, before requests come.
    pub fn set_derived(&self, derived: Arc<dyn DerivedState>) {
        assert!(
            self.derived.set(derived).is_ok(),
            "the derived state is set already"
        );
    }

    pub fn id(&self) -> SegmentId {
        self.segment
    }

    pub fn settings(&self) -> &SegmentSettings {
        &self.settings
    }

    pub fn log(&self) -> &Arc<HotLog> {
        &self.log
    }

    /// Follows what the segment says of itself.
    pub fn subscribe(&self) -> watch::Receiver<LogView> {
        self.view.subscribe()
    }

    pub fn now(&self) -> Monotonic {
        Monotonic(self.origin.elapsed())
    }

    /// Looks at the machine.
    pub fn with_machine<T>(&self, look: impl FnOnce(&SegmentMachine) -> T) -> T {
        look(&self.state.lock().machine)
    }

    /// Whether a request means this segment.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check_context(&self, context: &RequestContext) -> Result<(), Box<Refused>> {
        self.with_machine(|machine| machine.check_context(context, self.now()))
    }

    /// `None` before there is one.
    pub fn volume(&self) -> Option<VolumeId> {
        self.with_machine(|machine| {
            machine
                .meta()
                .assignment
                .as_ref()
                .map(|assignment| assignment.volume)
        })
    }

    /// The volume's members; `None` before there is a volume.
    pub fn membership(&self) -> Option<Membership> {
        self.with_machine(|machine| {
            let assignment = machine.meta().assignment.as_ref()?;
            Some(assignment.membership.clone())
        })
    }

    /// Something that must be right was found to be wrong: no vote from here on.
    pub fn set_damaged(&self, message: String) {
        tracing::error!(node = %self.settings.node, "the segment is damaged and does not vote: {message}");
        self.state.lock().machine.set_damaged(message);
    }

    /// Writes and syncs what waits and records how far that is. Nothing is taken afterwards.
    pub fn stop(&self) {
        self.log.stop();
        self.refresh_meta();
    }

    /// Publishes what has changed, unless a control request does so when it ends.
    fn publish(&self, guarded: &Guarded) {
        if guarded.in_control {
            return;
        }
        let view = view_of(&guarded.machine);
        self.view.send_if_modified(|published| {
            let changed = *published != view;
            *published = view;
            changed
        });
    }

    /// Wakes whoever waits for the view, also if it is as it was: a message that met a control request goes on.
    fn wake_all(&self) {
        self.view.send_modify(|_| {});
    }

    /// A Start that was accepted before the restart may have been reached by what was found in the log.
    fn adopt_after_restart(&self) {
        let scl = self.with_machine(SegmentMachine::scl);
        self.log_grew(scl);
    }

    /// The log is durable up to `scl`.
    fn log_grew(&self, scl: Lsn) {
        let _abort = AbortOnPanic;
        let mut guarded = self.state.lock();
        let to_persist = guarded.machine.log_synced(scl);
        let Some(meta) = to_persist else {
            self.publish(&guarded);
            return;
        };
        guarded.sequence += 1;
        let sequence = guarded.sequence;
        drop(guarded);
        let persisted = self.meta.persist(&meta, sequence);
        let mut guarded = self.state.lock();
        match persisted {
            Ok(()) => self.publish(&guarded),
            Err(error) => self.latch_meta_failure(&mut guarded, &error),
        }
    }

    /// What is in memory and what is on disk differ: only a restart says which one counts.
    fn latch_meta_failure(&self, guarded: &mut Guarded, error: &io::Error) {
        let message =
            format!("its metadata cannot be written ({error}); restart the node when the disk works");
        tracing::error!(node = %self.settings.node, "{message}");
        guarded.machine.set_damaged(message);
    }
}

impl LogObserver for Segment {
    fn synced(&self, scl: Lsn) {
        self.log_grew(scl);
    }

    fn failed(&self, error: &io::Error) {
        let message = if crate::disk::is_no_space(error) {
            "the disk is full".to_owned()
        } else {
            format!("the disk has failed ({error}); restart the node when it works")
        };
        tracing::error!(node = %self.settings.node, "the segment takes no writes: {message}");
        let mut guarded = self.state.lock();
        guarded.machine.set_read_only(Some(message));
        drop(guarded);
        // The connections whose records were thrown away.
        self.wake_all();
    }

    fn damaged(&self, error: &io::Error) {
        self.set_damaged(error.to_string());
    }
}

/// The history that says which frames count: that of an accepted Start reaches further than what is adopted.
fn effective_history(meta: &SegmentMeta) -> History {
    match &meta.starting {
        Some(target) => target.history.clone(),
        None => meta.history.clone(),
    }
}

fn view_of(machine: &SegmentMachine) -> LogView {
    LogView {
        scl: machine.scl(),
        vdl: machine.vdl(),
        pgmrpl: machine.pgmrpl(),
        promised: machine.promised(),
        started: machine.started(),
    }
}
