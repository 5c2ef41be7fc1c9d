//! The hot log: records in the order in which they were received, durable before they are acknowledged.
//!
//! * [`frame`]: the bytes on disk
//! * `hot_log`: append, group fdatasync, cut
//! * `recover`: what of the files counts after a restart, and what is damage
//! * `read`: records in LSN order, single records, runs for peers
//! * `trim`: removal of whole files
//!
//! It promises that every record below the SCL is on disk and is found again. It does not know who may
//! write (the segment's machine decides that) and what the records mean.

pub mod frame;
mod hot_log;
mod read;
mod recover;
mod trim;

use bytes::Bytes;
use pg_quorum_types::{Epoch, Lsn};
use pg_quorum_wal::RawRecord;

pub use hot_log::{Appended, Batch, HotLog, LogCounters, LogObserver, LogSettings, OpenLog};
pub use recover::{LogError, Recovered};

/// Where one record's bytes stand in the log's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPosition {
    /// Number of the file.
    pub file: u32,
    pub offset: u32,
    pub length: u32,
}

/// A record and where it stands.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    pub raw: RawRecord,
    pub position: LogPosition,
}

/// Records of one epoch, one behind the other, as they go over the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    pub epoch: Epoch,
    pub previous_end: Lsn,
    pub end: Lsn,
    pub gaps: Vec<u64>,
    pub records: Bytes,
}

/// What the segment tells of itself after each change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogView {
    pub scl: Lsn,
    /// The highest VDL known under the log's history; it can be above the SCL.
    pub vdl: Lsn,
    /// The lowest LSN that is still read; [`Lsn::INVALID`] while the epoch's writer has not said it.
    pub pgmrpl: Lsn,
    pub promised: Epoch,
    pub started: Epoch,
}
