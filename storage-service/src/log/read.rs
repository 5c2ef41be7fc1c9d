//! Reading what is durable.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pg_quorum_types::Lsn;
use pg_quorum_wal::split_run;
use smallvec::SmallVec;

use super::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader};
use super::hot_log::{Contents, HotLog};
use super::recover::{Place, counts_until};
use super::{LogPosition, LogRecords, Run};

/// Read at once, in the hope that a whole frame is in it.
const FIRST_READ_BYTES: usize = 16 << 10;
/// Readers that go on where they stopped.
const HINTS: usize = 16;
/// Bytes of records that are read at once.
const MAX_GROUP_BYTES: u64 = 64 << 10;
/// Records that stand closer are read together: copying what is between them costs less than another call.
const MAX_BYTES_BETWEEN: u64 = 2 << 10;
/// Bytes of PostgreSQL's record header, and the place of the checksum in it (`XLogRecord`).
const RECORD_HEADER_BYTES: usize = 24;
const RECORD_CRC_OFFSET: usize = 20;

/// Where readers stopped: the end of the last record, and the frame behind it.
#[derive(Default)]
pub(super) struct Hints(Vec<(Lsn, Place)>);

impl Hints {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn take(&mut self, previous_end: Lsn) -> Option<Place> {
        let index = self.0.iter().position(|(end, _)| *end == previous_end)?;
        Some(self.0.swap_remove(index).1)
    }

    fn put(&mut self, end: Lsn, place: Place) {
        if self.0.len() >= HINTS {
            self.0.remove(0);
        }
        self.0.push((end, place));
    }
}

/// The records of one frame that count, from some position on.
struct Part {
    frame: Frame,
    place: Place,
    records_offset: usize,
    /// The records count up to here.
    until: Lsn,
}

/// Goes through the frames that count in LSN order.
struct Walk<'a> {
    contents: &'a Contents,
    place: Place,
    /// End of the last record that was returned.
    end: Lsn,
}

impl Walk<'_> {
    /// The next frame with records behind `end`; `None` at the end of the log.
    fn next_part(&mut self) -> io::Result<Option<Part>> {
        while self.end < self.contents.scl {
            let Some(file) = self.contents.files.get(&self.place.file) else {
                return Err(corrupt(format!(
                    "the log ends before its SCL {}",
                    self.contents.scl
                )));
            };
            if self.place.offset >= file.bytes {
                self.place = Place {
                    file: self.place.file + 1,
                    offset: super::frame::FILE_HEADER_BYTES as u64,
                };
                continue;
            }
            let place = self.place;
            let mut bytes = BytesMut::zeroed(FIRST_READ_BYTES.min((file.bytes - place.offset) as usize));
            let filled = file.file.read_at(&mut bytes, place.offset)?;
            bytes.truncate(filled);
            let wrong = || {
                corrupt(format!(
                    "{} at {}: no valid frame",
                    file.path.display(),
                    place.offset
                ))
            };
            let header = FrameHeader::parse(&bytes).ok_or_else(wrong)?;
            if header.frame_bytes as u64 > file.bytes - place.offset {
                return Err(wrong());
            }
            self.place.offset += header.frame_bytes as u64;
            let until = match counts_until(&self.contents.history, &header) {
                Some(until) if until > self.end => until,
                _ => continue,
            };
            if header.previous_end > self.end {
                return Err(corrupt(format!(
                    "{} at {}: records between {} and {} are missing",
                    file.path.display(),
                    place.offset,
                    self.end,
                    header.previous_end
                )));
            }
            let have = bytes.len().min(header.frame_bytes);
            bytes.resize(header.frame_bytes, 0);
            let missing = header.frame_bytes - have;
            if missing > 0
                && file
                    .file
                    .read_at(&mut bytes[have..], place.offset + have as u64)?
                    != missing
            {
                return Err(wrong());
            }
            let frame = header.frame(&bytes.freeze()).ok_or_else(wrong)?;
            return Ok(Some(Part {
                frame,
                place,
                records_offset: header.records_offset(),
                until,
            }));
        }
        Ok(None)
    }
}

impl HotLog {
    /// Adds durable records to `records` from the one that follows `previous_end` on: at least one if there is one,
    /// else of about `max_bytes`. Records behind a cut are never returned.
    ///
    /// # Errors
    /// `previous_end` is below the log's begin (`NotFound`), or the log is damaged there (`InvalidData`).
    pub fn read_records(
        &self,
        previous_end: Lsn,
        max_bytes: usize,
        records: &mut LogRecords,
    ) -> io::Result<()> {
        self.note_damage(self.records_behind(previous_end, max_bytes, records))
    }

    /// Durable records of one epoch behind `previous_end`, not beyond `until`; `None` if there are none.
    ///
    /// # Errors
    /// As [`HotLog::read_records`].
    pub fn read_run(&self, previous_end: Lsn, until: Lsn, max_bytes: usize) -> io::Result<Option<Run>> {
        self.note_damage(self.run_behind(previous_end, until, max_bytes))
    }

    /// Hands `take` single records' bytes, from positions that [`HotLog::read_records`] gave, until it returns
    /// false. Their checksums are compared. Rising positions that are close together are read at once.
    ///
    /// `buffer` is memory that is kept from one call to the next; what is in it does not matter.
    ///
    /// # Errors
    /// The file is trimmed (`NotFound`), or other bytes are there (`InvalidData`): at the record behind the last
    /// one that was handed out.
    pub fn read_each(
        &self,
        positions: &mut dyn Iterator<Item = LogPosition>,
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        self.note_damage(self.each_record(positions, buffer, take))
    }

    fn records_behind(
        &self,
        previous_end: Lsn,
        max_bytes: usize,
        records: &mut LogRecords,
    ) -> io::Result<()> {
        let contents = self.contents.read();
        let (Some(mut walk), Some(layout)) = (self.walk_from(&contents, previous_end)?, contents.layout)
        else {
            return Ok(());
        };
        let mut bytes = 0;
        while bytes < max_bytes
            && let Some(part) = walk.next_part()?
        {
            let mut end = part.frame.previous_end;
            let offset = part.place.offset + part.records_offset as u64;
            let first_part = records.add_parts(std::slice::from_ref(&part.frame.records));
            for record in split_run(layout, end, &part.frame.gaps, &part.frame.records) {
                let record = record.map_err(|error| corrupt(error.to_string()))?;
                if end >= part.until {
                    break;
                }
                let begins_at = end;
                end = record.end;
                if begins_at >= walk.end {
                    bytes += record.length;
                    let position = position(part.place.file, offset + record.at as u64, record.length)?;
                    records.push(first_part, &record, position);
                }
            }
            walk.end = walk.end.max(end);
        }
        self.hints.lock().put(walk.end, walk.place);
        Ok(())
    }

    fn run_behind(&self, previous_end: Lsn, until: Lsn, max_bytes: usize) -> io::Result<Option<Run>> {
        let contents = self.contents.read();
        let (Some(mut walk), Some(layout)) = (self.walk_from(&contents, previous_end)?, contents.layout)
        else {
            return Ok(None);
        };
        let mut run: Option<Run> = None;
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        loop {
            let before = walk.place;
            if walk.end >= until || bytes >= max_bytes {
                break;
            }
            let Some(part) = walk.next_part()? else { break };
            if run.as_ref().is_some_and(|run| run.epoch != part.frame.epoch) {
                walk.place = before;
                break;
            }
            let run = run.get_or_insert_with(|| Run {
                epoch: part.frame.epoch,
                previous_end,
                end: previous_end,
                gaps: Vec::new(),
                records: Bytes::new(),
            });
            let mut end = part.frame.previous_end;
            let mut wanted = 0..0;
            for (index, record) in split_run(layout, end, &part.frame.gaps, &part.frame.records).enumerate() {
                let record = record.map_err(|error| corrupt(error.to_string()))?;
                if end >= part.until || record.end > until {
                    break;
                }
                if end >= walk.end {
                    if wanted.is_empty() {
                        wanted.start = record.at;
                    }
                    wanted.end = record.at + record.length;
                    run.gaps.extend(part.frame.gaps.get(index));
                    run.end = record.end;
                }
                end = record.end;
            }
            if wanted.is_empty() {
                // `until` is no end of a record, or the records end here.
                walk.place = part.place;
                break;
            }
            if run.end < part.until {
                walk.place = part.place; // the rest of this frame comes next
            }
            walk.end = run.end;
            bytes += wanted.len();
            pieces.push(part.frame.records.slice(wanted));
        }
        if run.as_ref().is_none_or(|run| run.end == run.previous_end) {
            return Ok(None);
        }
        self.hints.lock().put(walk.end, walk.place);
        Ok(run.map(|run| Run {
            records: concat(pieces),
            ..run
        }))
    }

    fn each_record(
        &self,
        positions: &mut dyn Iterator<Item = LogPosition>,
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        let mut group = SmallVec::<[LogPosition; 16]>::new();
        let mut next = positions.next();
        while let Some(first) = next {
            group.clear();
            let from = u64::from(first.offset);
            let mut end = from;
            while let Some(position) = next.filter(|position| joins(first, end, *position)) {
                end = u64::from(position.offset) + u64::from(position.length);
                group.push(position);
                next = positions.next();
            }
            let length = (end - from) as usize;
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            let filled = self.read_file(first.file, from, &mut buffer[..length])?;
            for position in &group {
                let at = (u64::from(position.offset) - from) as usize;
                let record = filled.get(at..at + position.length as usize);
                let record = record.filter(|record| is_record(record)).ok_or_else(|| {
                    corrupt(format!(
                        "log file {} at {}: no valid record of {} bytes",
                        position.file, position.offset, position.length
                    ))
                })?;
                if !take(record) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns what of the buffer could be filled.
    fn read_file<'b>(&self, number: u32, offset: u64, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let file = {
            let contents = self.contents.read();
            let file = contents.files.get(&u64::from(number)).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("log file {number} is trimmed"))
            })?;
            Arc::clone(&file.file)
        };
        let filled = file.read_at(buffer, offset)?;
        Ok(&buffer[..filled])
    }

    fn walk_from<'a>(&self, contents: &'a Contents, previous_end: Lsn) -> io::Result<Option<Walk<'a>>> {
        if previous_end >= contents.scl {
            return Ok(None);
        }
        if previous_end < contents.begin {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the log begins at {}, {previous_end} is trimmed", contents.begin),
            ));
        }
        let hint = self.hints.lock().take(previous_end);
        let nearest = || {
            let before = contents.places.range(..=previous_end).next_back();
            before.map(|(_, place)| *place)
        };
        let place = hint
            .or_else(nearest)
            .ok_or_else(|| corrupt(format!("no frame holds {previous_end}")))?;
        Ok(Some(Walk {
            contents,
            place,
            end: previous_end,
        }))
    }
}

/// Whether a record is read in one go with `first`, which others may stand behind, up to `end`.
fn joins(first: LogPosition, end: u64, position: LogPosition) -> bool {
    let (from, offset) = (u64::from(first.offset), u64::from(position.offset));
    if end == from {
        return true; // the first one itself
    }
    position.file == first.file
        && offset >= end
        && offset - end <= MAX_BYTES_BETWEEN
        && offset + u64::from(position.length) - from <= MAX_GROUP_BYTES
}

fn position(file: u64, offset: u64, length: usize) -> io::Result<LogPosition> {
    match (u32::try_from(file), u32::try_from(offset), u32::try_from(length)) {
        (Ok(file), Ok(offset), Ok(length)) => Ok(LogPosition { file, offset, length }),
        _ => Err(corrupt(format!(
            "a record of {length} bytes at {offset} of log file {file}: further than any file goes"
        ))),
    }
}

fn corrupt(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn concat(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

/// Whether the bytes are one whole record with the right checksum (`ValidXLogRecord`, 15.18).
fn is_record(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return false;
    };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let body = crc32c::crc32c(&bytes[RECORD_HEADER_BYTES..]);
    word(0) as usize == bytes.len()
        && word(RECORD_CRC_OFFSET) == crc32c::crc32c_append(body, &header[..RECORD_CRC_OFFSET])
}

const _: () = assert!(FRAME_HEADER_BYTES < FIRST_READ_BYTES);
