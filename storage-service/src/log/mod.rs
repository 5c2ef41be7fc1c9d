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

use std::io;

use bytes::Bytes;
use pg_quorum_types::{Epoch, Lsn};
use pg_quorum_wal::RawRecord;

pub use hot_log::{Appended, Batch, HotLog, LogCounters, LogObserver, LogSettings, OpenLog};
pub use recover::{LogError, Recovered};

/// Where one record's bytes stand in the log's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPosition {
    /// Number of the file.
    pub file: u64,
    pub offset: u64,
    pub length: u32,
}

/// A record and where it stands.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    pub raw: RawRecord,
    pub position: LogPosition,
}

/// The records below the SCL. Those behind a cut are never returned.
pub trait RecordLog: Send + Sync + 'static {
    /// Records from the one that follows `previous_end` on: at least one if there is one, else of about
    /// `max_bytes`.
    ///
    /// # Errors
    /// The log cannot be read there.
    fn read_records(&self, previous_end: Lsn, max_bytes: usize) -> io::Result<Vec<StoredRecord>>;

    /// One record's bytes, from a position that [`RecordLog::read_records`] gave.
    ///
    /// # Errors
    /// The log cannot be read there, or is trimmed.
    fn read_at(&self, position: LogPosition) -> io::Result<Bytes>;
}

impl RecordLog for HotLog {
    fn read_records(&self, previous_end: Lsn, max_bytes: usize) -> io::Result<Vec<StoredRecord>> {
        HotLog::read_records(self, previous_end, max_bytes)
    }

    fn read_at(&self, position: LogPosition) -> io::Result<Bytes> {
        HotLog::read_at(self, position)
    }
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
