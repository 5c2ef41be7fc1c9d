//! One reading of every node for each scrape. All names begin with `pg_quorum_`; LSNs are byte positions in the log.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pg_quorum_quorum::segment::SegmentState;
use pg_quorum_types::{Lsn, NodeName};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use super::PageRequests;
use crate::access::Access;
use crate::derived::{Derived, DerivedStats};
use crate::segment::Segment;

/// A node whose figures are asked for.
#[derive(Clone)]
pub struct ObservedNode {
    pub segment: Arc<Segment>,
    pub derived: Arc<Derived>,
    pub page_requests: Arc<PageRequests>,
    pub access: Arc<Access>,
    /// The disk that holds it is the one whose room is told.
    pub data: PathBuf,
}

/// All nodes of the process.
pub struct Nodes(pub Vec<ObservedNode>);

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|node| &node.segment.settings().node.0);
        f.debug_list().entries(names).finish()
    }
}

/// What one node says at one moment.
struct Reading<'a> {
    node: &'a ObservedNode,
    derived: DerivedStats,
    scl: Lsn,
    vdl: Lsn,
    epoch: u64,
    is_active: bool,
    /// The SCL that each peer told last.
    peers: Vec<(NodeName, Lsn)>,
}

/// Name, help, value.
type Figure = (&'static str, &'static str, fn(&Reading<'_>) -> u64);
type Durations = (&'static str, &'static str, fn(&ObservedNode) -> &Histogram);
type PeerFigure = (&'static str, &'static str, fn(&Reading<'_>, Lsn) -> u64);

const GAUGES: [Figure; 13] = [
    ("active", "1 if the segment takes part in the quorum", |it| {
        u64::from(it.is_active)
    }),
    (
        "epoch",
        "Number of the epoch that the segment has started",
        |it| it.epoch,
    ),
    ("scl_lsn", "End of the log that is durable here", |it| it.scl.0),
    (
        "vdl_lsn",
        "The volume's durable LSN, as far as this node knows",
        |it| it.vdl.0,
    ),
    ("indexed_lsn", "Pages can be read up to here", |it| {
        it.derived.indexed.0
    }),
    ("applied_lsn", "The log is turned into pages up to here", |it| {
        it.derived.applied.0
    }),
    ("backlog_bytes", "Log that is not pages yet", |it| {
        it.scl.0.saturating_sub(it.derived.applied.0)
    }),
    ("log_size_bytes", "Log files", |it| {
        it.node.segment.log().bytes_on_disk()
    }),
    ("page_store_size_bytes", "Page store on disk", |it| {
        it.derived.store_bytes
    }),
    (
        "index_memory_bytes",
        "Memory of the index of records that are not pages yet",
        |it| it.derived.memory_bytes,
    ),
    ("indexed_pages", "Pages with such records", |it| {
        it.derived.indexed_pages
    }),
    ("pages_unbuildable", "Pages that wait for a peer's copy", |it| {
        it.derived.pages_unbuildable
    }),
    (
        "disk_free_bytes",
        "Room on the disk of the data directory",
        |it| free_bytes(it.node),
    ),
];

const COUNTERS: [Figure; 12] = [
    (
        "records_received",
        "Records taken from the writer and from peers",
        |it| log_counter(it, |log| &log.records),
    ),
    ("log_written_bytes", "Bytes written to the log", |it| {
        log_counter(it, |log| &log.bytes)
    }),
    ("wal_indexed_bytes", "WAL that was indexed", |it| {
        it.derived.wal_bytes_indexed
    }),
    ("records_indexed", "Records that were indexed", |it| {
        it.derived.records_indexed
    }),
    ("index_full_waits", "How often indexing waited for memory", |it| {
        it.derived.index_full_waits
    }),
    ("images_written", "Pages written to the page store", |it| {
        it.derived.images_written
    }),
    ("pages_served", "Pages given to readers", |it| {
        it.derived.pages_served
    }),
    (
        "pages_failed",
        "Pages that readers asked for and could not be built",
        |it| it.derived.pages_failed,
    ),
    ("pages_mended", "Pages replaced by a peer's copy", |it| {
        it.derived.pages_mended
    }),
    (
        "page_requests_refused",
        "Requests for pages that were refused",
        |it| it.node.page_requests.refused.load(Ordering::Relaxed),
    ),
    (
        "requests_unauthenticated",
        "Requests without a token that counts",
        |it| it.node.access.refusals.unauthenticated(),
    ),
    (
        "requests_not_permitted",
        "Requests with a token or certificate for something else",
        |it| it.node.access.refusals.not_permitted(),
    ),
];

const HISTOGRAMS: [Durations; 2] = [
    (
        "log_sync_seconds",
        "Write and sync of a group of records",
        |node| node.segment.log().counters.sync_time.histogram(),
    ),
    (
        "page_request_seconds",
        "A request for pages, until its answer",
        |node| node.page_requests.answered.histogram(),
    ),
];

const PEER_GAUGES: [PeerFigure; 2] = [
    (
        "peer_scl_lsn",
        "End of a peer's log, as it told last",
        |_, scl| scl.0,
    ),
    (
        "peer_behind_bytes",
        "How much of the volume's durable log a peer has not got",
        |it, scl| it.vdl.0.saturating_sub(scl.0),
    ),
];

impl Collector for Nodes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let readings: Vec<Reading<'_>> = self.0.iter().map(read).collect();
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for reading in &readings {
                ConstGauge::new(value(reading)).encode(family.encode_family(&reading.labels())?)?;
            }
        }
        for (name, help, value) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for reading in &readings {
                ConstCounter::new(value(reading)).encode(family.encode_family(&reading.labels())?)?;
            }
        }
        for (name, help, histogram) in HISTOGRAMS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for reading in &readings {
                histogram(reading.node).encode(family.encode_family(&reading.labels())?)?;
            }
        }
        for (name, help, value) in PEER_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for reading in &readings {
                for (peer, scl) in &reading.peers {
                    let [node] = reading.labels();
                    let labels = [node, ("peer", peer.0.as_str())];
                    ConstGauge::new(value(reading, *scl)).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Reading<'_> {
    fn labels(&self) -> [(&'static str, &str); 1] {
        [("node", &self.node.segment.settings().node.0)]
    }
}

fn read(node: &ObservedNode) -> Reading<'_> {
    let peers = node.segment.peers();
    let derived = node.derived.stats();
    node.segment.with_machine(|machine| Reading {
        node,
        derived,
        scl: machine.scl(),
        vdl: machine.vdl(),
        epoch: machine.started().number,
        is_active: machine.state() == SegmentState::Active,
        peers,
    })
}

fn log_counter(
    reading: &Reading<'_>,
    counter: fn(&crate::log::LogCounters) -> &std::sync::atomic::AtomicU64,
) -> u64 {
    counter(&reading.node.segment.log().counters).load(Ordering::Relaxed)
}

/// For whoever is not root; 0 if the file system does not say.
fn free_bytes(node: &ObservedNode) -> u64 {
    rustix::fs::statvfs(&node.data).map_or(0, |room| room.f_bavail.saturating_mul(room.f_frsize))
}
