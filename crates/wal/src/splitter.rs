//! From WAL as PostgreSQL writes it to records.
//!
//! Bytes come in pieces of any size, from the end of a record on; records come out one at a time, each
//! checked: page headers, back link, checksum. What is not there yet is waited for, what is wrong is an error. A
//! record that was never finished is left out where the log goes on behind it (`XLogDecodeNextRecord`,
//! xlogreader.c, 15.18: a page that bears `XLP_FIRST_IS_OVERWRITE_CONTRECORD`).

use bytes::{Buf, Bytes, BytesMut};
use pg_quorum_types::{ClusterFacts, Lsn};

use crate::WalError;
use crate::framing::{WalLayout, is_segment_switch};
use crate::page_header::{self, PageStart};
use crate::raw_record::{InRun, RawRecord, record_crc};
use crate::v15::{RECORD_HEADER_BYTES, WAL_PAGE_BYTES};

/// PostgreSQL 15 cannot read a longer record back (`MaxAllocSize`).
const MAX_RECORD_BYTES: u32 = 0x3FFF_FFFF;

/// Cuts a stream of WAL bytes into records.
pub struct WalSplitter {
    facts: ClusterFacts,
    layout: WalLayout,
    /// Bytes that were fed and not used; the first one stands at `at`.
    input: Bytes,
    at: Lsn,
    /// Start of the record that was returned last, if it is known.
    previous_start: Option<Lsn>,
    state: State,
    /// What was returned last by [`WalSplitter::advance_run`].
    run: RunBuffer,
}

/// Records as [`WalSplitter::advance_run`] finds them.
#[derive(Default)]
struct RunBuffer {
    /// Those that stand whole on a page, or one alone.
    parts: Vec<Bytes>,
    records: Vec<InRun>,
}

impl RunBuffer {
    fn clear(&mut self) {
        self.parts.clear();
        self.records.clear();
    }
}

/// Consecutive records, whole and checked. See [`WalSplitter::advance_run`].
pub struct RecordRun<'a>(&'a RunBuffer);

impl<'a> RecordRun<'a> {
    /// The memory that its records are in.
    pub fn parts(&self) -> &'a [Bytes] {
        &self.0.parts
    }

    pub fn places(&self) -> &'a [InRun] {
        &self.0.records
    }

    /// Each record: its first byte, its end, and its bytes without padding and page headers, as in [`RawRecord`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Lsn, Lsn, &'a [u8])> + use<'a> {
        let run = self.0;
        run.records.iter().map(move |record| {
            (
                record.start,
                record.end,
                &run.parts[record.part][record.at..record.at + record.length],
            )
        })
    }
}

enum State {
    /// `at` is the end of a record, or of a page on which the last record was left unfinished.
    Between { is_behind_unfinished: bool },
    /// Inside a record.
    Inside(Partial),
    /// Whole, but for padding, or the rest of the segment behind a switch.
    Padding { record: RawRecord },
    /// Wrong bytes were met.
    Failed(WalError),
}

impl State {
    const BETWEEN: State = State::Between {
        is_behind_unfinished: false,
    };
}

/// What a page begins with on which a record should go on.
enum Continuation {
    Follows,
    /// The page is not there yet.
    IsMissing,
    /// The server crashed inside the record, and the log goes on behind it.
    NeverCame,
}

/// A record that goes over a page's end.
struct Partial {
    start: Lsn,
    length: u32,
    bytes: BytesMut,
}

impl WalSplitter {
    /// `previous_end` is the end of a record: where the first byte that is fed stands.
    pub fn new(facts: ClusterFacts, previous_end: Lsn) -> WalSplitter {
        WalSplitter {
            layout: WalLayout::new(&facts),
            facts,
            input: Bytes::new(),
            at: previous_end,
            previous_start: None,
            state: State::BETWEEN,
            run: RunBuffer::default(),
        }
    }

    /// Makes the splitter demand that the next record's back link is `start`. Without it the first back link
    /// must only be lower than the record.
    #[must_use]
    pub fn with_previous_start(mut self, start: Lsn) -> WalSplitter {
        self.previous_start = Some(start);
        self
    }

    /// The bytes that follow those fed before. They are copied only if some of those are left: not of whole pages.
    pub fn feed(&mut self, bytes: Bytes) {
        self.input = match self.input.is_empty() {
            true => bytes,
            false => [&self.input[..], &bytes].concat().into(),
        };
    }

    /// Whether zeros stand where the next record would begin: of a log that nobody writes to, that is the end.
    pub fn stands_at_zeros(&self) -> bool {
        let header_bytes = match self.at.0 % WAL_PAGE_BYTES {
            0 => self.layout.page_header_bytes(self.at) as usize,
            _ => 0,
        };
        matches!(self.state, State::Between { .. })
            && self.input.get(header_bytes..header_bytes + 4) == Some(&[0; 4])
    }

    /// Where the next byte that is fed stands.
    pub fn fed_up_to(&self) -> Lsn {
        self.at + self.input.len() as u64
    }

    /// The next record, `None` if its bytes up to its end (padding included) are not all there, or if zeros
    /// stand where it would begin.
    ///
    /// # Errors
    /// Bytes that are no valid WAL of this cluster. The error stays: every later call returns it again.
    pub fn next_record(&mut self) -> Result<Option<RawRecord>, WalError> {
        if let Some(record) = self.whole_record() {
            return Ok(Some(record));
        }
        self.advance_or_fail()
    }

    /// Goes on to the next records, as many as there are bytes of: the same as [`WalSplitter::next_record`] returns
    /// one by one, without a reference count for each. If it is true, [`WalSplitter::run`] has them.
    ///
    /// # Errors
    /// As for [`WalSplitter::next_record`].
    pub fn advance_run(&mut self) -> Result<bool, WalError> {
        self.run.clear();
        loop {
            let length = self.whole_records(usize::MAX);
            if length > 0 {
                let part = self.take(length);
                self.run.parts.push(part);
                continue;
            }
            match self.advance_or_fail() {
                Ok(Some(record)) => self.push_to_run(record),
                Ok(None) => break,
                Err(error) if self.run.records.is_empty() => return Err(error),
                Err(_) => break, // it stays
            }
        }
        Ok(!self.run.records.is_empty())
    }

    fn push_to_run(&mut self, record: RawRecord) {
        self.run.records.push(InRun {
            start: record.start,
            end: record.end,
            part: self.run.parts.len(),
            at: 0,
            length: record.bytes.len(),
        });
        self.run.parts.push(record.bytes);
    }

    /// What [`WalSplitter::advance_run`] has just found.
    pub fn run(&self) -> RecordRun<'_> {
        RecordRun(&self.run)
    }

    /// One of those that [`WalSplitter::whole_records`] finds. `None` says nothing about the others.
    fn whole_record(&mut self) -> Option<RawRecord> {
        self.run.clear();
        let padded = self.whole_records(1);
        let InRun {
            start, end, length, ..
        } = self.run.records.pop()?;
        let bytes = self.take(length);
        self.consume(padded - length);
        Some(RawRecord { start, end, bytes })
    }

    /// Nearly every record: on one page, not the first one there, whole with its padding, and right. Adds those that
    /// follow here to the run, at most so many, and returns their bytes, which are still in the input: its next part.
    fn whole_records(&mut self, most: usize) -> usize {
        let State::Between {
            is_behind_unfinished: false,
        } = self.state
        else {
            return 0;
        };
        let (Some(mut previous), in_page) = (self.previous_start, self.at.0 % WAL_PAGE_BYTES) else {
            return 0;
        };
        // Where no record starts, or the page's header does.
        if self.layout.check_start(self.at).is_err() || in_page == 0 {
            return 0;
        }
        let on_page = self.input.len().min((WAL_PAGE_BYTES - in_page) as usize);
        let input = &self.input[..on_page];
        let part = self.run.parts.len();
        let mut at = 0;
        while self.run.records.len() < most
            && let Some(header) = input[at..].first_chunk::<RECORD_HEADER_BYTES>()
        {
            let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(record) = input[at..].get(..length) else {
                break;
            };
            // The page's end is a multiple of eight as well.
            let padded = length.next_multiple_of(8);
            let is_valid = at + padded <= on_page
                && RawRecord::check_header(self.at, header).is_ok()
                && !is_segment_switch(header)
                && header[8..16] == previous.0.to_le_bytes()
                && header[20..24] == record_crc(record).to_le_bytes();
            if !is_valid {
                break;
            }
            previous = self.at + at as u64;
            self.run.records.push(InRun {
                start: previous,
                end: previous + padded as u64,
                part,
                at,
                length,
            });
            at += padded;
        }
        self.previous_start = Some(previous);
        at
    }

    /// An error stays.
    fn advance_or_fail(&mut self) -> Result<Option<RawRecord>, WalError> {
        let result = self.advance();
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    fn advance(&mut self) -> Result<Option<RawRecord>, WalError> {
        loop {
            match std::mem::replace(&mut self.state, State::BETWEEN) {
                State::Failed(error) => return Err(error),
                State::Between { is_behind_unfinished } => {
                    if !self.begin_record(is_behind_unfinished)? {
                        self.state = State::Between { is_behind_unfinished };
                        return Ok(None);
                    }
                }
                State::Inside(partial) => {
                    if !self.continue_record(partial)? {
                        return Ok(None);
                    }
                }
                State::Padding { record } => {
                    let missing = record.end.bytes_since(self.at);
                    let skipped = missing.min(self.input.len() as u64);
                    self.consume(skipped as usize);
                    if skipped < missing {
                        self.state = State::Padding { record };
                        return Ok(None);
                    }
                    self.previous_start = Some(record.start);
                    return Ok(Some(record));
                }
            }
        }
    }

    /// Looks for a record at `at`; false if there are not enough bytes to begin it.
    fn begin_record(&mut self, is_behind_unfinished: bool) -> Result<bool, WalError> {
        self.layout.check_end(self.at)?;
        let header_bytes = match self.at.0 % WAL_PAGE_BYTES {
            0 => self.layout.page_header_bytes(self.at) as usize,
            _ => 0,
        };
        // A record's length stands on the page on which it begins: both are multiples of eight.
        let Some(length) = self.input.get(header_bytes..header_bytes + 4) else {
            return Ok(false);
        };
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        let start = self.at + header_bytes as u64;
        if header_bytes > 0 {
            if self.input[..header_bytes].iter().all(|byte| *byte == 0) {
                return Ok(false);
            }
            match page_header::parse(&self.facts, self.at, &self.input[..header_bytes])? {
                PageStart::Record if !is_behind_unfinished => {}
                PageStart::Overwrite if is_behind_unfinished => {}
                PageStart::Record | PageStart::Overwrite => {
                    return Err(
                        self.bad_page(self.at, "a record overwrites one, and there is none to overwrite")
                    );
                }
                PageStart::Continuation { .. } => {
                    return Err(self.bad_page(self.at, "the rest of a record where none is expected"));
                }
            }
        }
        if length == 0 {
            return Ok(false);
        }
        if length > MAX_RECORD_BYTES || (length as usize) < RECORD_HEADER_BYTES {
            return Err(WalError::BadRecord {
                lsn: start,
                offset: 0,
                problem: "a record length that no record has",
            });
        }
        let on_page = WAL_PAGE_BYTES - start.0 % WAL_PAGE_BYTES;
        if u64::from(length) <= on_page {
            let whole = header_bytes + length as usize;
            if self.input.len() < whole {
                return Ok(false);
            }
            self.consume(header_bytes);
            let bytes = self.take(length as usize);
            self.finish_record(start, bytes)?;
        } else {
            self.consume(header_bytes);
            self.state = State::Inside(Partial {
                start,
                length,
                bytes: BytesMut::with_capacity((length as usize).min(2 * WAL_PAGE_BYTES as usize)),
            });
        }
        Ok(true)
    }

    /// Takes more of a record that goes over pages; false if bytes are missing.
    fn continue_record(&mut self, mut partial: Partial) -> Result<bool, WalError> {
        loop {
            if self.at.0.is_multiple_of(WAL_PAGE_BYTES) {
                match self.consume_continuation_header(&partial)? {
                    Continuation::Follows => {}
                    Continuation::IsMissing => {
                        self.state = State::Inside(partial);
                        return Ok(false);
                    }
                    Continuation::NeverCame => {
                        self.state = State::Between {
                            is_behind_unfinished: true,
                        };
                        return Ok(true);
                    }
                }
            }
            let had_header = partial.bytes.len() >= RECORD_HEADER_BYTES;
            let rest = partial.length as usize - partial.bytes.len();
            let on_page = (WAL_PAGE_BYTES - self.at.0 % WAL_PAGE_BYTES) as usize;
            let wanted = rest.min(on_page);
            let taken = wanted.min(self.input.len());
            partial.bytes.extend_from_slice(&self.input[..taken]);
            self.consume(taken);
            if !had_header && let Some(header) = partial.bytes.first_chunk::<RECORD_HEADER_BYTES>() {
                RawRecord::check_header(partial.start, header)?;
            }
            if partial.bytes.len() == partial.length as usize {
                self.finish_record(partial.start, partial.bytes.freeze())?;
                return Ok(true);
            }
            if taken < wanted {
                self.state = State::Inside(partial);
                return Ok(false);
            }
        }
    }

    /// Checks and drops the header of a page that a record continues on.
    fn consume_continuation_header(&mut self, partial: &Partial) -> Result<Continuation, WalError> {
        let header_bytes = self.layout.page_header_bytes(self.at) as usize;
        let Some(header) = self.input.get(..header_bytes) else {
            return Ok(Continuation::IsMissing);
        };
        let rest = partial.length - partial.bytes.len() as u32;
        match page_header::parse(&self.facts, self.at, header)? {
            PageStart::Continuation { remaining_bytes } if remaining_bytes == rest => {}
            PageStart::Continuation { .. } => {
                return Err(self.bad_page(self.at, "another length of the record's rest"));
            }
            PageStart::Overwrite => return Ok(Continuation::NeverCame),
            PageStart::Record => {
                return Err(self.bad_page(self.at, "it does not continue the record before"));
            }
        }
        self.consume(header_bytes);
        Ok(Continuation::Follows)
    }

    fn finish_record(&mut self, start: Lsn, bytes: Bytes) -> Result<(), WalError> {
        let end = self.layout.record_end(start, &bytes)?;
        let record = RawRecord { start, end, bytes };
        if let Some(header) = record.bytes.first_chunk::<RECORD_HEADER_BYTES>() {
            RawRecord::check_header(start, header)?;
        }
        let back_link = record.back_link();
        match self.previous_start {
            Some(expected) if back_link != expected => {
                return Err(WalError::BadBackLink {
                    lsn: start,
                    found: back_link,
                    expected,
                });
            }
            None if back_link >= start => {
                return Err(WalError::BadRecord {
                    lsn: start,
                    offset: 8,
                    problem: "a back link that does not lead back",
                });
            }
            _ => {}
        }
        record.check_crc()?;
        self.state = State::Padding { record };
        Ok(())
    }

    fn bad_page(&self, page: Lsn, problem: &'static str) -> WalError {
        WalError::BadPage { page, problem }
    }

    fn consume(&mut self, bytes: usize) {
        self.input.advance(bytes);
        self.at = self.at + bytes as u64;
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        self.at = self.at + bytes as u64;
        self.input.split_to(bytes)
    }
}
