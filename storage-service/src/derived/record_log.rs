//! What the derived state needs of the log: records in order, and single ones again.

use std::io;

use bytes::Bytes;
use pg_quorum_types::Lsn;

pub use crate::log::{LogPosition, LogView, StoredRecord};

/// The segment's log below its SCL. Records behind a cut are never returned.
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

impl RecordLog for crate::log::HotLog {
    fn read_records(&self, previous_end: Lsn, max_bytes: usize) -> io::Result<Vec<StoredRecord>> {
        crate::log::HotLog::read_records(self, previous_end, max_bytes)
    }

    fn read_at(&self, position: LogPosition) -> io::Result<Bytes> {
        crate::log::HotLog::read_at(self, position)
    }
}
