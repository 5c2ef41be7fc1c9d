//! For tests of redo: records made by hand, and records and pages of noise.

use pg_quorum_types::{BLOCK_SIZE, ClusterFacts, ForkNumber, Lsn, PageKey, RelFileNode, RelFork};
use proptest::prelude::*;

use super::page::PageLayout;
use crate::raw_record::NewRecord;
use crate::v15::{BLOCK_HAS_DATA, BLOCK_SAME_REL, ID_MAIN_DATA_LONG};
use crate::{Page, Record, RedoContext, Rmgr, WalLayout, apply, identify};

const REL: RelFork = RelFork {
    rel: RelFileNode {
        spc: 1663,
        db: 5,
        rel: 16384,
    },
    fork: ForkNumber::Main,
};

/// A block reference to be: its number, the block, the data.
#[derive(Debug)]
pub(crate) struct TestBlock {
    pub(crate) id: u8,
    pub(crate) block: u32,
    pub(crate) data: Vec<u8>,
}

impl TestBlock {
    pub(crate) fn key(&self) -> PageKey {
        PageKey::Relation {
            rel: REL,
            block: self.block,
        }
    }
}

/// A record without images, encoded and decoded. All blocks are of one relation.
pub(crate) fn record(rmgr: Rmgr, info: u8, main: &[u8], blocks: &[TestBlock]) -> Record<'static> {
    const START: Lsn = Lsn(0x0200_0028);
    let facts = ClusterFacts {
        system_identifier: 1,
        timeline: 1,
        wal_segment_bytes: 16 << 20,
        data_checksums: false,
        pg_control_version: 1300,
        catalog_version: 202_209_061,
        pg_major: 15,
    };
    let mut body = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let has_data = if block.data.is_empty() { 0 } else { BLOCK_HAS_DATA };
        let same_rel = if index == 0 { 0 } else { BLOCK_SAME_REL };
        body.extend_from_slice(&[block.id, has_data | same_rel]);
        body.extend_from_slice(&(block.data.len() as u16).to_le_bytes());
        if index == 0 {
            for number in [REL.rel.spc, REL.rel.db, REL.rel.rel] {
                body.extend_from_slice(&number.to_le_bytes());
            }
        }
        body.extend_from_slice(&block.block.to_le_bytes());
    }
    body.push(ID_MAIN_DATA_LONG);
    body.extend_from_slice(&(main.len() as u32).to_le_bytes());
    for block in blocks {
        body.extend_from_slice(&block.data);
    }
    body.extend_from_slice(main);
    let raw = NewRecord {
        start: START,
        prev: START,
        xid: 700,
        rmgr,
        info,
        body: &body,
    };
    let raw = raw.encode(WalLayout::new(&facts)).unwrap();
    // A test's record may live for ever.
    Record::decode(Box::leak(Box::new(raw))).unwrap()
}

/// What redo makes of one page, which is that of `block`.
pub(crate) fn redo(record: &Record<'_>, block: &TestBlock, page: &mut Page) -> Result<(), crate::RedoError> {
    apply(record, &block.key(), page, &RedoContext::default())
}

/// Bytes that look like numbers of a record: mostly small ones.
fn numbers(max_count: usize) -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![6 => 0u16..9, 2 => 0u16..600, 1 => any::<u16>()];
    prop::collection::vec(number, 0..max_count)
        .prop_map(|numbers| numbers.into_iter().flat_map(u16::to_le_bytes).collect())
}

/// Records of any kind of `rmgr`, with any of the blocks 0 to `max_block_id`, filled with noise.
pub(crate) fn hostile_records(
    rmgr: Rmgr,
    max_block_id: u8,
) -> impl Strategy<Value = (Record<'static>, Vec<TestBlock>)> {
    let kinds: Vec<u8> = (0..=0xF0)
        .step_by(0x10)
        .filter(|info| identify(rmgr, *info).is_some())
        .collect();
    let block = move |id: u8| {
        prop::option::weighted(0.9, numbers(60)).prop_map(move |data| {
            data.map(|data| TestBlock {
                id,
                block: u32::from(id) + 1,
                data,
            })
        })
    };
    let blocks: Vec<_> = (0..=max_block_id).map(block).collect();
    (prop::sample::select(kinds), numbers(20), blocks).prop_map(move |(info, main, blocks)| {
        let blocks: Vec<TestBlock> = blocks.into_iter().flatten().collect();
        (record(rmgr, info, &main, &blocks), blocks)
    })
}

/// Pages with `special_bytes` of special space and items, some of them damaged, and pages of noise.
pub(crate) fn hostile_pages(special_bytes: usize) -> impl Strategy<Value = Box<Page>> {
    let items = prop::collection::vec(1usize..60, 0..40);
    let damage = prop::collection::vec((8usize..200, any::<u8>()), 0..3);
    let valid = (items, damage).prop_map(move |(items, damage)| {
        let mut page = Box::new([0; BLOCK_SIZE]);
        page.init(special_bytes);
        for len in items {
            if page.add_index_item(1, &vec![len as u8; len * 8]).is_err() {
                break; // full
            }
        }
        for (at, byte) in damage {
            page[at] = byte;
        }
        page
    });
    let noise = any::<u64>().prop_map(|seed| {
        let mut page = Box::new([0; BLOCK_SIZE]);
        let mut state = seed | 1;
        for byte in page.iter_mut() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        page[..8].fill(0); // an LSN that does not hide the page from redo
        page
    });
    prop_oneof![4 => valid, 1 => noise]
}
