//! Records and pages that no server wrote: redo refuses what does not fit, and never panics.
//!
//! Each resource manager gives [`Sample`]s of its kinds of records. They are replayed as they are, with some bytes
//! changed, cut or added, and with noise for content.

use pg_quorum_types::{BLOCK_SIZE, ClusterFacts, ForkNumber, Lsn, PageKey, RelFileNode, RelFork};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use crate::raw_record::{NewRecord, RawRecord};
use crate::v15::{BLOCK_HAS_DATA, BLOCK_WILL_INIT, ID_MAIN_DATA_LONG};
use crate::{Page, Record, RedoContext, RedoError, Rmgr, WalLayout, apply, effects, mask_page};

const REL: RelFork = RelFork {
    rel: RelFileNode {
        spc: 1663,
        db: 5,
        rel: 16384,
    },
    fork: ForkNumber::Main,
};
const FACTS: ClusterFacts = ClusterFacts {
    system_identifier: 1,
    timeline: 1,
    wal_segment_bytes: 1 << 24,
    data_checksums: false,
    pg_control_version: 1300,
    catalog_version: 202_209_061,
    pg_major: 15,
};
/// Pages of samples bear an LSN below this one.
const START: Lsn = Lsn(0x0500_0028);
/// Trials for each sample, on average.
const CASES_PER_SAMPLE: u32 = 500;

/// A record and the pages that it changes.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) rmgr: Rmgr,
    /// `xl_info`.
    pub(crate) info: u8,
    pub(crate) main: Vec<u8>,
    /// By rising id. The block's number is its id plus one.
    pub(crate) blocks: Vec<SampleBlock>,
}

#[derive(Clone, Debug)]
pub(crate) struct SampleBlock {
    pub(crate) id: u8,
    pub(crate) will_init: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) page: Page,
}

impl SampleBlock {
    pub(crate) fn new(id: u8, data: Vec<u8>, page: Page) -> SampleBlock {
        SampleBlock {
            id,
            will_init: false,
            data,
            page,
        }
    }

    /// A page that the record makes anew.
    pub(crate) fn init(id: u8, data: Vec<u8>) -> SampleBlock {
        SampleBlock {
            will_init: true,
            ..SampleBlock::new(id, data, [0; BLOCK_SIZE])
        }
    }

    fn key(&self) -> PageKey {
        PageKey::Relation {
            rel: REL,
            block: u32::from(self.id) + 1,
        }
    }
}

impl Sample {
    pub(crate) fn record(&self) -> Record<'static> {
        Record::decode(self.raw()).expect("a well-formed record")
    }

    /// A test's record may live for ever.
    fn raw(&self) -> &'static RawRecord {
        let mut body = Vec::new();
        for block in &self.blocks {
            let has_data = if block.data.is_empty() { 0 } else { BLOCK_HAS_DATA };
            let will_init = if block.will_init { BLOCK_WILL_INIT } else { 0 };
            body.extend([block.id, has_data | will_init]);
            body.extend((block.data.len() as u16).to_le_bytes());
            body.extend(
                [REL.rel.spc, REL.rel.db, REL.rel.rel]
                    .map(u32::to_le_bytes)
                    .concat(),
            );
            body.extend((u32::from(block.id) + 1).to_le_bytes());
        }
        body.push(ID_MAIN_DATA_LONG);
        body.extend((self.main.len() as u32).to_le_bytes());
        for block in &self.blocks {
            body.extend(&block.data);
        }
        body.extend(&self.main);
        let record = NewRecord {
            start: START,
            prev: Lsn(0x0500_0000),
            xid: 700,
            rmgr: self.rmgr,
            info: self.info,
            body: &body,
        };
        let raw = record
            .encode(WalLayout::new(&FACTS))
            .expect("a place for a record");
        Box::leak(Box::new(raw))
    }

    /// The pages as the record leaves them.
    pub(crate) fn replay(&self) -> Result<Vec<Page>, RedoError> {
        let record = self.record();
        let replayed = self.blocks.iter().map(|block| {
            let mut page = block.page;
            apply(&record, &block.key(), &mut page, &RedoContext::default()).map(|()| page)
        });
        replayed.collect()
    }

    /// Replays on every page, and masks whatever comes of it.
    fn survive(&self) {
        let record = self.record();
        for block in &self.blocks {
            let mut page = block.page;
            let _ = apply(&record, &block.key(), &mut page, &RedoContext::default());
            let _ = mask_page(self.rmgr, &mut page, 1);
        }
    }
}

/// One way to spoil a sample.
#[derive(Clone, Debug)]
enum Damage {
    /// Bytes of a page, most often of its header or special space.
    Page {
        block: Index,
        at: usize,
        bytes: [u8; 2],
    },
    /// The page holds noise behind its header.
    PageNoise {
        block: Index,
        seed: u64,
    },
    /// Bytes of the main data (`None`) or of a block's data.
    Data {
        block: Option<Index>,
        at: Index,
        bytes: [u8; 2],
    },
    Length {
        block: Option<Index>,
        len: usize,
    },
    DataNoise {
        block: Option<Index>,
        noise: Vec<u8>,
    },
    Kind(u8),
    /// Another block's page.
    Swap(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let block = || any::<Index>();
    let part = || prop::option::weighted(0.6, any::<Index>());
    let place = prop_oneof![
        4 => 8usize..40,
        2 => 40usize..400,
        3 => BLOCK_SIZE - 40..BLOCK_SIZE,
        1 => 0..BLOCK_SIZE,
    ];
    let bytes = || prop_oneof![any::<[u8; 2]>(), (0u16..80).prop_map(u16::to_le_bytes)];
    prop_oneof![
        6 => (block(), place, bytes()).prop_map(|(block, at, bytes)| Damage::Page { block, at, bytes }),
        1 => (block(), any::<u64>()).prop_map(|(block, seed)| Damage::PageNoise { block, seed }),
        8 => (part(), any::<Index>(), bytes()).prop_map(|(block, at, bytes)| Damage::Data { block, at, bytes }),
        2 => (part(), 0usize..400).prop_map(|(block, len)| Damage::Length { block, len }),
        1 => (part(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(block, noise)| Damage::DataNoise { block, noise }),
        1 => any::<u8>().prop_map(Damage::Kind),
        1 => (block(), block()).prop_map(|(one, other)| Damage::Swap(one, other)),
    ]
}

impl Damage {
    fn put_on(&self, sample: &mut Sample) {
        match self {
            Damage::Page { block, at, bytes } => {
                let page = &mut block.get_mut(&mut sample.blocks).page;
                for (place, byte) in page[*at..].iter_mut().zip(bytes) {
                    *place = *byte;
                }
            }
            Damage::PageNoise { block, seed } => {
                let mut noise = *seed | 1;
                for byte in &mut block.get_mut(&mut sample.blocks).page[24..] {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    *byte = noise as u8;
                }
            }
            Damage::Data { block, at, bytes } => {
                let data = part_mut(sample, block);
                if !data.is_empty() {
                    let at = at.index(data.len());
                    for (place, byte) in data[at..].iter_mut().zip(bytes) {
                        *place = *byte;
                    }
                }
            }
            Damage::Length { block, len } => part_mut(sample, block).resize(*len, 0),
            Damage::DataNoise { block, noise } => part_mut(sample, block).clone_from(noise),
            Damage::Kind(info) => {
                if crate::identify(sample.rmgr, *info).is_some() {
                    sample.info = *info;
                }
            }
            Damage::Swap(one, other) => {
                let count = sample.blocks.len();
                let other = sample.blocks[other.index(count)].page;
                one.get_mut(&mut sample.blocks).page = other;
            }
        }
    }
}

/// What a record's memory, and that of its effects, held before does not matter.
fn assert_reads_anew(sample: &Sample, before: &[Sample]) {
    let (raw, expected) = (sample.raw(), sample.record());
    let expected_effects = effects(&expected, &RedoContext::default());
    for before in before {
        let mut record = before.record();
        let mut its_effects = effects(&record, &RedoContext::default()).unwrap_or_default();
        assert_eq!(record.read(raw.start, raw.end, &raw.bytes), Ok(()));
        assert_eq!(record, expected);
        let read = its_effects.read(&record, &RedoContext::default());
        assert_eq!(read.map(|()| its_effects), expected_effects);
    }
}

fn part_mut<'a>(sample: &'a mut Sample, block: &Option<Index>) -> &'a mut Vec<u8> {
    match block {
        Some(block) => &mut block.get_mut(&mut sample.blocks).data,
        None => &mut sample.main,
    }
}

/// Each sample is replayed without an error as it is, and without a panic when it is damaged.
pub(crate) fn assert_never_panics(samples: &[Sample]) {
    for sample in samples {
        if let Err(error) = sample.replay() {
            panic!("{error}: {:?}", sample.record());
        }
        assert_reads_anew(sample, samples);
    }
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(CASES_PER_SAMPLE * samples.len() as u32)
    });
    let cases = (any::<Index>(), prop::collection::vec(damage(), 1..5));
    runner
        .run(&cases, |(sample, damages)| {
            let mut sample = sample.get(samples).clone();
            for damage in &damages {
                damage.put_on(&mut sample);
            }
            sample.survive();
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
