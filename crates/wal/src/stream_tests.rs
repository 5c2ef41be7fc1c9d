//! Records to pages and back: splitter, builder and runs together.

use bytes::Bytes;
use pg_quorum_types::{ClusterFacts, Lsn};
use proptest::prelude::*;

use crate::raw_record::NewRecord;
use crate::v15::kind::xlog;
use crate::{InRun, RawRecord, Rmgr, WalBuilder, WalError, WalLayout, WalSplitter, split_run};

const SEGMENT: u64 = 1 << 20;
const FACTS: ClusterFacts = ClusterFacts {
    system_identifier: 0x1122_3344_5566_7788,
    timeline: 3,
    wal_segment_bytes: SEGMENT as u32,
    data_checksums: false,
    pg_control_version: 1300,
    catalog_version: 202_209_061,
    pg_major: 15,
};

fn layout() -> WalLayout {
    WalLayout::new(&FACTS)
}

/// Records of these body lengths, one behind the other; a length of `None` is a segment switch.
fn records(previous_end: Lsn, previous_start: Lsn, bodies: &[Option<usize>]) -> Vec<RawRecord> {
    let mut end = previous_end;
    let mut prev = previous_start;
    let mut made = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let start = layout().next_record_start(end);
        let filling = vec![number as u8 | 1; body.unwrap_or(0)];
        let record = NewRecord {
            start,
            prev,
            xid: 700,
            rmgr: if body.is_some() {
                Rmgr::LogicalMessage
            } else {
                Rmgr::Xlog
            },
            info: if body.is_some() { 0 } else { xlog::SWITCH },
            body: &filling,
        };
        let record = record.encode(layout()).unwrap();
        (end, prev) = (record.end, start);
        made.push(record);
    }
    made
}

fn build(previous_end: Lsn, records: &[RawRecord]) -> Vec<u8> {
    let mut builder = WalBuilder::new(FACTS, previous_end);
    for record in records {
        builder.push(record.start, record.end, &record.bytes).unwrap();
    }
    assert_eq!(
        builder.end(),
        records.last().map_or(previous_end, |record| record.end)
    );
    builder.take()
}

fn split(previous_end: Lsn, wal: &[u8], piece: usize) -> Result<Vec<RawRecord>, WalError> {
    let one_by_one = split_one_by_one(previous_end, wal, piece);
    assert_eq!(split_into_runs(previous_end, wal, piece), one_by_one);
    one_by_one
}

fn split_into_runs(previous_end: Lsn, wal: &[u8], piece: usize) -> Result<Vec<RawRecord>, WalError> {
    let mut splitter = WalSplitter::new(FACTS, previous_end);
    let mut found = Vec::new();
    for piece in wal.chunks(piece) {
        splitter.feed(Bytes::copy_from_slice(piece));
        while splitter.advance_run()? {
            found.extend(splitter.run().iter().map(|(start, end, bytes)| RawRecord {
                start,
                end,
                bytes: bytes.to_vec().into(),
            }));
        }
    }
    Ok(found)
}

fn split_one_by_one(previous_end: Lsn, wal: &[u8], piece: usize) -> Result<Vec<RawRecord>, WalError> {
    let mut splitter = WalSplitter::new(FACTS, previous_end);
    let mut found = Vec::new();
    for piece in wal.chunks(piece) {
        splitter.feed(Bytes::copy_from_slice(piece));
        while let Some(record) = splitter.next_record()? {
            found.push(record);
        }
    }
    Ok(found)
}

const START: Lsn = Lsn(5 * SEGMENT + 8192 + 2000);
const BEFORE: Lsn = Lsn(5 * SEGMENT + 8192 + 1000);

#[test]
fn a_record_is_returned_once_all_bytes_up_to_its_end_are_there() {
    let made = records(START, BEFORE, &[Some(101), Some(20_000)]);
    let wal = build(START, &made);
    let mut splitter = WalSplitter::new(FACTS, START).with_previous_start(BEFORE);
    for (at, byte) in wal.iter().enumerate() {
        assert_eq!(splitter.fed_up_to(), START + at as u64);
        splitter.feed(vec![*byte].into());
        let found = splitter.next_record().unwrap();
        let fed = START + (at as u64 + 1);
        assert_eq!(found.as_ref(), made.iter().find(|record| record.end == fed));
    }
}

#[test]
fn zeros_are_no_more_records_yet() {
    let made = records(START, BEFORE, &[Some(33)]);
    let mut wal = build(START, &made);
    wal.resize(40_000, 0);
    assert_eq!(split(START, &wal, 40_000).unwrap(), made);
    let at_page_edge = Lsn(6 * SEGMENT);
    assert_eq!(split(at_page_edge, &[0; 9000], 9000).unwrap(), vec![]);

    // What stands there is said as soon as it is known.
    let mut splitter = WalSplitter::new(FACTS, START).with_previous_start(BEFORE);
    let end = made[0].end.bytes_since(START) as usize;
    for (bytes, stands_at_zeros) in [(0..end, false), (end..end + 3, false), (end + 3..end + 4, true)] {
        splitter.feed(wal[bytes].to_vec().into());
        while splitter.next_record().unwrap().is_some() {}
        assert_eq!(splitter.stands_at_zeros(), stands_at_zeros);
    }
    let mut splitter = WalSplitter::new(FACTS, at_page_edge);
    for (bytes, stands_at_zeros) in [(40, false), (4, true)] {
        splitter.feed(vec![0; bytes].into());
        assert_eq!(splitter.next_record(), Ok(None));
        assert_eq!(splitter.stands_at_zeros(), stands_at_zeros);
    }
}

/// A server that crashed inside a record goes on at the page where its rest is missing, and says so there.
#[test]
fn a_record_that_was_never_finished_is_left_out() {
    let made = records(START, BEFORE, &[Some(101), Some(20_000)]);
    let wal = build(START, &made);
    for page in [1, 2] {
        let page = Lsn(START.0.next_multiple_of(8192) + (page - 1) * 8192);
        let start = layout().next_record_start(page);
        let overwrite = NewRecord {
            start,
            prev: made[0].start,
            xid: 0,
            rmgr: Rmgr::Xlog,
            info: xlog::OVERWRITE_CONTRECORD,
            body: &[0xFF; 18],
        };
        let behind = [
            vec![overwrite.encode(layout()).unwrap()],
            records(overwrite.encode(layout()).unwrap().end, start, &[Some(50)]),
        ]
        .concat();
        let mut torn = wal[..page.bytes_since(START) as usize].to_vec();
        torn.extend(build(page, &behind));
        for piece in [1, 100, 100_000] {
            assert_eq!(split(START, &torn, piece).unwrap()[1..], behind);
        }
        // The page alone overwrites nothing.
        assert!(split(page, &build(page, &behind), 8192).is_err());
    }
}

#[test]
fn a_segment_switch_leaves_zeros_without_page_headers_behind_it() {
    let made = records(START, BEFORE, &[Some(33), None, Some(50)]);
    let wal = build(START, &made);
    let switch_body_end = (made[1].start.0 - START.0) as usize + 24;
    let segment_end = (6 * SEGMENT - START.0) as usize;
    assert!(wal[switch_body_end..segment_end].iter().all(|byte| *byte == 0));
    assert_eq!(made[2].start, Lsn(6 * SEGMENT + 40));
    assert_eq!(split(START, &wal, 1000).unwrap(), made);
}

#[test]
fn every_damage_is_an_error_that_stays() {
    let made = records(START, BEFORE, &[Some(500), Some(30_000), Some(7)]);
    let wal = build(START, &made);
    let flips = [
        ("checksum", 300, 0),
        ("back link", 8, 0),
        ("resource manager", 17, 0),
        ("page magic", (8192 - 2000) as usize, 1),
        ("page flags", (8192 - 2000) as usize + 3, 1),
        ("timeline", (8192 - 2000) as usize + 4, 1),
        ("page address", (8192 - 2000) as usize + 9, 1),
        ("continuation length", (8192 - 2000) as usize + 16, 1),
    ];
    for (what, at, records_before) in flips {
        let mut wal = wal.clone();
        wal[at] ^= 0x40;
        let mut splitter = WalSplitter::new(FACTS, START).with_previous_start(BEFORE);
        splitter.feed(wal.into());
        for _ in 0..records_before {
            assert!(splitter.next_record().unwrap().is_some(), "{what}");
        }
        let error = splitter.next_record().expect_err(what);
        assert_eq!(splitter.next_record().unwrap_err(), error, "{what}");
    }
}

#[test]
fn wal_of_another_cluster_is_refused_at_the_segment_start() {
    let edge = Lsn(6 * SEGMENT);
    let wal = build(edge, &records(edge, BEFORE, &[Some(5)]));
    let other = ClusterFacts {
        system_identifier: 1,
        ..FACTS
    };
    let mut splitter = WalSplitter::new(other, edge);
    splitter.feed(wal.into());
    assert!(matches!(
        splitter.next_record(),
        Err(WalError::BadPage { page, .. }) if page == edge
    ));
}

#[test]
fn a_run_splits_into_its_records_with_and_without_gaps() {
    let made = records(START, BEFORE, &[Some(500), Some(30_000), None, Some(7)]);
    let run: Vec<u8> = made.iter().flat_map(|record| record.bytes.to_vec()).collect();
    for gaps in [&[][..], &[0, 0, 0, 0]] {
        let split = split_run(layout(), START, gaps, &run).map(|record| {
            let InRun {
                start,
                end,
                at,
                length,
                ..
            } = record?;
            let bytes = run[at..at + length].to_vec().into();
            Ok(RawRecord { start, end, bytes })
        });
        let split: Result<Vec<_>, WalError> = split.collect();
        assert_eq!(split.unwrap(), made);
    }
    for wrong_gaps in [&[0, 0, 0][..], &[0, 0, 0, 0, 0]] {
        let split: Result<Vec<_>, _> = split_run(layout(), START, wrong_gaps, &run).collect();
        assert!(split.is_err());
    }
    let first = &run[..made[0].bytes.len()];
    let split: Vec<_> = split_run(layout(), START, &[64], first).collect();
    assert_eq!(split[0].as_ref().unwrap().start, made[0].start + 64);
}

proptest! {
    #[test]
    fn pages_and_records_are_the_same_log(
        start in (0u64..40_000).prop_map(|eighth| Lsn(5 * SEGMENT + eighth * 8)),
        bodies in prop::collection::vec(
            prop_oneof![
                8 => (0usize..300).prop_map(Some),
                3 => (0usize..20_000).prop_map(Some),
                1 => (SEGMENT as usize - 500..SEGMENT as usize + 500).prop_map(Some),
                1 => Just(None),
            ],
            1..40,
        ),
        piece in 1usize..30_000,
    ) {
        prop_assume!(layout().check_end(start).is_ok());
        let made = records(start, Lsn(4 * SEGMENT + 40), &bodies);
        let wal = build(start, &made);
        prop_assert_eq!(wal.len() as u64, made[made.len() - 1].end.0 - start.0);
        prop_assert_eq!(split(start, &wal, piece).unwrap(), made);
    }

    #[test]
    fn the_splitter_never_panics(
        start in any::<u64>(),
        noise in prop::collection::vec(any::<u8>(), 0..40_000),
        damage in prop::collection::vec((0usize..60_000, any::<u8>()), 0..4),
    ) {
        let _ = split(Lsn(start), &noise, 777);
        let made = records(START, BEFORE, &[Some(500), Some(30_000), None, Some(7)]);
        let mut wal = build(START, &made);
        for (at, byte) in damage {
            wal[at] = byte;
        }
        let _ = split(START, &wal, 5000);
    }

    #[test]
    fn split_run_never_panics(
        start in any::<u64>(),
        gaps in prop::collection::vec(any::<u64>(), 0..3),
        lengths in prop::collection::vec(0u32..200, 0..5),
        noise in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut noise = noise;
        let mut at = 0;
        for length in lengths {
            if let Some(place) = noise.get_mut(at..at + 4) {
                place.copy_from_slice(&length.to_le_bytes());
            }
            at += length as usize;
        }
        let found = split_run(layout(), Lsn(start), &gaps, &noise).count();
        prop_assert!(found <= noise.len() + 1);
    }
}
