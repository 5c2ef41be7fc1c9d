//! Append and group fdatasync.
//!
//! ```text
//!  connections ──append──▶ queue ──▶ one writer thread: takes all that waits, one write, one fdatasync
//!                                        └──▶ SCL ──▶ observer (the segment)
//! ```
//! While a sync is under way the next group forms in the queue.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex, RwLock};
use pg_quorum_types::{Epoch, History, Lsn, SegmentId};
use pg_quorum_wal::{WalLayout, split_run};

use super::frame::{FILE_HEADER_BYTES, FileHeader, Frame};
use super::read::Hints;
use super::recover::{self, LogError, LogFile, PLACE_DISTANCE_BYTES, Place, Recovered, Scan, file_path};
use crate::abort::AbortOnPanic;
use crate::disk::{Disk, is_no_space};
use crate::metrics::Latency;

/// Bytes that may wait for the disk before connections have to.
const MAX_QUEUED_BYTES: usize = 32 << 20;
/// Bytes of one write; a larger batch is written alone.
const MAX_WRITE_BYTES: usize = 8 << 20;
/// Zeros that are written behind the frames: syncing bytes inside of a file costs less than a longer file.
const ALLOCATED_AHEAD_BYTES: u64 = 1 << 20;
/// A write of so many bytes makes the file longer by itself.
const LARGE_WRITE_BYTES: u64 = 128 << 10;
/// What is kept of the write buffer between writes.
const KEPT_BUFFER_BYTES: usize = 1 << 20;
/// Written and removed again to see whether a full disk has room.
const PROBE_BYTES: usize = 4 << 20;

/// How the log keeps its files.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// A file is closed when it has so many bytes.
    pub file_bytes: u64,
    /// So many bytes are kept even if nobody needs them.
    pub retention_bytes: u64,
    /// For tests: how long each sync takes at least.
    pub sync_delay: Duration,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            file_bytes: 64 << 20,
            retention_bytes: 256 << 20,
            sync_delay: Duration::ZERO,
        }
    }
}

/// What a log is opened with.
pub struct OpenLog {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub segment: SegmentId,
    /// Of the segment, or that of a Start which is accepted and not reached.
    pub history: History,
    /// Absent as long as there is no base.
    pub layout: Option<WalLayout>,
    pub settings: LogSettings,
}

/// Records that are to be appended.
#[derive(Clone, Debug)]
pub struct Batch {
    pub epoch: Epoch,
    pub previous_end: Lsn,
    pub end: Lsn,
    pub gaps: Vec<u64>,
    pub records: Bytes,
    /// The VDL that is known.
    pub vdl: Lsn,
}

/// What became of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Appended {
    /// It waits for the disk, all of it or what was new of it.
    Queued { records: u64 },
    /// All of it is there or waits already.
    Known,
    /// It begins above what was received.
    Gap,
    /// Its bytes are not the records that it says.
    Malformed(String),
    /// The disk has failed.
    Unwritable,
}

/// Hears what the writer thread has done. Called without any of the log's locks.
pub trait LogObserver: Send + Sync {
    /// Everything below `scl` is durable.
    fn synced(&self, scl: Lsn);
    /// A write or a sync has failed. What waited is thrown away, it was not acknowledged.
    fn failed(&self, error: &io::Error);
    /// What is read from the disk is not what was written.
    fn damaged(&self, error: &io::Error);
}

/// Counted since the process began.
#[derive(Debug, Default)]
pub struct LogCounters {
    pub syncs: AtomicU64,
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    /// Write and sync of each group.
    pub sync_time: Latency,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failure {
    NoSpace,
    /// What is on disk is unknown: only a restart reads it again.
    Final,
}

struct Queue {
    /// As in `Contents`, for whoever appends: reads of the disk hold on to those.
    layout: Option<WalLayout>,
    history: Arc<History>,
    frames: Vec<Frame>,
    bytes: usize,
    /// End of what was received: durable, being written or waiting.
    received_end: Lsn,
    is_writing: bool,
    /// A write failed. Cleared when there is room again; never after another failure.
    failed: Option<Failure>,
    stop: bool,
}

/// What readers see: only what is durable.
pub(super) struct Contents {
    pub files: BTreeMap<u64, LogFile>,
    pub places: BTreeMap<Lsn, Place>,
    pub last_place: Option<Place>,
    pub history: Arc<History>,
    pub layout: Option<WalLayout>,
    pub begin: Lsn,
    pub scl: Lsn,
}

/// The log of one segment.
pub struct HotLog {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) segment: SegmentId,
    pub(super) settings: LogSettings,
    queue: Mutex<Queue>,
    has_work: Condvar,
    is_idle: Condvar,
    pub(super) contents: RwLock<Contents>,
    pub(super) hints: Mutex<Hints>,
    observer: OnceLock<Weak<dyn LogObserver>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    pub counters: LogCounters,
}

impl HotLog {
    /// Reads what is there, cuts off a torn tail. Nothing is written before [`HotLog::run`].
    ///
    /// # Errors
    /// The directory or a file cannot be read. Damage is no error: it is in [`Recovered`].
    pub fn open(open: OpenLog) -> Result<(Arc<HotLog>, Recovered), LogError> {
        let dir_error = |source| LogError::Io {
            path: open.dir.clone(),
            source,
        };
        open.disk.create_dir_all(&open.dir).map_err(dir_error)?;
        let Scan {
            files,
            places,
            mut found,
        } = recover::scan(&*open.disk, &open.dir, open.segment, &open.history)?;
        if open.layout.is_some() && files.is_empty() && found.damage.is_none() {
            found.damage = Some(format!("{} has no log files", open.dir.display()));
        }
        let history = Arc::new(open.history);
        let log = HotLog {
            disk: open.disk,
            dir: open.dir,
            segment: open.segment,
            settings: open.settings,
            queue: Mutex::new(Queue {
                layout: open.layout,
                history: Arc::clone(&history),
                frames: Vec::new(),
                bytes: 0,
                received_end: found.scl,
                is_writing: false,
                failed: None,
                stop: false,
            }),
            has_work: Condvar::new(),
            is_idle: Condvar::new(),
            contents: RwLock::new(Contents {
                files,
                last_place: places.values().max().copied(),
                places,
                history,
                layout: open.layout,
                begin: found.begin,
                scl: found.scl,
            }),
            hints: Mutex::new(Hints::default()),
            observer: OnceLock::new(),
            thread: Mutex::new(None),
            counters: LogCounters::default(),
        };
        Ok((Arc::new(log), found))
    }

    /// Starts the writer thread.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn run(self: &Arc<HotLog>, name: &str, observer: Weak<dyn LogObserver>) -> io::Result<()> {
        assert!(self.observer.set(observer).is_ok(), "the log runs already");
        let log = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(format!("log {name}"))
            .spawn(move || log.write_until_stopped())?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Writes and syncs what waits, then ends the writer thread.
    pub fn stop(&self) {
        self.queue.lock().stop = true;
        self.has_work.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log's writer thread had panicked");
        }
    }

    /// Everything that ends at or below this is durable.
    pub fn scl(&self) -> Lsn {
        self.contents.read().scl
    }

    /// Records below this are not in the log (any more).
    pub fn begin(&self) -> Lsn {
        self.contents.read().begin
    }

    /// Bytes of all files.
    pub fn bytes_on_disk(&self) -> u64 {
        self.contents.read().files.values().map(|file| file.bytes).sum()
    }

    /// Whether connections have to wait before they bring more.
    pub fn is_full(&self) -> bool {
        self.queue.lock().bytes >= MAX_QUEUED_BYTES
    }

    /// Puts records behind what was received. They are durable when the observer hears so.
    pub fn append(&self, mut batch: Batch) -> Appended {
        let mut queue = self.queue.lock();
        let Some(layout) = queue.layout else {
            return Appended::Malformed("the segment has no base yet".to_owned());
        };
        if queue.failed.is_some() || queue.stop {
            return Appended::Unwritable;
        }
        if batch.end <= queue.received_end {
            return Appended::Known;
        }
        if batch.previous_end > queue.received_end {
            return Appended::Gap;
        }
        let records = match skip_known(layout, &mut batch, queue.received_end) {
            Ok(records) => records,
            Err(why) => return Appended::Malformed(why),
        };
        let epoch_end = queue.history.end_of(batch.epoch);
        if queue.history.epoch_at(batch.previous_end) != Some(batch.epoch)
            || epoch_end.is_none_or(|end| batch.end > end)
        {
            return Appended::Malformed(format!(
                "the log has another epoch than {} between {} and {}",
                batch.epoch, batch.previous_end, batch.end
            ));
        }
        self.counters.records.fetch_add(records, Ordering::Relaxed);
        let frame = Frame {
            epoch: batch.epoch,
            previous_end: batch.previous_end,
            end: batch.end,
            vdl: batch.vdl,
            synced_bytes: 0,
            gaps: batch.gaps,
            records: batch.records,
        };
        queue.received_end = frame.end;
        queue.bytes += frame.stored_bytes();
        queue.frames.push(frame);
        if !queue.is_writing {
            self.has_work.notify_one();
        }
        Appended::Queued { records }
    }

    /// Waits until everything that was received is durable or thrown away. Returns the SCL.
    pub fn drain(&self) -> Lsn {
        let mut queue = self.queue.lock();
        while queue.is_writing || !queue.frames.is_empty() {
            self.is_idle.wait(&mut queue);
        }
        drop(queue);
        self.scl()
    }

    /// The log ends at `to` now, as its history says. It must be drained.
    pub fn cut(&self, to: Lsn) {
        let mut queue = self.queue.lock();
        assert!(
            !queue.is_writing && queue.frames.is_empty(),
            "a cut of a log that grows"
        );
        let mut contents = self.contents.write();
        contents.places.split_off(&to);
        contents.last_place = None;
        contents.scl = contents.scl.min(to);
        self.hints.lock().clear();
        queue.received_end = contents.scl;
    }

    /// The history has changed; what is below the SCL counts under it as before.
    pub fn set_history(&self, history: History) {
        let history = Arc::new(history);
        let mut queue = self.queue.lock();
        queue.history = Arc::clone(&history);
        self.contents.write().history = history;
    }

    /// Whether a write has failed for lack of room.
    pub fn is_waiting_for_space(&self) -> bool {
        self.queue.lock().failed == Some(Failure::NoSpace)
    }

    /// Throws everything away.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        self.drain();
        let mut queue = self.queue.lock();
        let mut contents = self.contents.write();
        // Newest first: what is left after a crash is a log with a shorter end.
        for (_, file) in std::mem::take(&mut contents.files).into_iter().rev() {
            self.disk.remove(&file.path)?;
        }
        self.disk.sync_dir(&self.dir)?;
        contents.places.clear();
        contents.last_place = None;
        contents.history = Arc::default();
        queue.history = Arc::default();
        contents.layout = None;
        queue.layout = None;
        contents.begin = Lsn::INVALID;
        contents.scl = Lsn::INVALID;
        self.hints.lock().clear();
        queue.received_end = Lsn::INVALID;
        Ok(())
    }

    /// Begins an empty log at the end of a base.
    ///
    /// # Errors
    /// The first file cannot be made.
    pub fn begin_at(&self, at: Lsn, layout: WalLayout, history: History) -> io::Result<()> {
        self.clear()?;
        let file = self.create_file(1, at)?;
        let mut queue = self.queue.lock();
        let mut contents = self.contents.write();
        contents.files.insert(1, file);
        let history = Arc::new(history);
        queue.history = Arc::clone(&history);
        queue.layout = Some(layout);
        contents.history = history;
        contents.layout = Some(layout);
        contents.begin = at;
        contents.scl = at;
        queue.received_end = at;
        Ok(())
    }

    /// After a disk was full: whether there is room again. If so, appends are taken again.
    ///
    /// # Errors
    /// There is still no room.
    pub fn try_disk_again(&self) -> io::Result<()> {
        let path = self.dir.join("probe");
        let probe = || {
            let file = self.disk.open(&path, true)?;
            file.write_at(&vec![0; PROBE_BYTES], 0)?;
            file.sync()
        };
        let result = probe();
        self.disk.remove(&path)?;
        result?;
        // A write that found no room may have been done in part: no byte of it stays behind the frames.
        let tail = self
            .contents
            .read()
            .files
            .last_key_value()
            .map(|(_, file)| file.clone());
        if let Some(tail) = tail {
            tail.file.set_len(tail.bytes)?;
            tail.file.sync()?;
            if let Some(mut last) = self.contents.write().files.last_entry() {
                last.get_mut().allocated = tail.bytes;
            }
        }
        self.queue.lock().failed = None;
        Ok(())
    }

    /// Tells the observer if an error of a read means damage.
    pub(super) fn note_damage<T>(&self, read: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &read
            && error.kind() == io::ErrorKind::InvalidData
            && let Some(observer) = self.observer.get().and_then(Weak::upgrade)
        {
            observer.damaged(error);
        }
        read
    }

    fn create_file(&self, number: u64, begun_at: Lsn) -> io::Result<LogFile> {
        let path = file_path(&self.dir, number);
        let file = self.disk.open(&path, true)?;
        let header = FileHeader {
            protection_group: 0,
            number,
            segment: self.segment,
            begun_at,
        };
        file.set_len(0)?;
        file.write_at(&header.to_bytes(), 0)?;
        file.sync()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(LogFile {
            file,
            path,
            bytes: FILE_HEADER_BYTES as u64,
            allocated: FILE_HEADER_BYTES as u64,
        })
    }

    fn write_until_stopped(&self) {
        let _abort = AbortOnPanic;
        let mut buffer = BytesMut::with_capacity(KEPT_BUFFER_BYTES);
        while let Some(frames) = self.wait_for_work() {
            let written = self.write_and_sync(frames, &mut buffer);
            if buffer.capacity() > KEPT_BUFFER_BYTES {
                buffer = BytesMut::with_capacity(KEPT_BUFFER_BYTES);
            }
            let observer = self.observer.get().and_then(Weak::upgrade);
            match written {
                Ok(scl) => {
                    if let Some(observer) = observer {
                        observer.synced(scl);
                    }
                }
                Err(error) => {
                    self.throw_away_queue(&error);
                    if let Some(observer) = observer {
                        observer.failed(&error);
                    }
                }
            }
            let mut queue = self.queue.lock();
            queue.is_writing = false;
            if queue.frames.is_empty() {
                self.is_idle.notify_all();
            }
        }
        self.is_idle.notify_all();
    }

    /// The frames of the next write; `None` when there are none and the log is stopped.
    fn wait_for_work(&self) -> Option<Vec<Frame>> {
        let mut queue = self.queue.lock();
        while queue.frames.is_empty() {
            if queue.stop {
                return None;
            }
            self.has_work.wait(&mut queue);
        }
        queue.is_writing = true;
        let mut bytes = 0;
        let fits = queue.frames.iter().position(|frame| {
            bytes += frame.stored_bytes();
            bytes > MAX_WRITE_BYTES
        });
        let frames = match fits {
            None => std::mem::take(&mut queue.frames),
            Some(count) => queue.frames.drain(..count.max(1)).collect(),
        };
        queue.bytes -= frames.iter().map(Frame::stored_bytes).sum::<usize>();
        Some(frames)
    }

    fn write_and_sync(&self, mut frames: Vec<Frame>, buffer: &mut BytesMut) -> io::Result<Lsn> {
        let (number, tail) = self.tail_with_room()?;
        buffer.clear();
        let mut offsets = Vec::with_capacity(frames.len());
        for frame in &mut frames {
            offsets.push(tail.bytes + buffer.len() as u64);
            frame.synced_bytes = tail.bytes;
            frame.write_to(buffer);
        }
        let allocated = self.allocate_ahead(&tail, buffer.len() as u64);
        let started = Instant::now();
        tail.file.write_at(buffer, tail.bytes)?;
        if !self.settings.sync_delay.is_zero() {
            std::thread::sleep(self.settings.sync_delay);
        }
        tail.file.sync()?;
        self.counters.sync_time.record(started.elapsed());
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters
            .bytes
            .fetch_add(buffer.len() as u64, Ordering::Relaxed);

        let mut contents = self.contents.write();
        for (frame, offset) in frames.iter().zip(offsets) {
            let place = Place { file: number, offset };
            let is_far = contents
                .last_place
                .is_none_or(|last| last.file != number || offset - last.offset >= PLACE_DISTANCE_BYTES);
            if is_far {
                contents.places.insert(frame.previous_end, place);
                contents.last_place = Some(place);
            }
        }
        if let Some(file) = contents.files.get_mut(&number) {
            file.bytes += buffer.len() as u64;
            file.allocated = allocated.max(file.bytes);
        }
        if let Some(last) = frames.last() {
            contents.scl = last.end;
        }
        Ok(contents.scl)
    }

    /// Writes zeros behind the place of a small write, so that most syncs need not record a longer file. Returns how
    /// long the file is then. If there is no room for zeros there may be for frames.
    fn allocate_ahead(&self, tail: &LogFile, bytes: u64) -> u64 {
        let end = tail.bytes + bytes;
        if end <= tail.allocated || bytes >= LARGE_WRITE_BYTES || end >= self.settings.file_bytes {
            return tail.allocated;
        }
        let until = (end + ALLOCATED_AHEAD_BYTES).min(self.settings.file_bytes);
        let zeros = vec![0; (until - tail.allocated) as usize];
        match tail.file.write_at(&zeros, tail.allocated) {
            Ok(()) => tail.allocated + zeros.len() as u64,
            Err(_) => tail.allocated,
        }
    }

    /// The file to write to, a new one if the last one is full.
    fn tail_with_room(&self) -> io::Result<(u64, LogFile)> {
        let (last, scl) = {
            let contents = self.contents.read();
            let last = contents.files.last_key_value();
            (last.map(|(number, file)| (*number, file.clone())), contents.scl)
        };
        let (number, file) = last.ok_or_else(|| io::Error::other("the log has not begun"))?;
        if file.bytes < self.settings.file_bytes {
            return Ok((number, file));
        }
        let number = number + 1;
        let file = self.create_file(number, scl)?;
        self.contents.write().files.insert(number, file.clone());
        Ok((number, file))
    }

    fn throw_away_queue(&self, error: &io::Error) {
        let scl = self.scl();
        let mut queue = self.queue.lock();
        queue.frames.clear();
        queue.bytes = 0;
        queue.received_end = scl;
        queue.failed = Some(if passes(error) {
            Failure::NoSpace
        } else {
            Failure::Final
        });
    }
}

impl std::fmt::Debug for HotLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HotLog")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Whether a failure can pass without the process being started again.
fn passes(error: &io::Error) -> bool {
    is_no_space(error) || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Checks that a batch is the records that it says, and cuts off what is there already. Returns how many
/// records are new.
fn skip_known(layout: WalLayout, batch: &mut Batch, received_end: Lsn) -> Result<u64, String> {
    let mut known_bytes = 0;
    let mut known_records = 0;
    let mut new_records = 0;
    let mut end = batch.previous_end;
    let mut joins = end == received_end;
    for record in split_run(layout, batch.previous_end, &batch.gaps, &batch.records) {
        let record = record.map_err(|error| error.to_string())?;
        if end < received_end {
            known_bytes += record.length;
            known_records += 1;
        } else {
            new_records += 1;
        }
        end = record.end;
        joins |= end == received_end;
    }
    if end != batch.end {
        return Err(format!("the records end at {end}, not at {}", batch.end));
    }
    if !joins {
        return Err(format!(
            "the log ends at {received_end}, inside a record of the batch"
        ));
    }
    if known_records > 0 {
        batch.records = batch.records.slice(known_bytes..);
        if !batch.gaps.is_empty() {
            batch.gaps.drain(..known_records);
        }
        batch.previous_end = received_end;
    }
    Ok(new_records)
}
