//! What SQL shows of the link, once in a tick.

use std::sync::atomic::Ordering;

use pg_quorum_client::{Attachment, SegmentStats};

use crate::shared::{SegmentReport, SharedState};

/// Copies the appender's view into shared memory.
pub fn publish(state: &SharedState, attachment: &Attachment, stats: &[SegmentStats]) {
    let counters = &state.counters;
    counters.messages_sent.store(
        stats.iter().map(|segment| segment.messages).sum(),
        Ordering::Relaxed,
    );
    counters
        .bytes_sent
        .store(stats.iter().map(|segment| segment.bytes).sum(), Ordering::Relaxed);
    let reports: Vec<SegmentReport> = stats
        .iter()
        .map(|segment| SegmentReport {
            node: segment.member.node.to_string(),
            az: segment.member.az.to_string(),
            address: segment.member.address.clone(),
            segment: segment.member.segment.to_string(),
            state: segment.state.to_string(),
            message: segment.message.clone(),
            epoch: attachment.epoch.number,
            scl: segment.scl,
            append_p50_us: segment.append.p50_us,
            append_p99_us: segment.append.p99_us,
            pages_served: 0,
        })
        .collect();
    state.segments.publish(&reports);
}
