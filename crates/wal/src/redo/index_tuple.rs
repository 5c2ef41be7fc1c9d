//! The header of index tuples (itup.h, 15.18): 6 bytes TID, 2 bytes `t_info` (13 bits size, 3 flags).

use super::error::RedoFault;
use super::fields::Fields;
use super::page::max_align;

/// `sizeof(IndexTupleData)`.
pub(crate) const TUPLE_HEADER_BYTES: usize = 8;
/// `INDEX_SIZE_MASK`.
pub(crate) const SIZE_MASK: u16 = 0x1FFF;

/// `IndexTupleSize` of the tuple at the start of `bytes`.
pub(crate) fn size(bytes: &[u8]) -> Result<usize, RedoFault> {
    let header: &[u8; TUPLE_HEADER_BYTES] = bytes.first_chunk().ok_or(RedoFault::Tuple {
        offset: 0,
        reason: "shorter than an index tuple header",
    })?;
    Ok(usize::from(
        u16::from_le_bytes([header[6], header[7]]) & SIZE_MASK,
    ))
}

/// The next tuple of a record's data, with the padding that makes its size a multiple of 8.
pub(crate) fn take_aligned<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], RedoFault> {
    let size = size(fields.peek())?;
    if size < TUPLE_HEADER_BYTES {
        return Err(RedoFault::Tuple {
            offset: 0,
            reason: "smaller than an index tuple header",
        });
    }
    fields.take(max_align(size))
}
