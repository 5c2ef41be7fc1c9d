//! The storage node: log, index and pages of a volume's segment, and the services that reach them.
//!
//! * [`ctl`]: the tool
//! * [`disk`]: files, with what tests need to make them fail
//! * [`log`]: the hot log
//! * [`derived`]: what the log means: pages and everything else, as of an LSN
//! * [`services`]: the gRPC face

pub mod ctl;
pub mod derived;
pub mod disk;
pub mod log;
pub mod services;
