//! A record and a page that it is replayed on, out of any bytes.
//!
//! A mutated record would hardly ever be one: lengths would not add up, and nothing behind the decoder would be
//! reached. So an input holds the parts, and the record is put together here.

use bytes::Bytes;
use pg_quorum_types::{BLOCK_SIZE, ForkNumber, Lsn, RelFileNode};
use pg_quorum_wal::{
    Compression, Page, RECORD_HEADER_BYTES, RawRecord, Record, RedoContext, Rmgr, WalLayout,
};

use crate::bytes_in::BytesIn;
use crate::{FACTS, RECORD_START, pages};

/// Block references of one record, at most.
const MAX_BLOCKS: usize = 33;
/// The relation numbers of a case are counted from here (`FirstNormalObjectId`).
const FIRST_RELATION: u32 = 16384;

const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const IMAGE_HAS_HOLE: u8 = 0x01;
const IMAGE_APPLY: u8 = 0x02;

/// What the record is replayed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartPage {
    Zeros,
    Noise,
    /// Valid in structure, with contents that no server put there.
    Sound,
    Given,
}

/// See the module.
///
/// ```text
///  0 settings u8: bit 0 hint bits logged, bit 1 commit timestamps tracked, bits 2 and 3 start page,
///    bit 4 the page keeps its LSN (else it is older than the record)
///  1 resource manager u8 | 2 info u8 | 3 blocks u8 | 4 xid u32 | 8 origin u16 | 10 bytes of main data u16
/// 12 of each block: ids left out before it u8 | flags u8: bits 0 and 1 fork, bit 2 image, bit 3 applied,
///    bits 4 and 5 compression, bit 6 made anew | relation u8 | block u32 | bytes of data u16
///    with an image: hole offset u16 | hole bytes u16 | bytes u16
///  - of each block: image, data; then main data; then the page: bytes of its front u16 | front | end
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordCase {
    pub ctx: RedoContext,
    pub start_page: StartPage,
    pub keeps_lsn: bool,
    pub rmgr: Rmgr,
    pub info: u8,
    pub xid: u32,
    pub origin: u16,
    pub blocks: Vec<CaseBlock>,
    pub main: Vec<u8>,
    /// What the start page is made of.
    pub page: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseBlock {
    pub id: u8,
    pub fork: ForkNumber,
    /// The how manieth relation of the record.
    pub relation: u8,
    pub block: u32,
    pub will_init: bool,
    pub image: Option<CaseImage>,
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseImage {
    pub applied: bool,
    pub compression: Option<Compression>,
    pub hole_offset: u16,
    pub hole_length: u16,
    pub bytes: Vec<u8>,
}

const COMPRESSIONS: [Option<Compression>; 4] = [
    None,
    Some(Compression::Pglz),
    Some(Compression::Lz4),
    Some(Compression::Zstd),
];

impl RecordCase {
    /// Any bytes are a case.
    pub fn from_bytes(input: &[u8]) -> RecordCase {
        let mut input = BytesIn(input);
        let settings = input.u8();
        let mut case = RecordCase {
            ctx: RedoContext {
                hint_bits_logged: settings & 1 != 0,
                track_commit_timestamp: settings & 2 != 0,
            },
            start_page: match settings >> 2 & 3 {
                0 => StartPage::Zeros,
                1 => StartPage::Noise,
                2 => StartPage::Sound,
                _ => StartPage::Given,
            },
            keeps_lsn: settings & 0x10 != 0,
            rmgr: Rmgr::ALL[usize::from(input.u8()) % Rmgr::ALL.len()],
            info: input.u8(),
            blocks: Vec::new(),
            xid: 0,
            origin: 0,
            main: Vec::new(),
            page: Vec::new(),
        };
        let blocks = input.u8();
        case.xid = input.u32();
        case.origin = input.u16();
        let main_bytes = usize::from(input.u16());
        let mut lengths = Vec::new();
        let mut next_id = 0;
        for _ in 0..blocks {
            let id = usize::from(input.u8()) + next_id;
            if id >= MAX_BLOCKS {
                break;
            }
            next_id = id + 1;
            let (block, image_bytes, data_bytes) = CaseBlock::read_header(id as u8, &mut input);
            case.blocks.push(block);
            lengths.push((image_bytes, data_bytes));
        }
        for (block, (image_bytes, data_bytes)) in case.blocks.iter_mut().zip(lengths) {
            if let Some(image) = &mut block.image {
                image.bytes = input.take(image_bytes).to_vec();
            }
            block.data = input.take(data_bytes).to_vec();
        }
        case.main = input.take(main_bytes).to_vec();
        case.page = input.rest().to_vec();
        case
    }

    /// The inverse of [`RecordCase::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let start_page = match self.start_page {
            StartPage::Zeros => 0,
            StartPage::Noise => 1,
            StartPage::Sound => 2,
            StartPage::Given => 3,
        };
        let settings = u8::from(self.ctx.hint_bits_logged)
            | u8::from(self.ctx.track_commit_timestamp) << 1
            | start_page << 2
            | u8::from(self.keeps_lsn) << 4;
        let mut out = vec![settings, self.rmgr as u8, self.info, self.blocks.len() as u8];
        out.extend_from_slice(&self.xid.to_le_bytes());
        out.extend_from_slice(&self.origin.to_le_bytes());
        out.extend_from_slice(&(self.main.len() as u16).to_le_bytes());
        let mut next_id = 0;
        for block in &self.blocks {
            out.push(block.id - next_id);
            next_id = block.id + 1;
            block.write_header(&mut out);
        }
        for block in &self.blocks {
            if let Some(image) = &block.image {
                out.extend_from_slice(&image.bytes);
            }
            out.extend_from_slice(&block.data);
        }
        out.extend_from_slice(&self.main);
        out.extend_from_slice(&self.page);
        out
    }

    /// The case of a server's record that is to be replayed on `page`. Images that serve checks only are left out, as
    /// in the log of a server without `wal_consistency_checking`.
    ///
    /// `None` if its main data is too long for a case.
    pub fn of_record(record: &Record<'_>, ctx: &RedoContext, page: Option<&Page>) -> Option<RecordCase> {
        let mut relations: Vec<RelFileNode> = Vec::new();
        let mut relation_number = |rel: RelFileNode| match relations.iter().position(|known| *known == rel) {
            Some(number) => number as u8,
            None => {
                relations.push(rel);
                relations.len() as u8 - 1
            }
        };
        let blocks = record.blocks.iter().map(|block| CaseBlock {
            id: block.id,
            fork: block.rel.fork,
            relation: relation_number(block.rel.rel),
            block: block.block,
            will_init: block.will_init,
            image: block.applied_image().map(|image| CaseImage {
                applied: true,
                compression: image.compression,
                hole_offset: image.hole_offset,
                hole_length: image.hole_length,
                bytes: image.bytes.to_vec(),
            }),
            data: block.data.to_vec(),
        });
        u16::try_from(record.main.len()).ok()?;
        Some(RecordCase {
            ctx: *ctx,
            start_page: match page {
                Some(_) => StartPage::Given,
                None => StartPage::Zeros,
            },
            keeps_lsn: false,
            rmgr: record.rmgr,
            info: record.info,
            xid: record.xid,
            origin: record.origin.unwrap_or(0),
            blocks: blocks.collect(),
            main: record.main.to_vec(),
            page: page.map(pages::stored).unwrap_or_default(),
        })
    }

    /// The record as it would stand in the log, at [`RECORD_START`].
    pub fn raw(&self) -> RawRecord {
        let mut body = Vec::new();
        let mut payload = Vec::new();
        for block in &self.blocks {
            block.encode(&mut body, &mut payload);
        }
        if self.origin != 0 {
            body.push(253); // XLR_BLOCK_ID_ORIGIN
            body.extend_from_slice(&self.origin.to_le_bytes());
        }
        match u8::try_from(self.main.len()) {
            Ok(0) => {}
            Ok(len) => body.extend_from_slice(&[255, len]), // XLR_BLOCK_ID_DATA_SHORT
            Err(_) => {
                body.push(254); // XLR_BLOCK_ID_DATA_LONG
                body.extend_from_slice(&(self.main.len() as u32).to_le_bytes());
            }
        }
        payload.extend_from_slice(&self.main);
        body.extend_from_slice(&payload);
        raw_record(
            WalLayout::new(&FACTS),
            RECORD_START,
            RECORD_START,
            self.xid,
            self.info,
            self.rmgr as u8,
            &body,
        )
    }

    /// The page on which the record is replayed.
    pub fn page(&self) -> Page {
        let mut page = match self.start_page {
            StartPage::Zeros => [0; BLOCK_SIZE],
            StartPage::Noise => pages::noise(&self.page),
            StartPage::Sound => pages::sound(&self.page),
            StartPage::Given => pages::given(&self.page),
        };
        if !self.keeps_lsn {
            page[..4].fill(0);
        }
        page
    }
}

/// A record of these parts, with its length and checksum.
pub(crate) fn raw_record(
    layout: WalLayout,
    start: Lsn,
    prev: Lsn,
    xid: u32,
    info: u8,
    rmgr: u8,
    body: &[u8],
) -> RawRecord {
    let length = RECORD_HEADER_BYTES + body.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&xid.to_le_bytes());
    bytes.extend_from_slice(&prev.0.to_le_bytes());
    bytes.extend_from_slice(&[info, rmgr, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(body);
    let crc = crc32c::crc32c_append(crc32c::crc32c(body), &bytes[..20]);
    bytes[20..RECORD_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    RawRecord {
        start,
        end: layout
            .record_end(start, &bytes)
            .expect("records are made where records can start"),
        bytes: Bytes::from(bytes),
    }
}

impl CaseBlock {
    fn read_header(id: u8, input: &mut BytesIn<'_>) -> (CaseBlock, usize, usize) {
        let flags = input.u8();
        let mut block = CaseBlock {
            id,
            fork: ForkNumber::ALL[usize::from(flags & 3)],
            relation: input.u8(),
            block: input.u32(),
            will_init: flags & 0x40 != 0,
            image: None,
            data: Vec::new(),
        };
        let data_bytes = usize::from(input.u16());
        let mut image_bytes = 0;
        if flags & 4 != 0 {
            block.image = Some(CaseImage {
                applied: flags & 8 != 0,
                compression: COMPRESSIONS[usize::from(flags >> 4 & 3)],
                hole_offset: input.u16(),
                hole_length: input.u16(),
                bytes: Vec::new(),
            });
            image_bytes = usize::from(input.u16());
        }
        (block, image_bytes, data_bytes)
    }

    fn write_header(&self, out: &mut Vec<u8>) {
        let mut flags = self.fork as u8 | u8::from(self.will_init) << 6;
        if let Some(image) = &self.image {
            let compression = COMPRESSIONS.iter().position(|known| *known == image.compression);
            flags |= 4 | u8::from(image.applied) << 3 | (compression.unwrap_or(0) as u8) << 4;
        }
        out.extend_from_slice(&[flags, self.relation]);
        out.extend_from_slice(&self.block.to_le_bytes());
        out.extend_from_slice(&(self.data.len() as u16).to_le_bytes());
        if let Some(image) = &self.image {
            for value in [image.hole_offset, image.hole_length, image.bytes.len() as u16] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// The block reference's header, and what the payload has of it (`XLogRecordAssemble`, xloginsert.c, 15.18).
    fn encode(&self, body: &mut Vec<u8>, payload: &mut Vec<u8>) {
        let mut flags = self.fork as u8;
        for (is_set, flag) in [
            (self.image.is_some(), HAS_IMAGE),
            (!self.data.is_empty(), HAS_DATA),
            (self.will_init, WILL_INIT),
        ] {
            if is_set {
                flags |= flag;
            }
        }
        body.extend_from_slice(&[self.id, flags]);
        body.extend_from_slice(&(self.data.len() as u16).to_le_bytes());
        if let Some(image) = &self.image {
            image.encode_header(body);
            payload.extend_from_slice(&image.bytes);
        }
        for number in [1663, 5, FIRST_RELATION + u32::from(self.relation), self.block] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        payload.extend_from_slice(&self.data);
    }
}

impl CaseImage {
    fn encode_header(&self, body: &mut Vec<u8>) {
        let compression = match self.compression {
            None => 0,
            Some(Compression::Pglz) => 0x04,
            Some(Compression::Lz4) => 0x08,
            Some(Compression::Zstd) => 0x10,
        };
        let has_hole = self.hole_length != 0;
        let mut info = compression;
        if has_hole {
            info |= IMAGE_HAS_HOLE;
        }
        if self.applied {
            info |= IMAGE_APPLY;
        }
        body.extend_from_slice(&(self.bytes.len() as u16).to_le_bytes());
        body.extend_from_slice(&self.hole_offset.to_le_bytes());
        body.push(info);
        if has_hole && self.compression.is_some() {
            body.extend_from_slice(&self.hole_length.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> RecordCase {
        let block = CaseBlock {
            id: 2,
            fork: ForkNumber::VisibilityMap,
            relation: 1,
            block: 70_000,
            will_init: true,
            image: None,
            data: b"data".to_vec(),
        };
        RecordCase {
            ctx: RedoContext {
                hint_bits_logged: true,
                track_commit_timestamp: false,
            },
            start_page: StartPage::Sound,
            keeps_lsn: true,
            rmgr: Rmgr::Generic,
            info: 0,
            xid: 777,
            origin: 3,
            blocks: vec![
                block.clone(),
                CaseBlock {
                    id: 5,
                    will_init: false,
                    image: Some(CaseImage {
                        applied: true,
                        compression: Some(Compression::Lz4),
                        hole_offset: 100,
                        hole_length: 200,
                        bytes: vec![1, 2, 3],
                    }),
                    ..block
                },
            ],
            main: vec![7; 300],
            page: vec![9, 9, 9],
        }
    }

    #[test]
    fn a_case_round_trips_and_any_bytes_are_one() {
        let case = case();
        assert_eq!(RecordCase::from_bytes(&case.to_bytes()), case);
        let bytes = case.to_bytes();
        for cut in 0..bytes.len() {
            RecordCase::from_bytes(&bytes[..cut]).raw().check_crc().unwrap();
        }
    }

    #[test]
    fn the_record_of_a_case_is_what_the_decoder_reads() {
        let case = case();
        let raw = case.raw();
        raw.check_crc().unwrap();
        let record = Record::decode(&raw).unwrap();
        let again = RecordCase::of_record(&record, &case.ctx, None).unwrap();
        let expected = RecordCase {
            start_page: StartPage::Zeros,
            keeps_lsn: false,
            page: Vec::new(),
            ..case
        };
        // The only relation is the first one again.
        let expected = RecordCase {
            blocks: expected
                .blocks
                .into_iter()
                .map(|block| CaseBlock { relation: 0, ..block })
                .collect(),
            ..expected
        };
        assert_eq!(again, expected);
    }
}
