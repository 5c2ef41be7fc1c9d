//! The quorum's rules without I/O: messages in, commands out, no clock, no sockets, no threads.
//!
//! * [`quorum_set`]: how many segments make a quorum, for any membership and for two at once
//! * [`segment`]: what a segment may promise, start and append, and what it must persist before it answers
//! * [`catch_up`]: which part of a peer's log a segment may take over
//! * [`writer`]: how a writer takes a volume: promises, the choice of the log, starts
//! * [`watermark`]: what is durable: SCL, PGCL, VCL, VDL
//!
//! Time comes in as [`Monotonic`]; randomness (a writer's UUID) and addresses come from the caller.

pub mod catch_up;
mod clock;
pub mod quorum_set;
mod refusal;
pub mod segment;
pub mod watermark;
pub mod writer;

pub use clock::Monotonic;
pub use quorum_set::{QuorumSet, write_quorum};
pub use refusal::{Refusal, Refused, RequestContext};
