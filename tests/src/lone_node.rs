//! A node's log, index and pages without its network, over the WAL of a stock server: what the benchmarks of redo
//! measure.
//!
//! All of it is the node's own code, threads and limits included, but for the page store's engine, which is in memory
//! (`cargo xtask bench ingest` measures a node with everything). The log is either a node's, or is read from the WAL
//! files at the time when it is asked for, as a startup process reads them, and kept.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use pg_quorum_types::{Base, Epoch, History, HistoryEntry, Lsn, SegmentId};
use pg_quorum_wal::{RawRecord, WalError, WalLayout};
use storage_service::derived::store::{MemoryStores, StoreSettings};
use storage_service::derived::{Derived, DerivedSettings, RecordLog};
use storage_service::disk::RealDisk;
use storage_service::log::{
    Appended, Batch, HotLog, LogObserver, LogPosition, LogSettings, LogView, OpenLog, StoredRecord,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::volume::Volume;
use crate::wal_files::{Records, WalFiles};

/// Records of one frame, about: what a link worker sends when there is much to send.
const FRAME_BYTES: usize = 512 << 10;

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
            unread: Mutex::new(wal.records()),
            pieces: RwLock::default(),
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

/// The WAL files as a log: read once, in order, by one thread.
struct WalFileLog {
    unread: Mutex<Records>,
    pieces: RwLock<Vec<Piece>>,
}

/// Records that were read at once. A position is a piece's number, and where in it the record stands.
struct Piece {
    bytes: Bytes,
    records: Vec<InPiece>,
}

/// Where a record stands, in the log and in its piece's bytes.
#[derive(Clone, Copy)]
struct InPiece {
    start: Lsn,
    end: Lsn,
    position: LogPosition,
}

impl Piece {
    /// `None` if the log ends. Where the server was killed it ends with an error.
    fn read(unread: &mut Records, number: u32, max_bytes: usize) -> Option<Piece> {
        let mut bytes = Vec::with_capacity(max_bytes + max_bytes / 8);
        let mut records = Vec::new();
        while bytes.len() < max_bytes
            && let Some(run) = unread.next_run()
        {
            for (start, end, record) in run.iter() {
                let position = LogPosition {
                    file: number,
                    offset: bytes.len() as u32,
                    length: record.len() as u32,
                };
                bytes.extend_from_slice(record);
                records.push(InPiece { start, end, position });
            }
        }
        let bytes = bytes.into();
        (!records.is_empty()).then_some(Piece { bytes, records })
    }

    /// Those that end behind `previous_end`.
    fn records_behind(&self, previous_end: Lsn) -> Vec<StoredRecord> {
        let first = self.records.partition_point(|record| record.end <= previous_end);
        let stored = |record: &InPiece| StoredRecord {
            raw: RawRecord {
                start: record.start,
                end: record.end,
                bytes: self.bytes.slice(range_of(record.position)),
            },
            position: record.position,
        };
        self.records[first..].iter().map(stored).collect()
    }
}

fn range_of(position: LogPosition) -> Range<usize> {
    let offset = position.offset as usize;
    offset..offset + position.length as usize
}

impl RecordLog for WalFileLog {
    fn read_records(&self, previous_end: Lsn, max_bytes: usize) -> io::Result<Vec<StoredRecord>> {
        let mut unread = self.unread.lock();
        let is_behind = |piece: &Piece| piece.records.last().is_some_and(|last| last.end > previous_end);
        let count = {
            let pieces = self.pieces.read();
            if let Some(piece) = pieces.iter().find(|piece| is_behind(piece)) {
                return Ok(piece.records_behind(previous_end));
            }
            pieces.len()
        };
        while let Some(piece) = Piece::read(&mut unread, count as u32, max_bytes) {
            let found = piece.records_behind(previous_end);
            self.pieces.write().push(piece);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    fn read_each(
        &self,
        positions: &mut dyn Iterator<Item = LogPosition>,
        _buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        let pieces = self.pieces.read();
        for position in positions {
            if !take(&pieces[position.file as usize].bytes[range_of(position)]) {
                break;
            }
        }
        Ok(())
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
