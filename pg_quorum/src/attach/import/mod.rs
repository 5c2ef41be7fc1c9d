//! The first import: a cleanly stopped cluster's directory becomes a volume's base.

mod check;
mod walk;

pub use check::{StoppedCluster, stopped_cluster};
pub use walk::{for_each_fork, measure, walk};
