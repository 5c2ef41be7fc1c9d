//! From records back to WAL as PostgreSQL writes it.
//!
//! The bytes equal the server's, but for one flag of page headers that no record tells
//! (`XLP_BKP_REMOVABLE`, always clear here).

use pg_quorum_types::{ClusterFacts, Lsn};

use crate::framing::WalLayout;
use crate::page_header::{self, PageStart};
use crate::v15::{INFO_KIND_MASK, WAL_PAGE_BYTES, kind};
use crate::{Rmgr, WalError};

/// Lays records out on pages.
pub struct WalBuilder {
    facts: ClusterFacts,
    layout: WalLayout,
    /// Where the next byte stands: the end of the last record.
    at: Lsn,
    wal: Vec<u8>,
}

impl WalBuilder {
    /// Bytes are made from `previous_end`, the end of a record, on; what stands before it on its page is
    /// there already.
    pub fn new(facts: ClusterFacts, previous_end: Lsn) -> WalBuilder {
        WalBuilder {
            layout: WalLayout::new(&facts),
            facts,
            at: previous_end,
            wal: Vec::new(),
        }
    }

    /// Lays out the next record: page headers before and inside it, its bytes (as in [`crate::RawRecord`]), padding.
    /// Behind a segment switch follow zeros, without page headers, up to the segment's end (`CopyXLogRecordToWAL`,
    /// 15.18).
    ///
    /// # Errors
    /// A record that does not follow the one before, or whose bytes are not as many as it says.
    pub fn push(&mut self, start: Lsn, end: Lsn, record: &[u8]) -> Result<(), WalError> {
        if start != self.layout.next_record_start(self.at) {
            return Err(WalError::BadPosition {
                lsn: start,
                what: "follow the one before",
            });
        }
        let must_end = self.layout.record_end(start, record)?;
        let length = record.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        if end != must_end || length.map(|length| length as usize) != Some(record.len()) {
            return Err(WalError::BadRecord {
                lsn: start,
                offset: 0,
                problem: "its length is not that of the bytes given",
            });
        }
        if self.at != start {
            page_header::append(&self.facts, self.at, first_record_on_page(record), &mut self.wal);
            self.at = start;
        }
        self.append_body(record);
        let padding = end.bytes_since(self.at);
        self.wal.resize(self.wal.len() + padding as usize, 0);
        self.at = end;
        Ok(())
    }

    /// The bytes made since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wal)
    }

    /// Where the bytes made so far end.
    pub fn end(&self) -> Lsn {
        self.at
    }

    fn append_body(&mut self, mut rest: &[u8]) {
        loop {
            let on_page = (WAL_PAGE_BYTES - self.at.0 % WAL_PAGE_BYTES) as usize;
            let (piece, behind) = rest.split_at(rest.len().min(on_page));
            self.wal.extend_from_slice(piece);
            self.at = self.at + piece.len() as u64;
            rest = behind;
            if rest.is_empty() {
                return;
            }
            let continuation = PageStart::Continuation {
                remaining_bytes: rest.len() as u32,
            };
            page_header::append(&self.facts, self.at, continuation, &mut self.wal);
            self.at = self.at + self.layout.page_header_bytes(self.at);
        }
    }
}

/// What the header says of a page whose first record is this one.
fn first_record_on_page(record: &[u8]) -> PageStart {
    let is_overwrite =
        record[17] == Rmgr::Xlog as u8 && record[16] & INFO_KIND_MASK == kind::xlog::OVERWRITE_CONTRECORD;
    if is_overwrite {
        PageStart::Overwrite
    } else {
        PageStart::Record
    }
}
