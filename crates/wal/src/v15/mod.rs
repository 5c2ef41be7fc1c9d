//! PostgreSQL 15's numbers: WAL pages, records, kinds of records.
//!
//! A byte layout that another major version changes is described here or in a module next to this one.

pub(crate) mod checkpoint;
pub(crate) mod control;
mod identify;
pub(crate) mod kind;
pub(crate) mod settings;

pub use checkpoint::Checkpoint;
pub use identify::identify;
pub(crate) use identify::is_known;
pub use settings::Parameters;

/// `XLOG_PAGE_MAGIC`.
pub(crate) const PAGE_MAGIC: u16 = 0xD110;
/// `XLOG_BLCKSZ`, bytes. Servers built with another size are refused.
pub(crate) const WAL_PAGE_BYTES: u64 = 8192;
/// `SizeOfXLogShortPHD`.
pub(crate) const SHORT_PAGE_HEADER_BYTES: u64 = 24;
/// `SizeOfXLogLongPHD`, on the first page of a segment.
pub(crate) const LONG_PAGE_HEADER_BYTES: u64 = 40;

/// `XLP_FIRST_IS_CONTRECORD`.
pub(crate) const PAGE_FIRST_IS_CONTINUATION: u16 = 0x0001;
/// `XLP_LONG_HEADER`.
pub(crate) const PAGE_LONG_HEADER: u16 = 0x0002;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`.
pub(crate) const PAGE_FIRST_IS_OVERWRITE: u16 = 0x0008;
/// `XLP_ALL_FLAGS`.
pub(crate) const PAGE_ALL_FLAGS: u16 = 0x000F;

/// `SizeOfXLogRecord`.
///
/// ```text
/// 0  xl_tot_len u32 | 4 xl_xid u32 | 8 xl_prev u64 | 16 xl_info u8 | 17 xl_rmid u8 | 18 zero u16 | 20 xl_crc u32
/// ```
pub const RECORD_HEADER_BYTES: usize = 24;
/// Offset of `xl_crc`; what stands before it is covered by the checksum.
pub(crate) const RECORD_CRC_OFFSET: usize = 20;
/// `~XLR_INFO_MASK`: the bits of `xl_info` that say the kind.
pub(crate) const INFO_KIND_MASK: u8 = 0xF0;

/// `XLR_MAX_BLOCK_ID`.
pub(crate) const MAX_BLOCK_ID: u8 = 32;
/// `XLR_BLOCK_ID_DATA_SHORT`.
pub(crate) const ID_MAIN_DATA_SHORT: u8 = 255;
/// `XLR_BLOCK_ID_DATA_LONG`.
pub(crate) const ID_MAIN_DATA_LONG: u8 = 254;
/// `XLR_BLOCK_ID_ORIGIN`.
pub(crate) const ID_ORIGIN: u8 = 253;
/// `XLR_BLOCK_ID_TOPLEVEL_XID`.
pub(crate) const ID_TOPLEVEL_XID: u8 = 252;

/// `BKPBLOCK_FORK_MASK`.
pub(crate) const BLOCK_FORK_MASK: u8 = 0x0F;
/// `BKPBLOCK_HAS_IMAGE`.
pub(crate) const BLOCK_HAS_IMAGE: u8 = 0x10;
/// `BKPBLOCK_HAS_DATA`.
pub(crate) const BLOCK_HAS_DATA: u8 = 0x20;
/// `BKPBLOCK_WILL_INIT`.
pub(crate) const BLOCK_WILL_INIT: u8 = 0x40;
/// `BKPBLOCK_SAME_REL`.
pub(crate) const BLOCK_SAME_REL: u8 = 0x80;

/// `BKPIMAGE_HAS_HOLE`.
pub(crate) const IMAGE_HAS_HOLE: u8 = 0x01;
/// `BKPIMAGE_APPLY`.
pub(crate) const IMAGE_APPLY: u8 = 0x02;
/// `BKPIMAGE_COMPRESS_PGLZ`.
pub(crate) const IMAGE_PGLZ: u8 = 0x04;
/// `BKPIMAGE_COMPRESS_LZ4`.
pub(crate) const IMAGE_LZ4: u8 = 0x08;
/// `BKPIMAGE_COMPRESS_ZSTD`.
pub(crate) const IMAGE_ZSTD: u8 = 0x10;
