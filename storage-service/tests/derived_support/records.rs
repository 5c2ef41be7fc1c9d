//! WAL records as PostgreSQL 15 writes them (`xlogrecord.h` and each manager's header file, 15.18).

use bytes::Bytes;
use pg_quorum_types::{ClusterFacts, DatabaseKey, Lsn, RelFileNode, RelFork};
use pg_quorum_wal::{RawRecord, WalLayout};

pub const FACTS: ClusterFacts = ClusterFacts {
    system_identifier: 7_400_000_000_000_000_000,
    timeline: 1,
    wal_segment_bytes: 1 << 20,
    data_checksums: true,
    pg_control_version: 1300,
    catalog_version: 202_209_061,
    pg_major: 15,
};

const RM_XLOG: u8 = 0;
const RM_XACT: u8 = 1;
const RM_SMGR: u8 = 2;
const RM_DBASE: u8 = 4;
const RM_TBLSPC: u8 = 5;
const RM_HEAP: u8 = 10;

const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;

/// `pg_control` of a cluster that was stopped at a shutdown checkpoint just below the base.
pub fn control_file(facts: &ClusterFacts) -> Bytes {
    control_file_with(facts, &[])
}

/// The same with some words of the checkpoint's copy (`CheckPoint`) changed, each by its offset there.
pub fn control_file_with(facts: &ClusterFacts, checkpoint_words: &[(usize, u32)]) -> Bytes {
    let mut file = vec![0_u8; 8192];
    let mut word = |at: usize, value: u32| file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    word(8, facts.pg_control_version);
    word(12, facts.catalog_version);
    word(16, 1); // DB_SHUTDOWNED
    word(40 + 8, facts.timeline);
    word(40 + 12, facts.timeline);
    word(40 + 24, 740); // nextXid
    word(40 + 32, 16384); // nextOid
    word(40 + 36, 1); // nextMulti
    word(40 + 44, 717); // oldestXid
    word(40 + 52, 1); // oldestMulti
    for (offset, value) in checkpoint_words {
        word(40 + offset, *value);
    }
    word(172, 1); // wal_level replica
    word(180, 100); // max_connections
    word(216, 8192);
    word(220, 131_072);
    word(224, 8192);
    word(228, facts.wal_segment_bytes);
    word(252, u32::from(facts.data_checksums));
    file[..8].copy_from_slice(&facts.system_identifier.to_le_bytes());
    let checkpoint = super::BASE.0 - 0x78;
    file[32..40].copy_from_slice(&checkpoint.to_le_bytes());
    file[40..48].copy_from_slice(&checkpoint.to_le_bytes());
    let crc = crc32c::crc32c(&file[..288]);
    file[288..292].copy_from_slice(&crc.to_le_bytes());
    file.into()
}

/// Makes records that follow each other.
pub struct WalWriter {
    layout: WalLayout,
    end: Lsn,
    previous_start: Lsn,
    /// Start and end of all records.
    made: Vec<(Lsn, Lsn)>,
}

struct Block {
    flags: u8,
    fork: RelFork,
    block: u32,
    image: Option<Vec<u8>>,
    data: Vec<u8>,
}

fn rel_bytes(rel: RelFileNode) -> Vec<u8> {
    [rel.spc, rel.db, rel.rel]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

impl WalWriter {
    pub fn new(facts: ClusterFacts, end: Lsn) -> WalWriter {
        WalWriter {
            layout: WalLayout::new(&facts),
            end,
            previous_start: Lsn(end.0 - 0x78),
            made: Vec::new(),
        }
    }

    /// Goes on from an earlier record's end.
    pub fn go_back(&mut self, to: Lsn) {
        self.made.retain(|(_, end)| *end <= to);
        self.end = to;
        if let Some((start, end)) = self.made.last() {
            assert_eq!(*end, to, "a cut is at a record's end");
            self.previous_start = *start;
        }
    }

    fn record(&mut self, rmgr: u8, info: u8, xid: u32, blocks: &[Block], main: &[u8]) -> RawRecord {
        let mut body = Vec::new();
        for (id, block) in blocks.iter().enumerate() {
            body.extend_from_slice(&[id as u8, block.flags | block.fork.fork as u8]);
            body.extend_from_slice(&(block.data.len() as u16).to_le_bytes());
            if let Some(image) = &block.image {
                body.extend_from_slice(&(image.len() as u16).to_le_bytes());
                body.extend_from_slice(&[0, 0, 0x02]); // no hole, BKPIMAGE_APPLY
            }
            body.extend_from_slice(&rel_bytes(block.fork.rel));
            body.extend_from_slice(&block.block.to_le_bytes());
        }
        match u8::try_from(main.len()) {
            Ok(0) => {}
            Ok(length) => body.extend_from_slice(&[255, length]),
            Err(_) => {
                body.push(254);
                body.extend_from_slice(&(main.len() as u32).to_le_bytes());
            }
        }
        for block in blocks {
            body.extend_from_slice(block.image.as_deref().unwrap_or_default());
            body.extend_from_slice(&block.data);
        }
        body.extend_from_slice(main);
        self.finish(rmgr, info, xid, &body)
    }

    fn finish(&mut self, rmgr: u8, info: u8, xid: u32, body: &[u8]) -> RawRecord {
        let mut bytes = Vec::with_capacity(24 + body.len());
        bytes.extend_from_slice(&(24 + body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&xid.to_le_bytes());
        bytes.extend_from_slice(&self.previous_start.0.to_le_bytes());
        bytes.extend_from_slice(&[info, rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(body);
        let start = self.layout.next_record_start(self.end);
        let end = self.layout.record_end(start, &bytes).unwrap();
        self.previous_start = start;
        self.end = end;
        self.made.push((start, end));
        RawRecord {
            start,
            end,
            bytes: bytes.into(),
        }
    }

    /// The start of the last record.
    pub fn last_start(&self) -> Lsn {
        self.previous_start
    }

    /// A full-page image whose body is `fill`.
    pub fn full_page(&mut self, fork: RelFork, block: u32, fill: u8) -> RawRecord {
        let mut image = vec![fill; 8192];
        image[..24].fill(0);
        image[12..14].copy_from_slice(&24_u16.to_le_bytes()); // pd_lower
        image[14..16].copy_from_slice(&8192_u16.to_le_bytes()); // pd_upper
        image[16..18].copy_from_slice(&8192_u16.to_le_bytes()); // pd_special
        image[18..20].copy_from_slice(&0x2004_u16.to_le_bytes()); // size and version
        self.image(fork, block, image)
    }

    pub fn image(&mut self, fork: RelFork, block: u32, image: Vec<u8>) -> RawRecord {
        let block = Block {
            flags: HAS_IMAGE,
            fork,
            block,
            image: Some(image),
            data: Vec::new(),
        };
        self.record(RM_XLOG, 0xB0, 0, &[block], &[])
    }

    /// `XLOG_HEAP_INSERT` of a tuple with `data`; `offset` 1 on a page that the record makes anew.
    pub fn heap_insert(&mut self, fork: RelFork, block: u32, offset: u16, data: &[u8]) -> RawRecord {
        self.heap_insert_by(745, fork, block, offset, data)
    }

    pub fn heap_insert_by(
        &mut self,
        xid: u32,
        fork: RelFork,
        block: u32,
        offset: u16,
        data: &[u8],
    ) -> RawRecord {
        let init = offset == 1;
        let mut tuple = vec![1, 0, 0x00, 0x08, 24, 0]; // one attribute, HEAP_XMAX_INVALID, t_hoff, pad
        tuple.extend_from_slice(data);
        let block = Block {
            flags: HAS_DATA | if init { WILL_INIT } else { 0 },
            fork,
            block,
            image: None,
            data: tuple,
        };
        let main = [&offset.to_le_bytes()[..], &[0]].concat();
        self.record(RM_HEAP, if init { 0x80 } else { 0 }, xid, &[block], &main)
    }

    pub fn create(&mut self, fork: RelFork) -> RawRecord {
        let main = [rel_bytes(fork.rel), (fork.fork as u32).to_le_bytes().to_vec()].concat();
        self.record(RM_SMGR, 0x10, 745, &[], &main)
    }

    pub fn truncate(&mut self, rel: RelFileNode, blocks: u32) -> RawRecord {
        let main = [
            blocks.to_le_bytes().to_vec(),
            rel_bytes(rel),
            7_u32.to_le_bytes().to_vec(),
        ]
        .concat();
        self.record(RM_SMGR, 0x20, 745, &[], &main)
    }

    /// A commit that drops relations.
    pub fn commit_dropping(&mut self, xid: u32, rels: &[RelFileNode]) -> RawRecord {
        let mut main = 0_u64.to_le_bytes().to_vec();
        main.extend_from_slice(&4_u32.to_le_bytes()); // XACT_XINFO_HAS_RELFILENODES
        main.extend_from_slice(&(rels.len() as u32).to_le_bytes());
        rels.iter()
            .for_each(|rel| main.extend_from_slice(&rel_bytes(*rel)));
        self.record(RM_XACT, 0x80, xid, &[], &main)
    }

    fn database_numbers(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    pub fn copy_database(&mut self, from: DatabaseKey, to: DatabaseKey) -> RawRecord {
        let main = Self::database_numbers(&[to.db, to.spc, from.db, from.spc]);
        self.record(RM_DBASE, 0x00, 745, &[], &main)
    }

    pub fn create_database(&mut self, database: DatabaseKey) -> RawRecord {
        let main = Self::database_numbers(&[database.db, database.spc]);
        self.record(RM_DBASE, 0x10, 745, &[], &main)
    }

    pub fn drop_database(&mut self, database: DatabaseKey) -> RawRecord {
        let main = Self::database_numbers(&[database.db, 1, database.spc]);
        self.record(RM_DBASE, 0x20, 745, &[], &main)
    }

    pub fn create_tablespace(&mut self, spc: u32, location: &[u8]) -> RawRecord {
        let main = [&spc.to_le_bytes()[..], location, &[0]].concat();
        self.record(RM_TBLSPC, 0x00, 745, &[], &main)
    }
}
