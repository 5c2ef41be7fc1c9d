//! A hot log without a segment, and a disk that tells what a kernel remembers from what survives its power.

mod machine_disk;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pg_quorum_types::{Epoch, History, HistoryEntry, Lsn, SegmentId};
use pg_quorum_wal::{RawRecord, WalLayout};
use storage_service::disk::Disk;
use storage_service::log::{
    Appended, Batch, HotLog, LogObserver, LogRecords, LogSettings, OpenLog, Recovered, StoredRecord,
};
use uuid::Uuid;

use super::derived_support::{BASE, FACTS};

pub use machine_disk::{MachineDisk, SyncFault};

/// What the log has told besides what is durable.
#[derive(Default)]
struct Observer {
    troubles: Mutex<Vec<String>>,
}

impl LogObserver for Observer {
    fn synced(&self, _scl: Lsn) {}

    fn failed(&self, error: &io::Error) {
        self.troubles.lock().push(format!("failed: {error}"));
    }

    fn damaged(&self, error: &io::Error) {
        self.troubles.lock().push(format!("damaged: {error}"));
    }
}

/// Where a log is, and how it keeps its files.
#[derive(Clone)]
pub struct Place {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub file_bytes: u64,
}

impl Place {
    /// Begins a log at the base.
    pub fn begin(&self, history: &History) -> TestLog {
        let (log, _) = self.open_with(None, &History::default());
        log.hot
            .begin_at(BASE, WalLayout::new(&FACTS), history.clone())
            .unwrap();
        log.run();
        log
    }

    /// Opens a log that was stopped or left, without its writer thread.
    pub fn open(&self, history: &History) -> (TestLog, Recovered) {
        self.open_with(Some(WalLayout::new(&FACTS)), history)
    }

    fn open_with(&self, layout: Option<WalLayout>, history: &History) -> (TestLog, Recovered) {
        let (hot, found) = HotLog::open(OpenLog {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            segment: SegmentId(Uuid::from_u128(1)),
            history: history.clone(),
            layout,
            settings: LogSettings {
                file_bytes: self.file_bytes,
                ..LogSettings::default()
            },
        })
        .unwrap();
        let observer = Arc::new(Observer::default());
        (TestLog { hot, observer }, found)
    }
}

/// An open log and what it told.
pub struct TestLog {
    pub hot: Arc<HotLog>,
    observer: Arc<Observer>,
}

impl TestLog {
    /// Starts the writer thread. What was appended before goes to the disk in one write.
    pub fn run(&self) {
        let observer = Arc::downgrade(&self.observer);
        self.hot.run("of the test", observer).unwrap();
    }

    /// Appends one frame and waits for the disk. Returns the SCL.
    pub fn append(&self, epoch: Epoch, previous_end: Lsn, records: &[RawRecord]) -> Lsn {
        let appended = self.hot.append(batch(epoch, previous_end, records));
        assert!(matches!(appended, Appended::Queued { .. }), "{appended:?}");
        self.hot.drain()
    }

    /// All records behind `previous_end`.
    pub fn read(&self, previous_end: Lsn) -> io::Result<Vec<RawRecord>> {
        let mut records = LogRecords::default();
        self.hot.read_records(previous_end, usize::MAX, &mut records)?;
        let raw = |stored: StoredRecord<'_>| RawRecord {
            start: stored.start,
            end: stored.end,
            bytes: Bytes::copy_from_slice(stored.bytes),
        };
        Ok(records.iter().map(raw).collect())
    }

    /// What failed or was found damaged so far.
    pub fn troubles(&self) -> Vec<String> {
        self.observer.troubles.lock().clone()
    }
}

impl Drop for TestLog {
    fn drop(&mut self) {
        self.hot.stop();
    }
}

pub fn batch(epoch: Epoch, previous_end: Lsn, records: &[RawRecord]) -> Batch {
    let bytes: Vec<u8> = records.iter().flat_map(|record| record.bytes.to_vec()).collect();
    Batch {
        epoch,
        previous_end,
        end: records.last().map_or(previous_end, |record| record.end),
        gaps: Vec::new(),
        records: Bytes::from(bytes),
        vdl: BASE,
    }
}

pub fn epoch(number: u64) -> Epoch {
    Epoch {
        number,
        writer: Uuid::from_u128(number.into()),
    }
}

pub fn history(entries: &[(u64, Lsn)]) -> History {
    let entry = |&(number, start_lsn)| HistoryEntry {
        epoch: epoch(number),
        start_lsn,
    };
    History::new(entries.iter().map(entry).collect()).unwrap()
}
