//! Records as bytes, and runs of them as they are shipped and stored.

use bytes::Bytes;
use pg_quorum_types::Lsn;

use crate::framing::WalLayout;
use crate::v15::{RECORD_CRC_OFFSET, RECORD_HEADER_BYTES};
use crate::{Rmgr, WalError};

/// One WAL record, not looked into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawRecord {
    /// First byte.
    pub start: Lsn,
    /// Exclusive end, padded to eight; of a segment switch the next segment's start.
    pub end: Lsn,
    /// The record without padding and page headers: `xl_tot_len` bytes.
    pub bytes: Bytes,
}

impl RawRecord {
    /// Start of the record before (`xl_prev`).
    pub fn back_link(&self) -> Lsn {
        match self.bytes.get(8..16).and_then(|link| link.first_chunk::<8>()) {
            Some(link) => Lsn(u64::from_le_bytes(*link)),
            None => Lsn::INVALID,
        }
    }

    /// Compares the record with its checksum (`ValidXLogRecord`, 15.18).
    ///
    /// # Errors
    /// A checksum that differs, a record shorter than its header.
    pub fn check_crc(&self) -> Result<(), WalError> {
        let Some(header) = self.bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Err(WalError::ShortRecord {
                lsn: self.start,
                offset: 0,
                wanted: RECORD_HEADER_BYTES,
                available: self.bytes.len(),
            });
        };
        let found = u32::from_le_bytes([header[20], header[21], header[22], header[23]]);
        let expected = record_crc(&self.bytes);
        if found != expected {
            return Err(WalError::BadChecksum {
                lsn: self.start,
                found,
                expected,
            });
        }
        Ok(())
    }

    /// Checks what `ValidXLogRecordHeader` (15.18) checks without a look at the record before: length and
    /// resource manager.
    pub(crate) fn check_header(lsn: Lsn, header: &[u8; RECORD_HEADER_BYTES]) -> Result<(), WalError> {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if (length as usize) < RECORD_HEADER_BYTES {
            return Err(WalError::BadRecord {
                lsn,
                offset: 0,
                problem: "a record length below that of the header",
            });
        }
        match Rmgr::from_id(header[17]) {
            Some(_) => Ok(()),
            None => Err(WalError::UnknownResourceManager { lsn, id: header[17] }),
        }
    }
}

/// Where a record stands, in the log and in its run's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InRun {
    /// Its first byte.
    pub start: Lsn,
    pub end: Lsn,
    /// Which of the run's parts it is in.
    pub part: usize,
    /// Index in the part, where it has `length` bytes.
    pub at: usize,
    pub length: usize,
}

/// The parts of a record that is made here.
pub(crate) struct NewRecord<'a> {
    pub start: Lsn,
    pub prev: Lsn,
    pub xid: u32,
    pub rmgr: Rmgr,
    pub info: u8,
    /// Everything behind the header.
    pub body: &'a [u8],
}

impl NewRecord<'_> {
    /// The record with its length and checksum.
    ///
    /// # Errors
    /// A place where no record starts.
    pub(crate) fn encode(&self, layout: WalLayout) -> Result<RawRecord, WalError> {
        let length = RECORD_HEADER_BYTES + self.body.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&self.xid.to_le_bytes());
        bytes.extend_from_slice(&self.prev.0.to_le_bytes());
        bytes.extend_from_slice(&[self.info, self.rmgr as u8, 0, 0]);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(self.body);
        let crc = record_crc(&bytes);
        bytes[RECORD_CRC_OFFSET..RECORD_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        Ok(RawRecord {
            start: self.start,
            end: layout.record_end(self.start, &bytes)?,
            bytes: bytes.into(),
        })
    }
}

/// The checksum of a record: its body first, then the header up to the checksum. `record` holds a header.
pub(crate) fn record_crc(record: &[u8]) -> u32 {
    let body = crc32c::crc32c(&record[RECORD_HEADER_BYTES..]);
    crc32c::crc32c_append(body, &record[..RECORD_CRC_OFFSET])
}

/// Finds the records of a run, whose one part is `run`: they stand one behind the other without padding and page headers.
///
/// `previous_end` is the end of the record before the first one. `gaps` is empty, or has for each record
/// how many bytes it starts behind the place that follows from the one before it. Checksums are not
/// compared.
pub fn split_run<'a>(
    layout: WalLayout,
    previous_end: Lsn,
    gaps: &'a [u64],
    run: &'a [u8],
) -> impl Iterator<Item = Result<InRun, WalError>> + 'a {
    RunSplitter {
        layout,
        previous_end,
        gaps: (!gaps.is_empty()).then_some(gaps),
        run,
        offset: 0,
    }
}

struct RunSplitter<'a> {
    layout: WalLayout,
    previous_end: Lsn,
    gaps: Option<&'a [u64]>,
    run: &'a [u8],
    offset: usize,
}

impl RunSplitter<'_> {
    fn split_next(&mut self) -> Result<InRun, WalError> {
        let follows = self.layout.next_record_start(self.previous_end);
        let gap = match &mut self.gaps {
            None => 0,
            Some(gaps) => match gaps.split_first() {
                Some((gap, rest)) => {
                    *gaps = rest;
                    *gap
                }
                None => {
                    return Err(WalError::BadRecord {
                        lsn: follows,
                        offset: 0,
                        problem: "a run with fewer gaps than records",
                    });
                }
            },
        };
        let start = Lsn(follows.0.checked_add(gap).ok_or(WalError::BadPosition {
            lsn: follows,
            what: "start",
        })?);
        let rest = &self.run[self.offset..];
        let end = self.layout.record_end(start, rest)?;
        let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if rest.len() < length {
            return Err(WalError::ShortRecord {
                lsn: start,
                offset: rest.len(),
                wanted: length - rest.len(),
                available: 0,
            });
        }
        let at = self.offset;
        self.offset += length;
        self.previous_end = end;
        Ok(InRun {
            start,
            end,
            part: 0,
            at,
            length,
        })
    }
}

impl Iterator for RunSplitter<'_> {
    type Item = Result<InRun, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.run.len() {
            let unused_gaps = self.gaps.take().is_some_and(|gaps| !gaps.is_empty());
            return unused_gaps.then_some(Err(WalError::BadRecord {
                lsn: self.previous_end,
                offset: 0,
                problem: "a run with more gaps than records",
            }));
        }
        let split = self.split_next();
        if split.is_err() {
            self.offset = self.run.len();
            self.gaps = None;
        }
        Some(split)
    }
}
