//! Every kind of record with any data, on pages that it was not made for.

use pg_quorum_hostile::{CaseBlock, CaseImage, RecordCase, StartPage, check_case};
use pg_quorum_types::ForkNumber;
use pg_quorum_wal::{Compression, RedoContext, Rmgr, identify};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// Cases of each kind: all of them together take a few seconds.
const CASES: u32 = 128;

/// Bytes as records and pages have them: many are zero or small.
fn data(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(0), 4 => 0..8_u8, 1 => 8..64_u8, 1 => any::<u8>()];
    vec(byte, len)
}

/// What a page is made of.
fn page() -> impl Strategy<Value = Vec<u8>> {
    // Drawing each of thousands of bytes would take longer than the tests do.
    (data(2..40), any::<u64>(), 0..3000_usize).prop_map(|(mut bytes, mut state, more)| {
        bytes.extend((0..more).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let byte = (state >> 56) as u8;
            if byte < 128 { byte >> 4 } else { byte }
        }));
        bytes
    })
}

fn image() -> impl Strategy<Value = CaseImage> {
    (
        any::<bool>(),
        select(vec![
            None,
            Some(Compression::Pglz),
            Some(Compression::Lz4),
            Some(Compression::Zstd),
        ]),
        data(0..100),
        0..8192_u16,
    )
        .prop_map(|(applied, compression, bytes, hole_offset)| {
            // Without compression the rest of the page is the hole.
            let hole_length = 8192 - bytes.len() as u16;
            CaseImage {
                applied,
                compression,
                hole_offset: hole_offset.min(bytes.len() as u16),
                hole_length,
                bytes,
            }
        })
}

fn block() -> impl Strategy<Value = CaseBlock> {
    (
        (0..3_u8, select(ForkNumber::ALL.to_vec()), 0..2_u8),
        prop_oneof![0..4_u32, any::<u32>()],
        prop::bool::weighted(0.2),
        prop::option::weighted(0.1, image()),
        data(0..200),
    )
        .prop_map(
            |((gap, fork, relation), block, will_init, image, data)| CaseBlock {
                id: gap, // made an id by `record`
                fork,
                relation,
                block,
                will_init,
                image,
                data,
            },
        )
}

fn record(rmgr: Rmgr, info: u8) -> impl Strategy<Value = RecordCase> {
    let start_page = select(vec![
        StartPage::Zeros,
        StartPage::Noise,
        StartPage::Sound,
        StartPage::Sound,
    ]);
    (
        (
            any::<bool>(),
            any::<bool>(),
            prop::bool::weighted(0.1),
            start_page,
        ),
        (0..16_u8, prop_oneof![0..10_u32, any::<u32>()]),
        vec(block(), 0..6),
        data(0..120),
        page(),
    )
        .prop_map(move |(settings, (low_info, xid), mut blocks, main, page)| {
            let mut next_id = 0;
            for block in &mut blocks {
                block.id += next_id;
                next_id = block.id + 1;
            }
            let (hint_bits_logged, track_commit_timestamp, keeps_lsn, start_page) = settings;
            RecordCase {
                ctx: RedoContext {
                    hint_bits_logged,
                    track_commit_timestamp,
                },
                start_page,
                keeps_lsn,
                rmgr,
                info: info | low_info,
                xid,
                origin: 0,
                blocks,
                main,
                page,
            }
        })
}

#[test]
fn no_record_of_any_kind_makes_redo_panic() {
    for rmgr in Rmgr::ALL {
        for info in (0..=0xF0).step_by(0x10) {
            if let Some(kind) = identify(rmgr, info) {
                println!("{rmgr}/{kind}"); // the last one names the culprit
                let config = Config {
                    cases: CASES,
                    failure_persistence: None,
                    ..Config::default()
                };
                let run = TestRunner::new(config).run(&record(rmgr, info), |case| {
                    check_case(&case);
                    // It must survive being written down, too: that is how a finding is kept.
                    assert_eq!(RecordCase::from_bytes(&case.to_bytes()).raw(), case.raw());
                    Ok(())
                });
                if let Err(error) = run {
                    panic!("{rmgr}/{kind}: {error}");
                }
            }
        }
    }
}
