//! What of the log's files counts after a restart.
//!
//! Frames are read in file order with a cursor, the end of the last record that counts. A frame counts from
//! its first record on if the history's epoch at its previous end is the frame's; it counts up to where the
//! history's next epoch begins. A frame that begins below the cursor repeats what is there. One that
//! counts and begins above the cursor would leave a hole: damage.
//!
//! ```text
//! history      e1: 0         e2: 60
//! file         [e1 0..40][e1 40..100][e2 60..80] torn
//! counts        0....40    40...60     60....80            the SCL is 80
//! ```
//!
//! The end of the last file may be torn: what was being written when the process died. It is cut off. It is
//! damage, not a tail, when a frame behind it was written after the torn place had been synced. Every other file
//! was synced as a whole before the next one was begun.
//!
//! What is whole at the end may have been written and not synced when the process was killed: it is in the kernel's
//! memory only, or a failed sync has lost it without a trace. So the last group of frames is written and synced
//! once more before anybody hears of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pg_quorum_types::{History, Lsn, SegmentId};

use super::frame::{FILE_HEADER_BYTES, FileHeader, Frame, FrameHeader};
use crate::disk::{Disk, DiskFile};

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What was found in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Where the log begins: records below it were trimmed, or are in the base.
    pub begin: Lsn,
    pub scl: Lsn,
    /// The highest VDL that a frame bears.
    pub vdl: Lsn,
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
    /// Why the segment must not vote.
    pub damage: Option<String>,
}

/// A log file that is open.
#[derive(Clone)]
pub(super) struct LogFile {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    /// Bytes that hold frames, all synced.
    pub bytes: u64,
    /// Bytes of the file: zeros may stand behind the frames.
    pub allocated: u64,
}

/// Where a frame begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub file: u64,
    pub offset: u64,
}

/// Frames between two that are remembered.
pub(super) const PLACE_DISTANCE_BYTES: u64 = 64 << 10;

/// Up to where a frame's records count, `None` if none does.
pub(super) fn counts_until(history: &History, frame: &FrameHeader) -> Option<Lsn> {
    if history.epoch_at(frame.previous_end) != Some(frame.epoch) {
        return None;
    }
    Some(frame.end.min(history.end_of(frame.epoch)?))
}

pub(super) fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

pub(super) fn file_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".log")?, 16).ok()
}

/// The result of reading all files.
pub(super) struct Scan {
    pub files: BTreeMap<u64, LogFile>,
    /// Some of the frames that count, by previous end; of each file the first one.
    pub places: BTreeMap<Lsn, Place>,
    pub found: Recovered,
}

struct Scanner<'a> {
    history: &'a History,
    segment: SegmentId,
    scan: Scan,
    /// End of the last record that counts; `None` before the first file.
    cursor: Option<Lsn>,
    last_place: Option<Place>,
    /// Offset in the file being read from which on frames may not be synced: all before was when they were written.
    group_begin: usize,
}

/// Reads the whole log and cuts off a torn tail.
pub(super) fn scan(
    disk: &dyn Disk,
    dir: &Path,
    segment: SegmentId,
    history: &History,
) -> Result<Scan, LogError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| LogError::Io { path, source }
    };
    let names = disk.list(dir).map_err(io_error(dir))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| file_number(name)).collect();
    numbers.sort_unstable();

    let mut scanner = Scanner {
        history,
        segment,
        scan: Scan {
            files: BTreeMap::new(),
            places: BTreeMap::new(),
            found: Recovered {
                begin: Lsn::INVALID,
                scl: Lsn::INVALID,
                vdl: Lsn::INVALID,
                torn_bytes: 0,
                damage: None,
            },
        },
        cursor: None,
        last_place: None,
        group_begin: FILE_HEADER_BYTES,
    };
    for (index, &number) in numbers.iter().enumerate() {
        let path = file_path(dir, number);
        if index > 0 && numbers[index - 1] + 1 != number {
            scanner.damage(format!("{} is missing", file_path(dir, number - 1).display()));
        }
        let file = disk.open(&path, false).map_err(io_error(&path))?;
        let is_last = index + 1 == numbers.len();
        let kept = scanner
            .read_file(number, &file, &path, is_last)
            .map_err(io_error(&path))?;
        if !kept {
            disk.remove(&path).map_err(io_error(&path))?;
            disk.sync_dir(dir).map_err(io_error(dir))?;
        }
        if scanner.scan.found.damage.is_some() {
            break;
        }
    }
    if !numbers.is_empty() {
        disk.sync_dir(dir).map_err(io_error(dir))?;
    }
    let cursor = scanner.cursor.unwrap_or(Lsn::INVALID);
    let mut scan = scanner.scan;
    scan.found.scl = cursor;
    scan.found.begin = scan.places.keys().next().copied().unwrap_or(cursor);
    Ok(scan)
}

impl Scanner<'_> {
    fn damage(&mut self, message: String) {
        self.scan.found.damage.get_or_insert(message);
    }

    /// Reads one file. False if it holds nothing, not even a header: it was just being made.
    fn read_file(
        &mut self,
        number: u64,
        file: &Arc<dyn DiskFile>,
        path: &Path,
        is_last: bool,
    ) -> io::Result<bool> {
        let mut content = vec![0; file.size()? as usize];
        let filled = file.read_at(&mut content, 0)?;
        content.truncate(filled);
        let content = Bytes::from(content);
        let header = match content.first_chunk::<FILE_HEADER_BYTES>() {
            Some(bytes) => FileHeader::from_bytes(bytes).map_err(|error| error.to_string()),
            None => Err("it is shorter than a file header".to_owned()),
        };
        let header = match header {
            Ok(header) if header.segment == self.segment && header.number == number => header,
            Ok(_) => {
                self.damage(format!("{} belongs to another log", path.display()));
                return Ok(true);
            }
            Err(_) if is_last && content.len() <= FILE_HEADER_BYTES => return Ok(false),
            Err(why) => {
                self.damage(format!("{}: {why}", path.display()));
                return Ok(true);
            }
        };
        if self.scan.places.is_empty() {
            // Of a log whose older files were trimmed the cursor is where the first frame that counts begins.
            self.cursor = Some(header.begun_at);
        }
        let bytes = self.read_frames(number, &content, path);
        let bytes = self.judge_end(&content, bytes, file, path, is_last)?;
        if is_last && self.scan.found.damage.is_none() {
            let from = self.group_begin.min(bytes);
            file.write_at(&content[from..bytes], from as u64)?;
            file.sync()?;
        }
        self.scan.files.insert(
            number,
            LogFile {
                file: Arc::clone(file),
                path: path.to_owned(),
                bytes: bytes as u64,
                allocated: file.size()?,
            },
        );
        Ok(true)
    }

    /// Reads frames as long as they are whole. Returns where they end.
    fn read_frames(&mut self, number: u64, content: &Bytes, path: &Path) -> usize {
        let mut offset = FILE_HEADER_BYTES;
        let mut first_in_file = true;
        self.group_begin = FILE_HEADER_BYTES;
        while let Some((header, frame)) = frame_at(content, offset) {
            self.group_begin = (frame.synced_bytes as usize).clamp(FILE_HEADER_BYTES, offset);
            if let Some(until) = counts_until(self.history, &header) {
                let mut cursor = self.cursor.unwrap_or(frame.previous_end);
                if self.scan.places.is_empty() {
                    cursor = cursor.min(frame.previous_end);
                }
                if frame.previous_end > cursor {
                    self.damage(format!(
                        "{} at {offset}: records from {} on, but the log before ends at {cursor}",
                        path.display(),
                        frame.previous_end
                    ));
                    return offset;
                }
                let place = Place {
                    file: number,
                    offset: offset as u64,
                };
                let far = self
                    .last_place
                    .is_none_or(|last| place.offset - last.offset.min(place.offset) >= PLACE_DISTANCE_BYTES);
                if until > cursor {
                    if first_in_file || far {
                        self.scan.places.insert(frame.previous_end, place);
                        self.last_place = Some(place);
                        first_in_file = false;
                    }
                    cursor = until;
                }
                self.cursor = Some(cursor);
                self.scan.found.vdl = self.scan.found.vdl.max(frame.vdl);
            }
            offset += header.frame_bytes;
        }
        offset
    }

    /// Behind the last whole frame: nothing, a torn tail, or damage. Returns the bytes to keep.
    fn judge_end(
        &mut self,
        content: &Bytes,
        end: usize,
        file: &Arc<dyn DiskFile>,
        path: &Path,
        is_last: bool,
    ) -> io::Result<usize> {
        let rest = &content[end..];
        if self.scan.found.damage.is_some() || rest.iter().all(|byte| *byte == 0) {
            return Ok(end);
        }
        if !is_last {
            self.damage(format!(
                "{} is damaged at {end}: a frame with a wrong checksum, and the log goes on behind it",
                path.display()
            ));
            return Ok(end);
        }
        if let Some(later) = frame_written_after(content, end) {
            self.damage(format!(
                "{} is damaged at {end}: a frame with a wrong checksum, and the log goes on at {later}",
                path.display()
            ));
            return Ok(end);
        }
        self.scan.found.torn_bytes = rest.len() as u64;
        file.set_len(end as u64)?;
        file.sync()?;
        Ok(end)
    }
}

/// The whole frame at `offset`, if one is there.
fn frame_at(content: &Bytes, offset: usize) -> Option<(FrameHeader, Frame)> {
    let header = FrameHeader::parse(content.get(offset..)?)?;
    let bytes = content.get(offset..offset.checked_add(header.frame_bytes)?)?;
    let frame = header.frame(&content.slice_ref(bytes))?;
    Some((header, frame))
}

/// Looks for a whole frame behind `bad` that was written when the byte at `bad` had been synced.
fn frame_written_after(content: &Bytes, bad: usize) -> Option<usize> {
    (bad + 1..content.len()).find(|&offset| {
        let plausible = FrameHeader::parse(&content[offset..])
            .is_some_and(|header| header.synced_bytes > bad as u64 && header.synced_bytes <= offset as u64);
        plausible && frame_at(content, offset).is_some()
    })
}
