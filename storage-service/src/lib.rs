//! The storage node: log, index and pages of a volume's segment, and the services that reach them.
//!
//! * [`node`]: a whole node: directory, segment, services, tasks
//! * [`segment`]: the quorum's rules at work on log and metadata
//! * [`log`]: the hot log
//! * [`derived`]: what the log means: pages and everything else, as of an LSN
//! * [`services`]: the gRPC face
//! * [`access`]: who may ask for what
//! * [`metrics`]: what it tells Prometheus
//! * [`disk`]: files, with what tests need to make them fail
//! * [`ctl`]: the tool, quorumctl

mod abort;
pub mod access;
pub mod ctl;
pub mod derived;
pub mod disk;
pub mod log;
pub mod metrics;
pub mod node;
pub mod pki;
pub mod segment;
pub mod services;
