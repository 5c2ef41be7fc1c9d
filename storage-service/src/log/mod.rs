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
use pg_quorum_wal::InRun;

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
#[derive(Clone, Copy, Debug)]
pub struct StoredRecord<'a> {
    /// Its first byte.
    pub start: Lsn,
    pub end: Lsn,
    /// As in [`pg_quorum_wal::RawRecord`].
    pub bytes: &'a [u8],
    pub position: LogPosition,
}

/// Consecutive records from the log, in its own memory: millions of them, without a reference count for each.
#[derive(Default, Debug)]
pub struct LogRecords {
    parts: Vec<Bytes>,
    records: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: Lsn,
    end: Lsn,
    /// Index in the parts, and in the part.
    part: u32,
    at: u32,
    position: LogPosition,
}

impl LogRecords {
    /// Adds the memory of a run's records. Returns the index of its first part, by which they are added themselves.
    pub fn add_parts(&mut self, parts: &[Bytes]) -> usize {
        let first = self.parts.len();
        self.parts.extend_from_slice(parts);
        first
    }

    /// Adds a record of the run whose parts begin with `first_part`.
    pub fn push(&mut self, first_part: usize, record: &InRun, position: LogPosition) {
        self.records.push(Place {
            start: record.start,
            end: record.end,
            part: (first_part + record.part) as u32,
            at: record.at as u32,
            position,
        });
    }

    /// Gives the log's memory back.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.records.clear();
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = StoredRecord<'_>> {
        self.records.iter().map(|place| {
            let at = place.at as usize;
            StoredRecord {
                start: place.start,
                end: place.end,
                bytes: &self.parts[place.part as usize][at..at + place.position.length as usize],
                position: place.position,
            }
        })
    }

    /// Where the last one ends, `None` if there are none.
    pub fn end(&self) -> Option<Lsn> {
        self.records.last().map(|last| last.end)
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
