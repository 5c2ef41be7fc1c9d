//! Counts and latency histograms since the server's start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bucket `n` counts durations below `2^n` microseconds (and not below half of that); the last one all
/// that are longer.
pub const HISTOGRAM_BUCKETS: usize = 28;

#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; HISTOGRAM_BUCKETS],
    total_us: AtomicU64,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (64 - us.leading_zeros() as usize).min(HISTOGRAM_BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(us, Ordering::Relaxed);
    }

    pub fn counts(&self) -> [u64; HISTOGRAM_BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed))
    }

    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_us.load(Ordering::Relaxed))
    }

    /// Upper edge of the bucket that holds the quantile; `None` without a sample.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let counts = self.counts();
        let samples: u64 = counts.iter().sum();
        if samples == 0 {
            return None;
        }
        let rank = (quantile.clamp(0.0, 1.0) * samples as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_micros(1 << bucket));
            }
        }
        None
    }
}

/// What `quorum.stat` shows.
#[derive(Debug)]
pub struct Counters {
    /// WAL bytes of records handed to the segments, once each (not times six).
    pub wal_bytes_shipped: AtomicU64,
    pub records_shipped: AtomicU64,
    /// Append batches made; each goes to all segments.
    pub batches_shipped: AtomicU64,
    /// Append messages sent, over all segments.
    pub messages_sent: AtomicU64,
    /// Bytes of append messages sent, over all segments, retransmissions included.
    pub bytes_sent: AtomicU64,
    /// Requests for pages, and the pages in them.
    pub page_requests: AtomicU64,
    pub pages_fetched: AtomicU64,
    pub page_errors: AtomicU64,
    /// Reads that the local page cache answered, and those that it could not.
    pub cache_hits: AtomicU64,
    pub cache_misses: AtomicU64,
    /// Pages that the cache has let go to stay within its limit, and those of them that were asked for again.
    pub pages_dropped: AtomicU64,
    pub pages_refetched: AtomicU64,
    /// Pages that were fetched and used, and not kept since the cache was full of what is in use.
    pub pages_passed_by: AtomicU64,
    /// Pages that a crash has left in the cache and that were good, and those that the log has changed since.
    pub kept_good: AtomicU64,
    pub kept_gone: AtomicU64,
    /// Pages that were asked for ahead of a scan, and on PostgreSQL's advice (`smgr_prefetch`).
    pub pages_read_ahead: AtomicU64,
    pub pages_prefetched: AtomicU64,
    /// Misses whose page was on its way already.
    pub misses_in_flight: AtomicU64,
    pub commit_waits: AtomicU64,
    /// Writes that waited since the segments' index was too far behind.
    pub index_waits: AtomicU64,
    /// Pages of free space maps that were logged, and how often all that had been written was.
    pub free_space_pages_logged: AtomicU64,
    pub free_space_rounds: AtomicU64,
    /// From the request to the pages, as the backend sees it.
    pub page_wait: Histogram,
    /// From the end of the local write to the quorum's acknowledgement, as the backend sees it.
    pub commit_wait: Histogram,
    /// From the hand-over of a batch to the VDL behind it, as the link worker sees it.
    pub quorum_latency: Histogram,
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
