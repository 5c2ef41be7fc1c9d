//! A record taken apart: header, block references with their images and data, main data.
//!
//! Mirrors `DecodeXLogRecord` (`access/transam/xlogreader.c`, 15.18) with all its checks, and refuses what
//! that function leaves for later to trip over (an image or hole that is larger than a page, a fork that
//! does not exist). Nothing is copied and nothing allocated for a record of up to two blocks: data and images
//! are slices of the raw record.

use pg_quorum_types::{BLOCK_SIZE, ForkNumber, Lsn, PageKey, RelFork};
use smallvec::SmallVec;

use crate::raw_record::RawRecord;
use crate::reader::Reader;
use crate::v15::{
    BLOCK_FORK_MASK, BLOCK_HAS_DATA, BLOCK_HAS_IMAGE, BLOCK_SAME_REL, BLOCK_WILL_INIT, ID_MAIN_DATA_LONG,
    ID_MAIN_DATA_SHORT, ID_ORIGIN, ID_TOPLEVEL_XID, IMAGE_APPLY, IMAGE_HAS_HOLE, IMAGE_LZ4, IMAGE_PGLZ,
    IMAGE_ZSTD, INFO_KIND_MASK, MAX_BLOCK_ID, RECORD_HEADER_BYTES, identify, is_known,
};
use crate::{Rmgr, WalError};

/// A decoded WAL record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// First byte (PostgreSQL's `ReadRecPtr`).
    pub start: Lsn,
    /// Exclusive end (`EndRecPtr`): the LSN that redo writes into a page.
    pub end: Lsn,
    /// Start of the record before.
    pub prev: Lsn,
    /// The transaction that wrote it, 0 for none.
    pub xid: u32,
    /// `xl_info` whole. The high four bits are the kind: [`Record::kind`].
    pub info: u8,
    pub rmgr: Rmgr,
    /// The resource manager's own data, not tied to a block.
    pub main: &'a [u8],
    /// Block references by rising id.
    pub blocks: SmallVec<[BlockRef<'a>; 2]>,
    /// The replication origin, if one was set.
    pub origin: Option<u16>,
    /// The top-level transaction, in the first record of a subtransaction under `wal_level = logical`.
    pub toplevel_xid: Option<u32>,
    /// Offset of `main` in the record, for errors.
    main_offset: usize,
}

/// One block that a record refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockRef<'a> {
    /// The number by which redo finds it, 0 to 32.
    pub id: u8,
    pub rel: RelFork,
    pub block: u32,
    /// Redo makes the page anew, whatever it was.
    pub will_init: bool,
    /// The resource manager's data for this block, empty if `has_data` is false.
    pub data: &'a [u8],
    pub has_data: bool,
    pub image: Option<BlockImage<'a>>,
}

impl<'a> BlockRef<'a> {
    pub fn key(&self) -> PageKey {
        PageKey::Relation {
            rel: self.rel,
            block: self.block,
        }
    }

    /// The image that replaces the page, if there is one (others are there for consistency checks only).
    pub fn applied_image(&self) -> Option<&BlockImage<'a>> {
        self.image.as_ref().filter(|image| image.apply)
    }

    /// Whether the record alone determines the page.
    pub fn is_full(&self) -> bool {
        self.will_init || self.applied_image().is_some()
    }
}

/// A page's content, maybe without the zeros in its middle, maybe compressed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockImage<'a> {
    /// The stored form: compressed if `compression` says so, always without the hole.
    pub bytes: &'a [u8],
    /// First byte of the hole, 0 without one.
    pub hole_offset: u16,
    /// Bytes of the hole, 0 without one. `hole_offset + hole_length` is at most [`BLOCK_SIZE`].
    pub hole_length: u16,
    pub compression: Option<Compression>,
    /// Replay restores it. Otherwise it only serves to check the replayed page (`wal_consistency_checking`).
    pub apply: bool,
}

/// How an image is compressed (`wal_compression`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    Pglz,
    Lz4,
    Zstd,
}

impl<'a> Record<'a> {
    /// Takes a record apart. Its checksum is not compared: see [`RawRecord::check_crc`].
    ///
    /// # Errors
    /// Bytes that contradict the format, an unknown resource manager or kind of record.
    pub fn decode(raw: &'a RawRecord) -> Result<Record<'a>, WalError> {
        Record::parse(raw.start, raw.end, &raw.bytes)
    }

    /// The same for the bytes of a [`RawRecord`] from `start` to `end`.
    ///
    /// # Errors
    /// As for [`Record::decode`].
    pub fn parse(start: Lsn, end: Lsn, bytes: &'a [u8]) -> Result<Record<'a>, WalError> {
        let mut record = Record::empty();
        record.read(start, end, bytes)?;
        Ok(record)
    }

    /// A place for [`Record::read`].
    pub fn empty() -> Record<'a> {
        Record {
            start: Lsn::INVALID,
            end: Lsn::INVALID,
            prev: Lsn::INVALID,
            xid: 0,
            info: 0,
            rmgr: Rmgr::Xlog,
            main: &[],
            blocks: SmallVec::new(),
            origin: None,
            toplevel_xid: None,
            main_offset: RECORD_HEADER_BYTES,
        }
    }

    /// [`Record::parse`] in place, which saves the moves of a record where there are millions of them.
    ///
    /// # Errors
    /// As for [`Record::decode`]; the record then is none.
    #[inline]
    pub fn read(&mut self, start: Lsn, end: Lsn, bytes: &'a [u8]) -> Result<(), WalError> {
        let mut reader = Reader::new(bytes, start, 0);
        let header = reader.array::<RECORD_HEADER_BYTES>()?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let total_length = word(0);
        let xid = word(4);
        let prev = Lsn(u64::from(word(12)) << 32 | u64::from(word(8)));
        let (info, rmgr_id) = (header[16], header[17]);
        if total_length as usize != bytes.len() {
            return Err(WalError::BadRecord {
                lsn: start,
                offset: 0,
                problem: "its length is not that of the bytes given",
            });
        }
        let rmgr = Rmgr::from_id(rmgr_id).ok_or(WalError::UnknownResourceManager {
            lsn: start,
            id: rmgr_id,
        })?;
        if !is_known(rmgr, info) {
            return Err(WalError::UnknownRecord {
                lsn: start,
                rmgr,
                info,
            });
        }
        self.start = start;
        self.end = end;
        self.prev = prev;
        self.xid = xid;
        self.info = info;
        self.rmgr = rmgr;
        self.blocks.clear();
        self.origin = None;
        self.toplevel_xid = None;
        let mut lengths = PayloadLengths::default();
        decode_headers(&mut reader, self, &mut lengths)?;
        slice_payload(reader.position(), bytes, self, &lengths);
        Ok(())
    }

    /// The record's kind inside its resource manager: the high four bits of `info`.
    pub fn kind(&self) -> u8 {
        self.info & INFO_KIND_MASK
    }

    /// The kind's name as `pg_waldump` prints it.
    pub fn kind_name(&self) -> &'static str {
        identify(self.rmgr, self.info).unwrap_or("UNKNOWN")
    }

    /// The block reference with this id.
    pub fn block(&self, id: u8) -> Option<&BlockRef<'a>> {
        self.blocks.iter().find(|block| block.id == id)
    }

    /// The block reference to this page.
    pub fn block_of(&self, rel: RelFork, block: u32) -> Option<&BlockRef<'a>> {
        self.blocks
            .iter()
            .find(|reference| reference.block == block && reference.rel == rel)
    }

    /// Reads the main data from its beginning.
    pub(crate) fn main_reader(&self) -> Reader<'a> {
        Reader::new(self.main, self.start, self.main_offset)
    }
}

/// Lengths of the payload's parts, which the headers announce and the payload then has in the same order.
#[derive(Default)]
struct PayloadLengths {
    /// Per block reference: image, data.
    blocks: SmallVec<[(u16, u16); 2]>,
    main: usize,
}

fn decode_headers(
    reader: &mut Reader<'_>,
    record: &mut Record<'_>,
    lengths: &mut PayloadLengths,
) -> Result<(), WalError> {
    let mut announced = 0usize;
    while reader.remaining() > announced {
        let id = reader.u8()?;
        match id {
            ID_MAIN_DATA_SHORT => {
                lengths.main = usize::from(reader.u8()?);
                announced += lengths.main;
                break; // the main data is always last
            }
            ID_MAIN_DATA_LONG => {
                lengths.main = reader.u32()? as usize;
                announced += lengths.main;
                break;
            }
            ID_ORIGIN => record.origin = Some(reader.u16()?).filter(|origin| *origin != 0),
            ID_TOPLEVEL_XID => record.toplevel_xid = Some(reader.u32()?).filter(|xid| *xid != 0),
            0..=MAX_BLOCK_ID => {
                if record.blocks.last().is_some_and(|last| id <= last.id) {
                    return Err(reader.bad("block ids that do not rise"));
                }
                let (image_length, data_length) = decode_block_header(reader, id, &mut record.blocks)?;
                announced += usize::from(image_length) + usize::from(data_length);
                lengths.blocks.push((image_length, data_length));
            }
            _ => return Err(reader.bad("an id that is neither a block's nor one of the special ones")),
        }
    }
    if reader.remaining() != announced {
        return Err(reader.bad("the parts do not add up to its length"));
    }
    Ok(())
}

/// Adds a block, and returns the lengths of its image and its data.
fn decode_block_header(
    reader: &mut Reader<'_>,
    id: u8,
    blocks: &mut SmallVec<[BlockRef<'_>; 2]>,
) -> Result<(u16, u16), WalError> {
    let [flags, length, length_high] = *reader.array()?;
    let Some(fork) = ForkNumber::from_number(flags & BLOCK_FORK_MASK) else {
        return Err(reader.bad("a fork that does not exist"));
    };
    let has_data = flags & BLOCK_HAS_DATA != 0;
    let data_length = u16::from_le_bytes([length, length_high]);
    if has_data != (data_length > 0) {
        return Err(reader.bad("a block's data flag contradicts its data length"));
    }
    let image = match flags & BLOCK_HAS_IMAGE {
        0 => None,
        _ => Some(decode_image_header(reader)?),
    };
    let rel = if flags & BLOCK_SAME_REL == 0 {
        reader.rel_file_node()?
    } else {
        let last = blocks.last().map(|last| last.rel.rel);
        last.ok_or_else(|| reader.bad("the same relation as none before"))?
    };
    let block = reader.u32()?;
    blocks.push(BlockRef {
        id,
        rel: RelFork { rel, fork },
        block,
        will_init: flags & BLOCK_WILL_INIT != 0,
        data: &[],
        has_data,
        image: None,
    });
    // Most blocks have none: it is moved alone.
    let Some((image, image_length)) = image else {
        return Ok((0, data_length));
    };
    if let Some(block) = blocks.last_mut() {
        block.image = Some(image);
    }
    Ok((image_length, data_length))
}

fn decode_image_header<'a>(reader: &mut Reader<'_>) -> Result<(BlockImage<'a>, u16), WalError> {
    let length = reader.u16()?;
    let hole_offset = reader.u16()?;
    let info = reader.u8()?;
    let has_hole = info & IMAGE_HAS_HOLE != 0;
    // In the order in which RestoreBlockImage (15.18) looks.
    let compression = if info & IMAGE_PGLZ != 0 {
        Some(Compression::Pglz)
    } else if info & IMAGE_LZ4 != 0 {
        Some(Compression::Lz4)
    } else if info & IMAGE_ZSTD != 0 {
        Some(Compression::Zstd)
    } else {
        None
    };
    if usize::from(length) > BLOCK_SIZE {
        return Err(reader.bad("a block image larger than a page"));
    }
    let is_whole = usize::from(length) == BLOCK_SIZE;
    let hole_length = match (compression, has_hole) {
        (Some(_), true) => reader.u16()?,
        (Some(_), false) => 0,
        (None, _) => BLOCK_SIZE as u16 - length,
    };
    if has_hole && (hole_offset == 0 || hole_length == 0 || is_whole) {
        return Err(reader.bad("a block image with a hole that is none"));
    }
    if !has_hole && (hole_offset != 0 || hole_length != 0) {
        return Err(reader.bad("a block image that is no whole page and has no hole"));
    }
    if compression.is_some() && is_whole {
        return Err(reader.bad("a compressed block image of a page's length"));
    }
    if usize::from(hole_offset) + usize::from(hole_length) > BLOCK_SIZE {
        return Err(reader.bad("a hole that reaches behind its page"));
    }
    let image = BlockImage {
        bytes: &[],
        hole_offset,
        hole_length,
        compression,
        apply: info & IMAGE_APPLY != 0,
    };
    Ok((image, length))
}

/// Hands out the payload, whose length has been checked: images and data by block, then the main data.
fn slice_payload<'a>(headers_end: usize, bytes: &'a [u8], record: &mut Record<'a>, lengths: &PayloadLengths) {
    let mut at = headers_end;
    let mut take = |length: usize| {
        let from = at;
        at += length;
        &bytes[from..at]
    };
    for (block, (image_length, data_length)) in record.blocks.iter_mut().zip(&lengths.blocks) {
        if let Some(image) = &mut block.image {
            image.bytes = take(usize::from(*image_length));
        }
        block.data = take(usize::from(*data_length));
    }
    record.main = take(lengths.main);
    record.main_offset = bytes.len() - lengths.main;
}
