//! A node's log, index and pages without its network, over the WAL of a stock server: what the benchmarks of redo
//! measure.
//!
//! All of it is the node's own code, threads and limits included, but for the page store's engine, which is in memory
//! (`cargo xtask bench ingest` measures a node with everything). The log is either a node's, or the WAL files
//! where the page cache has them, taken apart at the time when they are asked for.

use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use pg_quorum_types::{Base, Epoch, History, HistoryEntry, Lsn, SegmentId};
use pg_quorum_wal::{WalError, WalLayout};
use smallvec::SmallVec;
use storage_service::derived::store::{MemoryStores, StoreSettings};
use storage_service::derived::{Derived, DerivedSettings, RecordLog};
use storage_service::disk::RealDisk;
use storage_service::log::{
    Appended, Batch, HotLog, LogObserver, LogPosition, LogRecords, LogSettings, LogView, OpenLog,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::volume::Volume;
use crate::wal_files::{Records, WalFiles};

/// Records of one frame, about: what a link worker sends when there is much to send.
const FRAME_BYTES: usize = 512 << 10;
/// Records that are looked at ahead: as many as keep memory busy.
const AHEAD: usize = 16;

/// Where a stock server's files are, and what may be written to.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The data directory of a server that was stopped cleanly.
    pub base: &'a Path,
    /// `pg_wal` with what came afterwards.
    pub pg_wal: &'a Path,
    pub scratch: &'a Path,
}

/// See the module.
pub struct LoneNode {
    pub derived: Derived,
    pub wal: WalFiles,
    /// The base: the end of the shutdown checkpoint with which the server was stopped.
    pub start: Lsn,
    view: watch::Sender<LogView>,
    hot_log: Option<(Arc<HotLog>, Arc<Observer>)>,
}

impl LoneNode {
    /// Imports the base; the log is the WAL files.
    ///
    /// # Errors
    /// Files that cannot be read or written, or are not what they must be.
    pub fn on_wal_files(source: Source<'_>, settings: DerivedSettings) -> Result<LoneNode> {
        let wal = WalFiles::since_stop(source.base, source.pg_wal);
        let log = Arc::new(WalFileLog {
            unread: Mutex::new(Unread {
                records: wal.records(),
                read_to: None,
            }),
            parts: RwLock::default(),
        });
        LoneNode::open(source, wal, settings, log, None)
    }

    /// Imports the base, and writes the WAL to a node's log.
    ///
    /// # Errors
    /// As for [`LoneNode::on_wal_files`].
    pub fn on_hot_log(source: Source<'_>, settings: DerivedSettings) -> Result<LoneNode> {
        let wal = WalFiles::since_stop(source.base, source.pg_wal);
        let start = start_of(&wal)?;
        let (log, observer) = begin_log(&wal, start, source.scratch)?;
        append(&log, &wal, start)?;
        LoneNode::open(source, wal, settings, log.clone(), Some((log, observer)))
    }

    fn open(
        source: Source<'_>,
        wal: WalFiles,
        settings: DerivedSettings,
        log: Arc<dyn RecordLog>,
        hot_log: Option<(Arc<HotLog>, Arc<Observer>)>,
    ) -> Result<LoneNode> {
        let start = start_of(&wal)?;
        let view = watch::Sender::new(LogView {
            scl: start,
            vdl: start,
            ..LogView::default()
        });
        let settings = DerivedSettings {
            // Nothing waits for quiet here.
            idle_before_round: Duration::from_secs(3600),
            store: StoreSettings::Memory(MemoryStores::default()),
            ..settings
        };
        let derived = Derived::open(&source.scratch.join("derived"), settings, log, view.subscribe())?;
        let control_file = std::fs::read(source.base.join("global/pg_control"))?;
        let base = Base {
            id: Uuid::from_u128(1),
            lsn: start,
        };
        derived.begin_import(base, wal.facts)?;
        for item in Volume::load(source.base).into_content(control_file.into()) {
            derived.import_items(base, vec![item])?;
        }
        derived.finish_import(base)?;
        Ok(LoneNode {
            derived,
            wal,
            start,
            view,
            hot_log,
        })
    }

    /// All of the log up to `end` is there, and durable in the quorum.
    pub fn give_log(&self, end: Lsn) {
        self.view.send_modify(|view| {
            view.scl = end;
            view.vdl = end;
        });
    }
}

impl Drop for LoneNode {
    fn drop(&mut self) {
        self.derived.shut_down();
        if let Some((log, _)) = &self.hot_log {
            log.stop();
        }
    }
}

fn start_of(wal: &WalFiles) -> Result<Lsn> {
    Ok(wal.records().next().context("there is no WAL")??.end)
}

/// The WAL files as a log: taken apart once, in order, by one thread.
struct WalFileLog {
    unread: Mutex<Unread>,
    /// A position is a part's number, and where in it the record stands.
    parts: RwLock<Arc<Vec<Bytes>>>,
}

struct Unread {
    records: Records,
    /// The end of the last one that was read, if there is one.
    read_to: Option<Lsn>,
}

fn range_of(position: LogPosition) -> Range<usize> {
    let offset = position.offset as usize;
    offset..offset + position.length as usize
}

impl RecordLog for WalFileLog {
    fn read_records(&self, previous_end: Lsn, max_bytes: usize, records: &mut LogRecords) -> io::Result<()> {
        let mut unread = self.unread.lock();
        if unread.read_to.is_some_and(|read_to| read_to != previous_end) {
            return Err(io::Error::other("WAL files are read once, in order"));
        }
        let mut read = Vec::new();
        let before = self.parts.read().len();
        let mut bytes = 0;
        while bytes < max_bytes
            && let Some(run) = unread.records.next_run()
        {
            let first = before + read.len();
            let first_part = records.add_parts(run.parts());
            // The base's own checkpoint record comes first.
            for place in run.places().iter().filter(|place| place.end > previous_end) {
                bytes += place.length;
                let position = LogPosition {
                    file: (first + place.part) as u32,
                    offset: place.at as u32,
                    length: place.length as u32,
                };
                records.push(first_part, place, position);
            }
            read.extend_from_slice(run.parts());
        }
        unread.read_to = records.end().or(unread.read_to);
        Arc::make_mut(&mut self.parts.write()).append(&mut read);
        Ok(())
    }

    fn read_each(
        &self,
        positions: &mut dyn Iterator<Item = LogPosition>,
        _buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        let parts = Arc::clone(&self.parts.read());
        let record = |position: LogPosition| &parts[position.file as usize][range_of(position)];
        let mut next: SmallVec<[&[u8]; AHEAD]> = SmallVec::new();
        loop {
            next.clear();
            next.extend((&mut *positions).take(AHEAD).map(record));
            // They come from memory side by side.
            black_box(
                next.iter()
                    .fold(0, |sum, record| sum ^ record[0] ^ record[record.len() - 1]),
            );
            if next.is_empty() || !next.iter().all(|record| take(record)) {
                return Ok(());
            }
        }
    }
}

/// A log that fails ends the benchmark.
struct Observer;

impl LogObserver for Observer {
    fn synced(&self, _scl: Lsn) {}

    fn failed(&self, error: &io::Error) {
        panic!("{error}");
    }

    fn damaged(&self, error: &io::Error) {
        panic!("{error}");
    }
}

const EPOCH: Epoch = Epoch {
    number: 1,
    writer: Uuid::from_u128(1),
};

fn begin_log(wal: &WalFiles, start: Lsn, directory: &Path) -> Result<(Arc<HotLog>, Arc<Observer>)> {
    let (log, _) = HotLog::open(OpenLog {
        disk: Arc::new(RealDisk),
        dir: directory.join("log"),
        segment: SegmentId(Uuid::from_u128(1)),
        history: History::default(),
        layout: None,
        settings: LogSettings::default(),
    })?;
    let history = History::new(vec![HistoryEntry {
        epoch: EPOCH,
        start_lsn: start,
    }])?;
    log.begin_at(start, WalLayout::new(&wal.facts), history)?;
    let observer = Arc::new(Observer);
    let weak = Arc::downgrade(&observer);
    log.run("of the benchmark", weak)?;
    Ok((log, observer))
}

/// Where the server was killed the log ends with an error.
fn append(log: &HotLog, wal: &WalFiles, start: Lsn) -> Result<()> {
    let mut end = start;
    let records = wal.records().skip(1);
    let mut records = records.map_while(Result::<_, WalError>::ok).peekable();
    while records.peek().is_some() {
        let previous_end = end;
        let mut bytes = BytesMut::new();
        while bytes.len() < FRAME_BYTES
            && let Some(record) = records.next()
        {
            bytes.extend_from_slice(&record.bytes);
            end = record.end;
        }
        let appended = log.append(Batch {
            epoch: EPOCH,
            previous_end,
            end,
            gaps: Vec::new(),
            records: bytes.freeze(),
            vdl: start,
        });
        if !matches!(appended, Appended::Queued { .. }) {
            bail!("the log does not take records up to {end}: {appended:?}");
        }
        if log.is_full() {
            log.drain();
        }
    }
    log.drain();
    Ok(())
}
