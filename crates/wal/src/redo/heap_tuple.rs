//! The heap tuple header (`HeapTupleHeaderData`, htup_details.h, 15.18).
//!
//! ```text
//! 0 t_xmin   4 t_xmax   8 t_cid / t_xvac   12 t_ctid (block high, block low, offset)
//! 18 t_infomask2   20 t_infomask   22 t_hoff   23 null bitmap ... t_hoff: attribute data
//! ```

use super::error::RedoFault;
use super::page::{LinePointerState, PageLayout};
use crate::Page;

/// `SizeofHeapTupleHeader`.
pub(crate) const TUPLE_HEADER_BYTES: usize = 23;

pub(crate) const HEAP_XMAX_KEYSHR_LOCK: u16 = 0x0010;
pub(crate) const HEAP_COMBOCID: u16 = 0x0020;
pub(crate) const HEAP_XMAX_EXCL_LOCK: u16 = 0x0040;
pub(crate) const HEAP_XMAX_LOCK_ONLY: u16 = 0x0080;
pub(crate) const HEAP_XMIN_COMMITTED: u16 = 0x0100;
pub(crate) const HEAP_XMIN_INVALID: u16 = 0x0200;
pub(crate) const HEAP_XMAX_COMMITTED: u16 = 0x0400;
pub(crate) const HEAP_XMAX_INVALID: u16 = 0x0800;
pub(crate) const HEAP_XMAX_IS_MULTI: u16 = 0x1000;
const HEAP_MOVED: u16 = 0xC000;
const HEAP_LOCK_MASK: u16 = HEAP_XMAX_EXCL_LOCK | HEAP_XMAX_KEYSHR_LOCK;
const HEAP_XMAX_BITS: u16 =
    HEAP_XMAX_COMMITTED | HEAP_XMAX_INVALID | HEAP_XMAX_IS_MULTI | HEAP_LOCK_MASK | HEAP_XMAX_LOCK_ONLY;

const HEAP_KEYS_UPDATED: u16 = 0x2000;
const HEAP_HOT_UPDATED: u16 = 0x4000;

/// `SpecTokenOffsetNumber`.
const SPECULATIVE_OFFSET: u16 = 0xFFFE;
/// `MovedPartitionsOffsetNumber`.
const MOVED_PARTITIONS_OFFSET: u16 = 0xFFFD;

/// A tuple's address (`ItemPointerData`), in the order of `ItemPointerCompare`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TupleId {
    pub(crate) block: u32,
    pub(crate) offset: u16,
}

impl TupleId {
    /// `HeapTupleHeaderSetMovedPartitions`.
    pub(crate) const MOVED_PARTITIONS: TupleId = TupleId {
        block: u32::MAX,
        offset: MOVED_PARTITIONS_OFFSET,
    };

    pub(crate) fn from_bytes(bytes: &[u8; 6]) -> TupleId {
        let [high, high2, low, low2, offset, offset2] = *bytes;
        TupleId {
            block: u32::from(u16::from_le_bytes([high, high2])) << 16
                | u32::from(u16::from_le_bytes([low, low2])),
            offset: u16::from_le_bytes([offset, offset2]),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 6] {
        let high = ((self.block >> 16) as u16).to_le_bytes();
        let low = (self.block as u16).to_le_bytes();
        let offset = self.offset.to_le_bytes();
        [high[0], high[1], low[0], low[1], offset[0], offset[1]]
    }
}

/// A tuple on a page: at least a header long.
pub(crate) struct HeapTuple<'a> {
    bytes: &'a mut [u8],
}

impl<'a> HeapTuple<'a> {
    /// The tuple at `offset`, which must be a normal line pointer
    /// (what redo routines check with "invalid lp").
    pub(crate) fn normal_at(page: &'a mut Page, offset: u16) -> Result<HeapTuple<'a>, RedoFault> {
        let item = page.item_id(offset)?;
        if item.state() != LinePointerState::Normal {
            return Err(RedoFault::LinePointer {
                offset,
                reason: "is not normal",
            });
        }
        HeapTuple::new(page.bytes_mut(item.offset(), item.len())?).ok_or(RedoFault::Tuple {
            offset,
            reason: "shorter than a tuple header",
        })
    }

    /// `None` if `bytes` is shorter than a header.
    pub(crate) fn new(bytes: &'a mut [u8]) -> Option<HeapTuple<'a>> {
        (bytes.len() >= TUPLE_HEADER_BYTES).then_some(HeapTuple { bytes })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    pub(crate) fn set_xmin(&mut self, xid: u32) {
        self.put(0, &xid.to_le_bytes());
    }

    pub(crate) fn set_xmax(&mut self, xid: u32) {
        self.put(4, &xid.to_le_bytes());
    }

    /// `t_cid` or `t_xvac`, which share their place.
    pub(crate) fn set_command_id(&mut self, id: u32) {
        self.put(8, &id.to_le_bytes());
    }

    /// `HeapTupleHeaderSetCmax(tuple, FirstCommandId, false)`, and the same for cmin.
    pub(crate) fn set_first_command(&mut self) {
        self.set_command_id(0);
        self.set_infomask(self.infomask() & !HEAP_COMBOCID);
    }

    pub(crate) fn set_ctid(&mut self, tid: TupleId) {
        self.put(12, &tid.to_bytes());
    }

    pub(crate) fn is_speculative(&self) -> bool {
        self.u16_at(16) == SPECULATIVE_OFFSET
    }

    pub(crate) fn infomask2(&self) -> u16 {
        self.u16_at(18)
    }

    pub(crate) fn set_infomask2(&mut self, mask: u16) {
        self.put(18, &mask.to_le_bytes());
    }

    pub(crate) fn infomask(&self) -> u16 {
        self.u16_at(20)
    }

    pub(crate) fn set_infomask(&mut self, mask: u16) {
        self.put(20, &mask.to_le_bytes());
    }

    /// `t_hoff`: where the attribute data starts.
    pub(crate) fn data_offset(&self) -> usize {
        usize::from(self.bytes[22])
    }

    /// The attribute data; empty if `t_hoff` points behind the tuple.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        let from = self.data_offset();
        self.bytes.get_mut(from..).unwrap_or_default()
    }

    pub(crate) fn set_hot_updated(&mut self, is_hot_updated: bool) {
        let mask = self.infomask2() & !HEAP_HOT_UPDATED;
        self.set_infomask2(if is_hot_updated {
            mask | HEAP_HOT_UPDATED
        } else {
            mask
        });
    }

    /// `HeapTupleHeaderXminFrozen`.
    pub(crate) fn is_xmin_frozen(&self) -> bool {
        const FROZEN: u16 = HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID;
        self.infomask() & FROZEN == FROZEN
    }

    /// `HEAP_XMAX_IS_LOCKED_ONLY`.
    pub(crate) fn is_xmax_lock_only(&self) -> bool {
        let mask = self.infomask();
        mask & HEAP_XMAX_LOCK_ONLY != 0 || mask & (HEAP_XMAX_IS_MULTI | HEAP_LOCK_MASK) == HEAP_XMAX_EXCL_LOCK
    }

    /// Forgets the old xmax's bits, then `fix_infomask_from_infobits` (heapam.c).
    pub(crate) fn replace_xmax_bits(&mut self, infobits: u8) {
        const IS_MULTI: u8 = 0x01;
        const LOCK_ONLY: u8 = 0x02;
        const EXCL_LOCK: u8 = 0x04;
        const KEYSHR_LOCK: u8 = 0x08;
        const KEYS_UPDATED: u8 = 0x10;
        let mut mask = self.infomask() & !(HEAP_XMAX_BITS | HEAP_MOVED);
        for (bit, set) in [
            (IS_MULTI, HEAP_XMAX_IS_MULTI),
            (LOCK_ONLY, HEAP_XMAX_LOCK_ONLY),
            (EXCL_LOCK, HEAP_XMAX_EXCL_LOCK),
            (KEYSHR_LOCK, HEAP_XMAX_KEYSHR_LOCK),
        ] {
            if infobits & bit != 0 {
                mask |= set;
            }
        }
        let mut mask2 = self.infomask2() & !HEAP_KEYS_UPDATED;
        if infobits & KEYS_UPDATED != 0 {
            mask2 |= HEAP_KEYS_UPDATED;
        }
        self.set_infomask(mask);
        self.set_infomask2(mask2);
    }
}

/// The header fields that a record carries (`xl_heap_header`).
#[derive(Clone, Copy)]
pub(crate) struct LoggedHeader {
    pub(crate) infomask2: u16,
    pub(crate) infomask: u16,
    pub(crate) data_offset: u8,
}

/// Writes the header of a tuple that redo makes: first command, no xmax.
pub(crate) fn write_header(
    bytes: &mut [u8],
    header: LoggedHeader,
    xmin: u32,
    xmax: u32,
    ctid: TupleId,
) -> Result<(), RedoFault> {
    let mut tuple = HeapTuple::new(bytes).ok_or(RedoFault::Tuple {
        offset: ctid.offset,
        reason: "shorter than a tuple header",
    })?;
    tuple.set_xmin(xmin);
    tuple.set_xmax(xmax);
    tuple.set_infomask2(header.infomask2);
    tuple.set_infomask(header.infomask);
    tuple.bytes[22] = header.data_offset;
    tuple.set_first_command();
    tuple.set_ctid(ctid);
    Ok(())
}
