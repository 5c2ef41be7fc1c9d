//! Index tuples as every access method has them, and the TIDs in them (itup.h, itemptr.h, 15.18).
//!
//! ```text
//! 0 t_tid (block high, block low, offset)   6 t_info (13 bits size, 3 flags)   8 key ...
//! ```

use super::error::RedoFault;
use super::fields::Fields;
use super::page::max_align;

/// `sizeof(IndexTupleData)`.
pub(crate) const TUPLE_HEADER_BYTES: usize = 8;
/// `sizeof(ItemPointerData)`.
pub(crate) const TID_BYTES: usize = 6;
/// `INDEX_SIZE_MASK`.
pub(crate) const SIZE_MASK: u16 = 0x1FFF;

/// A TID as it is stored: each half of the block number and the offset are little-endian.
pub(crate) type StoredTid = [u8; TID_BYTES];

pub(crate) fn damaged(reason: &'static str) -> RedoFault {
    RedoFault::Tuple { offset: 0, reason }
}

pub(crate) fn header(tuple: &[u8]) -> Result<&[u8; TUPLE_HEADER_BYTES], RedoFault> {
    tuple
        .first_chunk()
        .ok_or(damaged("shorter than an index tuple header"))
}

/// `t_info`.
pub(crate) fn info(header: &[u8; TUPLE_HEADER_BYTES]) -> u16 {
    u16::from_le_bytes([header[6], header[7]])
}

/// `IndexTupleSize`.
pub(crate) fn size(tuple: &[u8]) -> Result<usize, RedoFault> {
    Ok(usize::from(info(header(tuple)?) & SIZE_MASK))
}

/// The tuple at the start of `bytes`, cut to its own size.
pub(crate) fn whole(bytes: &[u8]) -> Result<&[u8], RedoFault> {
    let size = size(bytes)?;
    bytes
        .get(..size)
        .filter(|tuple| tuple.len() >= TUPLE_HEADER_BYTES)
        .ok_or(damaged("size does not fit its place"))
}

/// The block number in `t_tid`: a downlink in the tuples of internal pages.
pub(crate) fn downlink(tuple: &[u8]) -> Result<u32, RedoFault> {
    header(tuple).map(block_number)
}

pub(crate) fn block_number(header: &[u8; TUPLE_HEADER_BYTES]) -> u32 {
    u32::from(u16::from_le_bytes([header[0], header[1]])) << 16
        | u32::from(u16::from_le_bytes([header[2], header[3]]))
}

pub(crate) fn offset_number(header: &[u8; TUPLE_HEADER_BYTES]) -> u16 {
    u16::from_le_bytes([header[4], header[5]])
}

/// The next tuple in a record's data, where tuples stand one after the other.
pub(crate) fn read<'a>(data: &mut Fields<'a>) -> Result<&'a [u8], RedoFault> {
    let mut ahead = *data;
    let tuple = whole(ahead.rest())?;
    data.take(tuple.len())
}

/// The stored form of a block number in a TID (`BlockIdSet`).
pub(crate) fn block_bytes(block: u32) -> [u8; 4] {
    let high = ((block >> 16) as u16).to_le_bytes();
    let low = (block as u16).to_le_bytes();
    [high[0], high[1], low[0], low[1]]
}

/// Sets the block number in `t_tid`, and nothing else.
pub(crate) fn set_downlink(tuple: &mut [u8], block: u32) -> Result<(), RedoFault> {
    tuple
        .get_mut(..4)
        .ok_or(damaged("shorter than an index tuple header"))?
        .copy_from_slice(&block_bytes(block));
    Ok(())
}

/// The next tuple of a record's data, with the padding that makes its size a multiple of 8.
pub(crate) fn take_aligned<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], RedoFault> {
    let size = size(fields.peek())?;
    if size < TUPLE_HEADER_BYTES {
        return Err(damaged("smaller than an index tuple header"));
    }
    fields.take(max_align(size))
}

/// `ItemPointerSet`.
pub(crate) fn stored_tid(block: u32, offset: u16) -> StoredTid {
    let (block, offset) = (block_bytes(block), offset.to_le_bytes());
    [block[0], block[1], block[2], block[3], offset[0], offset[1]]
}
