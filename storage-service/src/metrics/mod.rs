//! What nodes tell Prometheus.
//!
//! * [`latency`]: histograms of durations, which the work itself feeds
//! * `collect`: one reading of every node for each scrape; the names
//! * [`endpoint`]: the HTTP face

mod collect;
pub mod endpoint;
pub mod latency;

pub use collect::ObservedNode;
pub use endpoint::Endpoint;
pub use latency::Latency;

use std::sync::atomic::AtomicU64;

/// Requests for pages, counted since the process began.
#[derive(Debug, Default)]
pub struct PageRequests {
    /// Those that were answered with pages.
    pub answered: Latency,
    /// Those of a wrong epoch, or of an LSN that is not kept or not there yet.
    pub refused: AtomicU64,
}
