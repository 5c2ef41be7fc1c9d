//! The storage node: log, index and pages of a volume's segment, and the services that reach them.
//!
//! * [`disk`]: files, with what tests need to make them fail
//! * [`log`]: the hot log

pub mod disk;
pub mod log;
