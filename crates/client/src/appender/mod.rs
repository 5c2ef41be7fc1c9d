//! The log's way to the segments: one ordered stream for each, none waits for another.
//!
//! ```text
//!            ┌─ lane ─ feed ══▶ segment 1 ══▶ replies ─┐
//!  append ─▶ window ─ lane ─ feed ══▶ segment 2 ══▶ … ─┼─▶ watermarks ─▶ Durability
//!            └─ lane ─ feed ══▶ segment 6 ══▶ replies ─┘
//! ```
//!
//! [`Appender::append`] never waits and never fails: it puts a batch into the window and wakes the feeds,
//! which are polled by the connections themselves, so that on a current-thread runtime the bytes reach the
//! sockets before the runtime sleeps again. What a stream cannot take yet waits and goes out as one message.
//! A stream that falls behind the window reads from the [`WalSource`]; a segment that falls behind that is
//! brought up by its peers.
//!
//! Durability is decided by `pg_quorum_quorum::watermark`; this module knows only how to carry messages.
//! It does not know what a record is.

mod feed;
mod lane;
mod session;
mod source;
mod stats;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pg_quorum_quorum::QuorumSet;
use pg_quorum_quorum::watermark::{SegmentReport, Watermarks};
use pg_quorum_types::{Epoch, Lsn, SegmentMember};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::lane::Lane;
pub use self::lane::LinkState;
use self::session::Session;
pub use self::source::{Batch, NoWalSource, WalSource, WalSourceError};
pub use self::stats::{LatencyStats, SegmentStats};
use self::window::Window;
use crate::channel::Node;
use crate::{Attachment, ConfigError, Fenced, Timeouts, Transport};

/// How much may be under way, and how often an idle segment hears from the writer.
#[derive(Clone, Copy, Debug)]
pub struct AppendLimits {
    /// Messages with records that one segment has not acknowledged, when there is much to send.
    pub messages_in_flight: usize,
    /// With less than this to send, a message waits until the one before it is acknowledged, and grows meanwhile: a
    /// message costs a sync and a dozen switches between processes, whatever is in it.
    pub pipelined_bytes: usize,
    /// Bytes of records that one segment has not acknowledged.
    pub bytes_in_flight: usize,
    /// Records of one message, unless a single record is larger.
    pub message_bytes: usize,
    /// Newest records that are kept for streams that have not sent them.
    pub window_bytes: usize,
    /// The longest silence towards a segment: its owner lease is a few of these.
    pub heartbeat: Duration,
    /// The longest silence if there is a new VDL to tell.
    pub vdl_news: Duration,
}

impl AppendLimits {
    pub const DEFAULT: AppendLimits = AppendLimits {
        messages_in_flight: 8,
        pipelined_bytes: 64 << 10,
        bytes_in_flight: 4 << 20,
        message_bytes: 1 << 20,
        window_bytes: 4 << 20,
        heartbeat: Duration::from_secs(1),
        vdl_news: Duration::from_millis(200),
    };
}

impl Default for AppendLimits {
    fn default() -> AppendLimits {
        AppendLimits::DEFAULT
    }
}

/// What is durable, as far as the writer knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Durability {
    /// Everything below it is held by a write quorum. [`Lsn::INVALID`] until a write quorum has answered.
    pub vdl: Lsn,
    /// Set once and for ever when the segments that have promised a later epoch leave no write quorum.
    pub fenced: Option<Arc<Fenced>>,
}

/// The six streams. Dropping it ends them.
pub struct Appender {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    attachment: Attachment,
    quorum: QuorumSet,
    limits: AppendLimits,
    timeouts: Timeouts,
    window: Mutex<Window>,
    /// As in `attachment.membership`.
    lanes: Vec<Mutex<Lane>>,
    marks: Mutex<Marks>,
    durability: watch::Sender<Durability>,
    /// The watch's VDL, for the feeds.
    vdl: AtomicU64,
    pgmrpl: AtomicU64,
    source: Arc<dyn WalSource>,
}

/// What follows from all replies together.
struct Marks {
    watermarks: Watermarks,
    /// For each lane, the later epoch that its segment has promised.
    fenced: Vec<Option<Fenced>>,
}

impl Appender {
    /// Opens streams to all members of the attachment's membership, in the background, on the current
    /// tokio runtime.
    ///
    /// `appended_to` is where the next batch begins: `attachment.vdl` for a server that has just attached.
    ///
    /// # Errors
    /// A member's address that is no address.
    pub fn start(
        attachment: Attachment,
        appended_to: Lsn,
        source: Arc<dyn WalSource>,
        limits: AppendLimits,
        transport: Transport,
    ) -> Result<Appender, ConfigError> {
        let members = &attachment.membership.members;
        let nodes = members
            .iter()
            .map(|member| Node::new(&member.address, &transport))
            .collect::<Result<Vec<_>, _>>()?;
        let quorum = attachment.quorum();
        let (durability, _) = watch::channel(Durability {
            vdl: Lsn::INVALID,
            fenced: None,
        });
        let shared = Arc::new(Shared {
            window: Mutex::new(Window::new(appended_to, limits.window_bytes)),
            lanes: members.iter().map(|_| Mutex::new(Lane::new())).collect(),
            marks: Mutex::new(Marks {
                watermarks: Watermarks::new(attachment.epoch, quorum.clone()),
                fenced: vec![None; members.len()],
            }),
            durability,
            vdl: AtomicU64::new(0),
            pgmrpl: AtomicU64::new(0),
            source,
            limits,
            timeouts: transport.timeouts,
            quorum,
            attachment,
        });
        let tasks = nodes
            .into_iter()
            .enumerate()
            .map(|(index, node)| tokio::spawn(Session::new(shared.clone(), index, node).run()))
            .collect();
        Ok(Appender { shared, tasks })
    }

    /// Puts a batch on its way to every segment. Returns at once.
    ///
    /// # Panics
    /// If the batch does not follow the one before it.
    pub fn append(&self, batch: Batch) {
        self.shared.window.lock().push(batch);
        for lane in &self.shared.lanes {
            lane.lock().wake();
        }
    }

    /// End of everything that was given to [`Appender::append`].
    pub fn appended_to(&self) -> Lsn {
        self.shared.window.lock().end()
    }

    /// Tells of every change of what is durable.
    pub fn durability(&self) -> watch::Receiver<Durability> {
        self.shared.durability.subscribe()
    }

    /// The VDL of this moment.
    pub fn vdl(&self) -> Lsn {
        self.shared.vdl()
    }

    /// Waits until everything below `lsn` is durable.
    ///
    /// # Errors
    /// Another epoch has taken the volume.
    pub async fn wait_durable(&self, lsn: Lsn) -> Result<(), Arc<Fenced>> {
        let mut durability = self.durability();
        // The sender lives as long as `self`.
        let reached = durability
            .wait_for(|state| state.fenced.is_some() || state.vdl >= lsn)
            .await;
        match reached.ok().and_then(|state| state.fenced.clone()) {
            Some(fenced) => Err(fenced),
            None => Ok(()),
        }
    }

    /// Up to here a write quorum of segments can serve pages, as they said last. [`Lsn::INVALID`] until they have.
    pub fn indexed(&self) -> Lsn {
        self.shared.quorum.write_complete(|segment| {
            let mut lanes = self.shared.members_with_lanes();
            let lane = lanes.find(|(member, _)| member.segment == segment);
            lane.map_or(Lsn::INVALID, |(_, lane)| lane.lock().indexed)
        })
    }

    /// The lowest read point in use: storage keeps what is needed to read at it. Never goes down.
    pub fn set_pgmrpl(&self, oldest_read_point: Lsn) {
        let mut marks = self.shared.marks.lock();
        marks.watermarks.set_pgmrpl(oldest_read_point);
        self.shared
            .pgmrpl
            .store(marks.watermarks.pgmrpl().0, Ordering::Relaxed);
    }

    /// When a write quorum was last heard from (the earliest of the latest answers that make one).
    /// `None` before the first time.
    pub fn quorum_heard_at(&self) -> Option<Instant> {
        let heard: Vec<Option<Instant>> = self
            .shared
            .lanes
            .iter()
            .map(|lane| lane.lock().last_heard_at)
            .collect();
        let members = &self.shared.attachment.membership.members;
        let mut instants: Vec<Instant> = heard.iter().copied().flatten().collect();
        instants.sort_unstable_by(|a, b| b.cmp(a));
        instants.into_iter().find(|&instant| {
            self.shared.quorum.is_write_quorum(|segment| {
                members
                    .iter()
                    .zip(&heard)
                    .any(|(member, heard)| member.segment == segment && heard.is_some_and(|at| at >= instant))
            })
        })
    }

    /// Tells every segment the VDL now and waits, at most for `patience`, until a write quorum has answered:
    /// a writer that stops leaves behind nodes that know what is durable.
    pub async fn announce_vdl(&self, patience: Duration) {
        let asked_at = Instant::now();
        for lane in &self.shared.lanes {
            let mut lane = lane.lock();
            lane.is_heartbeat_due = true;
            lane.wake();
        }
        let answered = async {
            while self.quorum_heard_at().is_none_or(|at| at < asked_at) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // Running out of patience is no failure: the nodes learn the VDL from the next writer.
        let _ = tokio::time::timeout(patience, answered).await;
    }

    /// A snapshot for people: one entry for each member.
    pub fn stats(&self) -> Vec<SegmentStats> {
        let appended_to = self.appended_to();
        self.shared
            .members_with_lanes()
            .map(|(member, lane)| SegmentStats::of(member, &lane.lock(), appended_to))
            .collect()
    }

    pub fn attachment(&self) -> &Attachment {
        &self.shared.attachment
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for lane in &self.shared.lanes {
            lane.lock().close(LinkState::Connecting, "closed".to_owned());
        }
    }
}

impl Shared {
    fn epoch(&self) -> Epoch {
        self.attachment.epoch
    }

    fn member(&self, index: usize) -> &SegmentMember {
        &self.attachment.membership.members[index]
    }

    fn members_with_lanes(&self) -> impl Iterator<Item = (&SegmentMember, &Mutex<Lane>)> {
        self.attachment.membership.members.iter().zip(&self.lanes)
    }

    fn vdl(&self) -> Lsn {
        Lsn(self.vdl.load(Ordering::Acquire))
    }

    fn pgmrpl(&self) -> Lsn {
        Lsn(self.pgmrpl.load(Ordering::Relaxed))
    }

    /// A segment's report: moves its lane, and the VDL if it was the one that was missing.
    fn on_report(&self, index: usize, report: SegmentReport, now: Instant) {
        self.lanes[index].lock().on_scl(report.scl, now);
        let moved = self
            .marks
            .lock()
            .watermarks
            .report(self.member(index).segment, report);
        if let Some(vdl) = moved {
            // Two replies may race here on a multi-thread runtime: the higher VDL stays.
            self.vdl.fetch_max(vdl.0, Ordering::AcqRel);
            self.durability.send_if_modified(|state| {
                let is_news = state.vdl < vdl;
                state.vdl = state.vdl.max(vdl);
                is_news
            });
        }
    }

    /// A segment has promised a later epoch and never takes ours again. One segment is no verdict (somebody
    /// tried and failed); when the others are no write quorum any more, nothing can be acknowledged again.
    fn on_fenced(&self, index: usize, by: Fenced) {
        let verdict = {
            let mut marks = self.marks.lock();
            marks.fenced[index] = Some(by);
            let members = &self.attachment.membership.members;
            let is_open = self.quorum.is_write_quorum(|segment| {
                members
                    .iter()
                    .zip(&marks.fenced)
                    .any(|(member, fenced)| member.segment == segment && fenced.is_none())
            });
            let highest = marks.fenced.iter().flatten().max_by_key(|fenced| fenced.epoch);
            highest.filter(|_| !is_open).cloned()
        };
        if let Some(fenced) = verdict {
            self.durability.send_if_modified(|state| {
                let is_news = state.fenced.is_none();
                state.fenced.get_or_insert_with(|| Arc::new(fenced));
                is_news
            });
        }
    }
}
