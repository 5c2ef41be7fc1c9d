//! One row for each segment, for `quorum.segments`. The link worker writes, SQL reads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pg_quorum_types::Lsn;

use super::text::SharedText;

/// Six today; a joint membership has one or two more.
pub const MAX_SEGMENTS: usize = 8;

#[derive(Debug)]
pub struct SegmentStats {
    count: AtomicU32,
    rows: [SegmentRow; MAX_SEGMENTS],
}

#[derive(Debug)]
struct SegmentRow {
    node: SharedText<64>,
    az: SharedText<64>,
    address: SharedText<128>,
    segment: SharedText<40>,
    state: SharedText<32>,
    message: SharedText<256>,
    epoch: AtomicU64,
    scl: AtomicU64,
    append_p50_us: AtomicU64,
    append_p99_us: AtomicU64,
    pages_served: AtomicU64,
}

/// One segment as the link worker sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    pub node: String,
    pub az: String,
    pub address: String,
    pub segment: String,
    /// A word: `active`, `catching up`, `unreachable`, …
    pub state: String,
    /// Why it is not active.
    pub message: String,
    pub epoch: u64,
    pub scl: Lsn,
    pub append_p50_us: u64,
    pub append_p99_us: u64,
    /// Pages that this server has got from it.
    pub pages_served: u64,
}

impl SegmentStats {
    /// All of a report but the pages served.
    pub fn publish(&self, reports: &[SegmentReport]) {
        let reports = &reports[..reports.len().min(MAX_SEGMENTS)];
        for (row, report) in self.rows.iter().zip(reports) {
            row.node.set(&report.node);
            row.az.set(&report.az);
            row.address.set(&report.address);
            row.segment.set(&report.segment);
            row.state.set(&report.state);
            row.message.set(&report.message);
            row.epoch.store(report.epoch, Ordering::Relaxed);
            row.scl.store(report.scl.0, Ordering::Relaxed);
            row.append_p50_us.store(report.append_p50_us, Ordering::Relaxed);
            row.append_p99_us.store(report.append_p99_us, Ordering::Relaxed);
        }
        self.count
            .store(u32::try_from(reports.len()).unwrap_or(0), Ordering::Release);
    }

    /// Pages that each segment has served, in the order of the reports. From another thread than the rest.
    pub fn publish_pages_served(&self, pages: impl Iterator<Item = u64>) {
        for (row, pages) in self.rows.iter().zip(pages) {
            row.pages_served.store(pages, Ordering::Relaxed);
        }
    }

    pub fn reports(&self) -> Vec<SegmentReport> {
        let count = (self.count.load(Ordering::Acquire) as usize).min(MAX_SEGMENTS);
        self.rows[..count].iter().map(SegmentRow::report).collect()
    }
}

impl SegmentRow {
    fn report(&self) -> SegmentReport {
        SegmentReport {
            node: self.node.get(),
            az: self.az.get(),
            address: self.address.get(),
            segment: self.segment.get(),
            state: self.state.get(),
            message: self.message.get(),
            epoch: self.epoch.load(Ordering::Relaxed),
            scl: Lsn(self.scl.load(Ordering::Relaxed)),
            append_p50_us: self.append_p50_us.load(Ordering::Relaxed),
            append_p99_us: self.append_p99_us.load(Ordering::Relaxed),
            pages_served: self.pages_served.load(Ordering::Relaxed),
        }
    }
}
