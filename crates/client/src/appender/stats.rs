//! The appender's state for people and views.

use hdrhistogram::Histogram;
use pg_quorum_types::{Lsn, SegmentMember};

use super::lane::{Lane, LinkState};

/// A histogram's essence, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LatencyStats {
    pub count: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl LatencyStats {
    pub(crate) fn of(histogram: &Histogram<u64>) -> LatencyStats {
        LatencyStats {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

/// One segment as the writer sees it.
#[derive(Clone, Debug)]
pub struct SegmentStats {
    pub member: SegmentMember,
    pub state: LinkState,
    /// Why it is not streaming; empty if it is.
    pub message: String,
    pub scl: Lsn,
    /// Bytes of WAL that were appended and that the segment has not acknowledged.
    pub lag_bytes: u64,
    /// From the hand-over to the connection to the acknowledgement.
    pub append: LatencyStats,
    /// Messages with records.
    pub messages: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// Bytes of records that had been sent before.
    pub retransmitted_bytes: u64,
}

impl SegmentStats {
    pub(super) fn of(member: &SegmentMember, lane: &Lane, appended_to: Lsn) -> SegmentStats {
        SegmentStats {
            member: member.clone(),
            state: lane.state,
            message: lane.message.clone(),
            scl: lane.scl,
            lag_bytes: appended_to.bytes_since(lane.scl),
            append: LatencyStats::of(&lane.latency_us),
            messages: lane.messages,
            bytes: lane.bytes,
            retransmitted_bytes: lane.retransmitted_bytes,
        }
    }
}
