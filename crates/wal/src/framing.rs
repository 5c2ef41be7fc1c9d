//! Where records stand in the WAL byte stream.
//!
//! ```text
//! | page header | record | pad | record ........ | page header | ... record | pad |
//!                        ^end  ^start of the next
//! ```
//! A record starts at a multiple of eight behind a page header and runs over as many pages as it needs.
//! Its end is exclusive, padded to eight, and stays before a page header that would come next. Page headers
//! are longer on the first page of a segment. A segment switch "ends" with its segment.

use pg_quorum_types::{ClusterFacts, Lsn};

use crate::v15::{
    INFO_KIND_MASK, LONG_PAGE_HEADER_BYTES, RECORD_HEADER_BYTES, SHORT_PAGE_HEADER_BYTES, WAL_PAGE_BYTES,
    kind,
};
use crate::{Rmgr, WalError};

/// Bytes of a page that hold records, on all pages but a segment's first.
const USABLE_PAGE_BYTES: u64 = WAL_PAGE_BYTES - SHORT_PAGE_HEADER_BYTES;
/// The largest position that arithmetic is done on: a record's length (32 bits) can always be added.
const MAX_POSITION: u64 = u64::MAX >> 1;

/// Whether the rest of the segment belongs to the record.
pub(crate) fn is_segment_switch(header: &[u8; RECORD_HEADER_BYTES]) -> bool {
    header[17] == Rmgr::Xlog as u8 && header[16] & INFO_KIND_MASK == kind::xlog::SWITCH
}

/// The rules for positions of one cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalLayout {
    /// Bytes of a WAL segment, a power of two.
    pub segment_bytes: u32,
}

impl WalLayout {
    pub fn new(facts: &ClusterFacts) -> WalLayout {
        WalLayout {
            segment_bytes: facts.wal_segment_bytes,
        }
    }

    /// Where the record starts that follows one that ended at `end`: there, or behind the page header that
    /// stands there.
    pub fn next_record_start(self, end: Lsn) -> Lsn {
        if end.0.is_multiple_of(WAL_PAGE_BYTES) {
            end + self.page_header_bytes(end)
        } else {
            end
        }
    }

    /// Up to where the log must be there for all of it below `lsn` to be: no record has a byte in a page header, so inside
    /// of one, and directly behind it, that is the page's start. `GetXLogInsertRecPtr` (`XLogBytePosToRecPtr`, 15.18)
    /// names a position behind the header of a page that nobody has begun.
    #[must_use]
    pub fn end_of_records_below(self, lsn: Lsn) -> Lsn {
        let in_page = lsn.0 % WAL_PAGE_BYTES;
        let page = Lsn(lsn.0 - in_page);
        if in_page <= self.page_header_bytes(page) {
            page
        } else {
            lsn
        }
    }

    /// Exclusive end of the record at `start`, whose first bytes (the header at least) are `record`.
    ///
    /// # Errors
    /// A position where no record starts, or a length below that of a header.
    pub fn record_end(self, start: Lsn, record: &[u8]) -> Result<Lsn, WalError> {
        let Some(header) = record.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Err(WalError::ShortRecord {
                lsn: start,
                offset: 0,
                wanted: RECORD_HEADER_BYTES,
                available: record.len(),
            });
        };
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let end = self.end_of_length(start, length)?;
        if is_segment_switch(header) {
            return Ok(self.segment_end(end));
        }
        Ok(end)
    }

    /// Exclusive end of `length` bytes of a record that starts at `start`, padding included
    /// (`XLogBytePosToEndRecPtr`, 15.18).
    pub(crate) fn end_of_length(self, start: Lsn, length: u32) -> Result<Lsn, WalError> {
        if (length as usize) < RECORD_HEADER_BYTES {
            return Err(WalError::BadRecord {
                lsn: start,
                offset: 0,
                problem: "a record length below that of the header",
            });
        }
        self.check_start(start)?;
        let padded = u64::from(length).next_multiple_of(8);
        let on_first_page = WAL_PAGE_BYTES - start.0 % WAL_PAGE_BYTES;
        if padded <= on_first_page {
            return Ok(start + padded);
        }
        let mut page = start + on_first_page;
        let mut rest = padded - on_first_page;
        let usable_segment_bytes = self.usable_segment_bytes();
        loop {
            if rest > usable_segment_bytes && self.segment_offset(page) == 0 {
                rest -= usable_segment_bytes;
                page = page + u64::from(self.segment_bytes);
                continue;
            }
            let header = self.page_header_bytes(page);
            let on_page = WAL_PAGE_BYTES - header;
            if rest <= on_page {
                return Ok(page + header + rest);
            }
            rest -= on_page;
            page = page + WAL_PAGE_BYTES;
        }
    }

    /// Refuses a place where no record can start.
    pub(crate) fn check_start(self, start: Lsn) -> Result<(), WalError> {
        let in_page = start.0 % WAL_PAGE_BYTES;
        let page = Lsn(start.0 - in_page);
        if !start.0.is_multiple_of(8) || in_page < self.page_header_bytes(page) || start.0 > MAX_POSITION {
            return Err(WalError::BadPosition {
                lsn: start,
                what: "start",
            });
        }
        Ok(())
    }

    /// Refuses a place where no record can end.
    pub(crate) fn check_end(self, end: Lsn) -> Result<(), WalError> {
        let in_page = end.0 % WAL_PAGE_BYTES;
        let page = Lsn(end.0 - in_page);
        let in_header = in_page != 0 && in_page < self.page_header_bytes(page);
        if !end.0.is_multiple_of(8) || in_header || end.0 > MAX_POSITION {
            return Err(WalError::BadPosition {
                lsn: end,
                what: "end",
            });
        }
        Ok(())
    }

    /// Bytes of the header of the page at `page`.
    pub(crate) fn page_header_bytes(self, page: Lsn) -> u64 {
        if self.segment_offset(page) == 0 {
            LONG_PAGE_HEADER_BYTES
        } else {
            SHORT_PAGE_HEADER_BYTES
        }
    }

    /// Offset of a position in its segment.
    pub(crate) fn segment_offset(self, lsn: Lsn) -> u64 {
        lsn.0 % u64::from(self.segment_bytes)
    }

    /// The segment boundary at or above a position.
    pub(crate) fn segment_end(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0.next_multiple_of(u64::from(self.segment_bytes)))
    }

    /// Bytes of a segment that hold records (`UsableBytesInSegment`).
    fn usable_segment_bytes(self) -> u64 {
        let pages = u64::from(self.segment_bytes) / WAL_PAGE_BYTES;
        pages * USABLE_PAGE_BYTES - (LONG_PAGE_HEADER_BYTES - SHORT_PAGE_HEADER_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: WalLayout = WalLayout {
        segment_bytes: 1 << 20,
    };
    const SEGMENT: u64 = 1 << 20;

    fn record(length: u32, rmgr: Rmgr, info: u8) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[16] = info;
        bytes[17] = rmgr as u8;
        bytes
    }

    fn end(start: u64, length: u32) -> Result<Lsn, WalError> {
        LAYOUT.record_end(Lsn(start), &record(length, Rmgr::Heap, 0))
    }

    #[test]
    fn an_end_is_padded_and_stays_before_the_next_page_header() {
        assert_eq!(end(SEGMENT + 40, 25).unwrap(), Lsn(SEGMENT + 72));
        let last_of_page = SEGMENT + WAL_PAGE_BYTES - 32;
        assert_eq!(end(last_of_page, 32).unwrap(), Lsn(SEGMENT + WAL_PAGE_BYTES));
        assert_eq!(
            LAYOUT.next_record_start(Lsn(SEGMENT + WAL_PAGE_BYTES)),
            Lsn(SEGMENT + WAL_PAGE_BYTES + 24)
        );
        assert_eq!(LAYOUT.next_record_start(Lsn(SEGMENT)), Lsn(SEGMENT + 40));
        assert_eq!(
            end(last_of_page, 33).unwrap(),
            Lsn(SEGMENT + WAL_PAGE_BYTES + 24 + 8)
        );
    }

    #[test]
    fn a_position_behind_a_page_header_is_reached_where_the_page_begins() {
        for page in [SEGMENT + WAL_PAGE_BYTES, 2 * SEGMENT, 0] {
            let start = LAYOUT.next_record_start(Lsn(page)).0;
            for position in page..=start {
                assert_eq!(LAYOUT.end_of_records_below(Lsn(position)), Lsn(page));
            }
            for position in [start + 1, start + 8, page + WAL_PAGE_BYTES - 8] {
                assert_eq!(LAYOUT.end_of_records_below(Lsn(position)), Lsn(position));
            }
        }
    }

    #[test]
    fn a_record_of_several_segments_counts_every_page_header() {
        // By hand: page after page.
        for length in [SEGMENT as u32, 3 * SEGMENT as u32 + 77, (5 * SEGMENT) as u32] {
            let start = 7 * SEGMENT + 3 * WAL_PAGE_BYTES + 800;
            let mut at = start;
            let mut rest = u64::from(length).next_multiple_of(8);
            while rest > 0 {
                if at.is_multiple_of(WAL_PAGE_BYTES) {
                    at += if at.is_multiple_of(SEGMENT) { 40 } else { 24 };
                }
                let step = rest.min(WAL_PAGE_BYTES - at % WAL_PAGE_BYTES);
                at += step;
                rest -= step;
            }
            assert_eq!(end(start, length).unwrap(), Lsn(at));
        }
    }

    #[test]
    fn a_segment_switch_ends_with_its_segment() {
        let switch = record(24, Rmgr::Xlog, kind::xlog::SWITCH);
        assert_eq!(
            LAYOUT.record_end(Lsn(SEGMENT + 40), &switch).unwrap(),
            Lsn(2 * SEGMENT)
        );
        let at_edge = Lsn(2 * SEGMENT - 24);
        assert_eq!(LAYOUT.record_end(at_edge, &switch).unwrap(), Lsn(2 * SEGMENT));
        // Its header crosses the edge: the whole next segment belongs to it.
        let over_edge = Lsn(2 * SEGMENT - 16);
        assert_eq!(LAYOUT.record_end(over_edge, &switch).unwrap(), Lsn(3 * SEGMENT));
    }

    #[test]
    fn impossible_positions_and_lengths_are_refused() {
        for start in [
            SEGMENT,
            SEGMENT + 24,
            SEGMENT + WAL_PAGE_BYTES + 16,
            SEGMENT + 44,
            u64::MAX - 7,
        ] {
            assert!(end(start, 30).is_err(), "{start}");
        }
        assert!(end(SEGMENT + 40, 23).is_err());
        assert!(LAYOUT.record_end(Lsn(SEGMENT + 40), &[0; 23]).is_err());
    }
}
