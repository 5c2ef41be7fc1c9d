//! What the derived state needs of the log: records in order, and later single ones again.

use std::io;

use pg_quorum_types::Lsn;

pub use crate::log::{LogPosition, LogRecords, LogView, StoredRecord};

/// The segment's log below its SCL. Records behind a cut are never returned.
pub trait RecordLog: Send + Sync + 'static {
    /// Adds records to `records` from the one that follows `previous_end` on: at least one if there is one, else of
    /// about `max_bytes`.
    ///
    /// # Errors
    /// The log cannot be read there.
    fn read_records(&self, previous_end: Lsn, max_bytes: usize, records: &mut LogRecords) -> io::Result<()>;

    /// Hands `take` single records' bytes, from positions that [`RecordLog::read_records`] gave, until it returns
    /// false. `buffer` is memory that is kept from one call to the next; what is in it does not matter.
    ///
    /// # Errors
    /// The log cannot be read there, or is trimmed: at the record behind the last one that was handed out.
    fn read_each(
        &self,
        positions: &mut dyn Iterator<Item = LogPosition>,
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<()>;
}

impl RecordLog for crate::log::HotLog {
    fn read_records(&self, previous_end: Lsn, max_bytes: usize, records: &mut LogRecords) -> io::Result<()> {
        crate::log::HotLog::read_records(self, previous_end, max_bytes, records)
    }

    fn read_each(
        &self,
        positions: &mut dyn Iterator<Item = LogPosition>,
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        crate::log::HotLog::read_each(self, positions, buffer, take)
    }
}
