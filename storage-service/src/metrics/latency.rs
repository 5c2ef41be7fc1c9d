//! Histograms of durations.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// The first bucket's upper bound in seconds; each further one is twice as wide.
const FIRST_BUCKET_SECONDS: f64 = 100e-6;
/// The last one ends at 13 s.
const BUCKETS: u16 = 18;

/// How long something took, each time since the process began.
#[derive(Clone, Debug)]
pub struct Latency(Histogram);

impl Default for Latency {
    fn default() -> Latency {
        Latency(Histogram::new(exponential_buckets(
            FIRST_BUCKET_SECONDS,
            2.0,
            BUCKETS,
        )))
    }
}

impl Latency {
    pub fn record(&self, elapsed: Duration) {
        self.0.observe(elapsed.as_secs_f64());
    }

    pub(super) fn histogram(&self) -> &Histogram {
        &self.0
    }
}
