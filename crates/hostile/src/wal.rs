//! WAL as a stream of bytes, and runs of records.

use bytes::Bytes;
use pg_quorum_types::{ClusterFacts, Lsn};
use pg_quorum_wal::{RawRecord, Rmgr, WalBuilder, WalLayout, WalSplitter, split_run};

use crate::bytes_in::BytesIn;
use crate::record_case::raw_record;
use crate::{FACTS, RECORD_START};

/// With segments smaller than any server's, since a segment switch stands for up to one of them.
const STREAM_FACTS: ClusterFacts = ClusterFacts {
    wal_segment_bytes: 32 << 10,
    ..FACTS
};
/// Records that are made from one input.
const MAX_RECORDS: usize = 200;
/// Segment switches among them.
const MAX_SWITCHES: usize = 4;
/// Pieces in which a stream is fed, at most.
const MAX_PIECES: usize = 2000;
/// Bytes of the made WAL that are changed, and one more.
const MAX_DAMAGES: u8 = 8;
/// `XLOG_SWITCH`.
const SWITCH: u8 = 0x40;
/// `XLOG_OVERWRITE_CONTRECORD`.
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// The stream of WAL, in pieces, and the same bytes as a run of records.
///
/// ```text
/// mode u8: bit 0 the rest is WAL (else it is records, of which WAL is made) | bytes of a piece u16
/// start u16: eighths of a page before or behind a segment's start
/// WAL:      bytes
/// records:  damages u8, each: offset u16, other bits u8 | of each record: bytes u16 | info, resource manager, body
/// ```
pub fn split(input: &[u8]) {
    let mut input = BytesIn(input);
    let is_wal = input.u8() & 1 != 0;
    let piece = usize::from(input.u16()).max(1);
    let layout = WalLayout::new(&STREAM_FACTS);
    let previous_end = previous_end(input.u16());
    if is_wal {
        check_stream(previous_end, input.0, piece);
        check_run(previous_end, input.0);
        return;
    }
    if layout
        .record_end(layout.next_record_start(previous_end), &[24; 24])
        .is_err()
    {
        return; // inside a page header
    }
    let damages: Vec<(usize, u8)> = (0..input.u8() % MAX_DAMAGES)
        .map(|_| (usize::from(input.u16()), input.u8()))
        .collect();
    let records = make_records(previous_end, &mut input);
    let mut wal = build(previous_end, &records);
    for (at, bits) in &damages {
        if let Some(byte) = wal.get_mut(*at) {
            *byte ^= bits;
        }
    }
    let found = check_stream(previous_end, &wal, piece);
    if damages.is_empty() {
        assert_eq!(found, records, "what was built comes apart as it was");
    }
    let run: Vec<u8> = records.iter().flat_map(|record| record.bytes.to_vec()).collect();
    check_run(previous_end, &run);
}

/// An input of [`split`]'s second form in its first one: the WAL that is made of its records, without damage.
pub fn as_wal(input: &[u8]) -> Vec<u8> {
    let mut rest = BytesIn(input);
    let (_, piece, start) = (rest.u8(), rest.u16(), rest.u16());
    let previous_end = previous_end(start);
    for _ in 0..rest.u8() % MAX_DAMAGES {
        rest.take(3);
    }
    let records = make_records(previous_end, &mut rest);
    let mut out = vec![1];
    out.extend_from_slice(&piece.to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&build(previous_end, &records));
    out
}

/// A place on one of two pages, the second of which begins a segment.
fn previous_end(eighths: u16) -> Lsn {
    let segment_start = RECORD_START.0 - 0x28;
    Lsn(segment_start - 8192 + u64::from(eighths % 2048) * 8)
}

fn make_records(previous_end: Lsn, input: &mut BytesIn<'_>) -> Vec<RawRecord> {
    let layout = WalLayout::new(&STREAM_FACTS);
    let mut records: Vec<RawRecord> = Vec::new();
    let (mut end, mut prev) = (previous_end, Lsn(8));
    let mut switches = 0;
    while !input.0.is_empty() && records.len() < MAX_RECORDS {
        let bytes = usize::from(input.u16());
        let (info, rmgr) = (input.u8(), input.u8() % Rmgr::ALL.len() as u8);
        let body = input.take(bytes);
        if rmgr == Rmgr::Xlog as u8 {
            switches += usize::from(info & 0xF0 == SWITCH);
            // A record that overwrites one which was never finished has nothing to overwrite here.
            if info & 0xF0 == OVERWRITE_CONTRECORD || switches > MAX_SWITCHES {
                continue;
            }
        }
        let start = layout.next_record_start(end);
        let record = raw_record(layout, start, prev, 700, info, rmgr, body);
        (end, prev) = (record.end, start);
        records.push(record);
    }
    records
}

fn build(previous_end: Lsn, records: &[RawRecord]) -> Vec<u8> {
    let mut builder = WalBuilder::new(STREAM_FACTS, previous_end);
    for record in records {
        let pushed = builder.push(record.start, record.end, &record.bytes);
        pushed.expect("the records follow each other");
    }
    builder.take()
}

/// Feeds the splitter, whose records must be whole and in order. An error stays.
fn check_stream(previous_end: Lsn, wal: &[u8], piece: usize) -> Vec<RawRecord> {
    let mut splitter = WalSplitter::new(STREAM_FACTS, previous_end);
    let mut found: Vec<RawRecord> = Vec::new();
    for piece in wal.chunks(piece.max(wal.len() / MAX_PIECES)) {
        splitter.feed(Bytes::copy_from_slice(piece));
        loop {
            match splitter.next_record() {
                Ok(Some(record)) => {
                    assert_eq!(record.check_crc(), Ok(()));
                    assert!(record.start < record.end && record.end <= splitter.fed_up_to());
                    if let Some(last) = found.last() {
                        assert!(last.end <= record.start);
                        assert_eq!(record.back_link(), last.start);
                    }
                    found.push(record);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(splitter.next_record(), Err(error), "an error stays");
                    return found;
                }
            }
        }
    }
    found
}

/// Bytes as a run of records, without gaps and with the gaps that they happen to begin with.
fn check_run(previous_end: Lsn, run: &[u8]) {
    let layout = WalLayout::new(&STREAM_FACTS);
    let (gaps, rest) = run.split_at(run.len().min(24));
    let gaps: Vec<u64> = gaps
        .chunks(8)
        .map(|gap| BytesIn(gap).u64() & 0xFFFF_FFFF_FFFF_FFF8)
        .collect();
    for (gaps, run) in [(&[][..], run), (&gaps, rest)] {
        let mut used = 0;
        let mut end = previous_end;
        for record in split_run(layout, previous_end, gaps, run) {
            let Ok(record) = record else { break };
            assert!(record.start >= end && record.end > record.start);
            assert_eq!(record.at, used);
            used += record.length;
            end = record.end;
        }
        assert!(used <= run.len());
    }
}
