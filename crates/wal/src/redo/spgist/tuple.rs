//! The tuples of SP-GiST pages (spgist_private.h, 15.18).
//!
//! ```text
//! leaf, dead:  0 tupstate (2 bits), size (30 bits)   4 t_info (14 bits next offset, 2 flags)   6 TID
//!              leaf: 12 nulls bitmap, values         dead: 12 xid
//! inner:       0 tupstate (2 bits), allTheSame (1 bit), nNodes (13 bits), prefixSize (16 bits)
//!              4 size   8 prefix, then nodes, which are index tuples
//! ```

use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple::{self, StoredTid, TID_BYTES, TUPLE_HEADER_BYTES, damaged};

/// `sizeof(SpGistLeafTupleData)`.
const LEAF_HEADER_BYTES: usize = 12;
/// `SGITHDRSZ`.
const INNER_HEADER_BYTES: usize = 8;
/// `SGDTSIZE`.
const DEAD_TUPLE_BYTES: usize = 16;
/// `ItemPointerSetInvalid`.
const NO_TID: StoredTid = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0];

/// `tupstate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TupleState {
    Live,
    Redirect,
    Dead,
    Placeholder,
}

const STATE_MASK: u8 = 3;

/// The state of any tuple.
pub(super) fn state(tuple: &[u8]) -> Result<TupleState, RedoFault> {
    let head = tuple.first().ok_or(damaged("is empty"))?;
    Ok(match head & STATE_MASK {
        0 => TupleState::Live,
        1 => TupleState::Redirect,
        2 => TupleState::Dead,
        _ => TupleState::Placeholder,
    })
}

/// What takes the place of a tuple that goes (`spgFormDeadTuple`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeadTuple {
    Redirect { to: StoredTid, xid: u32 },
    Dead,
    Placeholder,
}

impl DeadTuple {
    pub(super) fn bytes(self) -> [u8; DEAD_TUPLE_BYTES] {
        let (state, pointer, xid) = match self {
            DeadTuple::Redirect { to, xid } => (TupleState::Redirect, to, xid),
            DeadTuple::Dead => (TupleState::Dead, NO_TID, 0),
            DeadTuple::Placeholder => (TupleState::Placeholder, NO_TID, 0),
        };
        let head = (DEAD_TUPLE_BYTES as u32) << 2 | state as u32;
        let mut tuple = [0; DEAD_TUPLE_BYTES];
        tuple[..4].copy_from_slice(&head.to_le_bytes());
        tuple[6..12].copy_from_slice(&pointer);
        tuple[12..].copy_from_slice(&xid.to_le_bytes());
        tuple
    }
}

/// A redirect tuple becomes a placeholder; its xid stays.
pub(super) fn redirect_to_placeholder(tuple: &mut [u8]) -> Result<(), RedoFault> {
    if state(tuple)? != TupleState::Redirect {
        return Err(damaged("is no redirection"));
    }
    let pointer = tuple.get_mut(6..12).ok_or(damaged("shorter than a dead tuple"))?;
    pointer.copy_from_slice(&NO_TID);
    tuple[0] |= TupleState::Placeholder as u8;
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The next leaf tuple in a record's data, where tuples stand one after the other, unaligned.
pub(super) fn read_leaf<'a>(data: &mut Fields<'a>) -> Result<&'a [u8], RedoFault> {
    let mut ahead = *data;
    let size = ahead.u32()? >> 2;
    sized(data, size as usize, LEAF_HEADER_BYTES)
}

/// The next inner tuple.
pub(super) fn read_inner<'a>(data: &mut Fields<'a>) -> Result<&'a [u8], RedoFault> {
    let mut ahead = *data;
    let _bit_fields = ahead.u32()?;
    let size = ahead.u16()?;
    sized(data, usize::from(size), INNER_HEADER_BYTES)
}

fn sized<'a>(data: &mut Fields<'a>, size: usize, header_bytes: usize) -> Result<&'a [u8], RedoFault> {
    if size < header_bytes {
        return Err(damaged("size is smaller than a tuple header"));
    }
    data.take(size)
}

/// `SGLT_SET_NEXTOFFSET`: the flags beside it stay.
pub(super) fn set_next_offset(leaf: &mut [u8], next: u16) -> Result<(), RedoFault> {
    const OFFSET_MASK: u16 = 0x3FFF;
    if leaf.len() < LEAF_HEADER_BYTES {
        return Err(damaged("shorter than a leaf tuple header"));
    }
    let info = u16_at(leaf, 4) & !OFFSET_MASK | next & OFFSET_MASK;
    leaf[4..6].copy_from_slice(&info.to_le_bytes());
    Ok(())
}

/// `spgUpdateNodeLink`: node number `node` of an inner tuple points to `to`.
pub(super) fn set_node_link(inner: &mut [u8], node: u16, to: StoredTid) -> Result<(), RedoFault> {
    if inner.len() < INNER_HEADER_BYTES {
        return Err(damaged("shorter than an inner tuple header"));
    }
    let node_count = u16_at(inner, 0) >> 3;
    let prefix_bytes = u16_at(inner, 2);
    if node >= node_count {
        return Err(damaged("does not have the node whose link changes"));
    }
    let outside = damaged("its nodes reach behind its end");
    let mut at = INNER_HEADER_BYTES + usize::from(prefix_bytes);
    for _ in 0..node {
        at += index_tuple::size(inner.get(at..).ok_or(outside.clone())?)?;
    }
    let header = inner.get_mut(at..at + TUPLE_HEADER_BYTES).ok_or(outside)?;
    header[..TID_BYTES].copy_from_slice(&to);
    Ok(())
}
