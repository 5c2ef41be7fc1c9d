//! The B-tree's forms of index tuples: plain, pivot, posting list (nbtree.h, 15.18).
//!
//! ```text
//! posting list:  t_tid's block = where the list starts in the tuple
//!                t_tid's offset = BT_IS_POSTING | number of heap TIDs
//! ```

pub(super) use crate::redo::index_tuple::{StoredTid, TID_BYTES, downlink, set_downlink, size, whole};

use crate::redo::error::RedoFault;
use crate::redo::index_tuple::{
    SIZE_MASK, TUPLE_HEADER_BYTES, block_bytes, block_number, damaged, header, info, offset_number,
};
use crate::redo::page::max_align;

/// `INDEX_ALT_TID_MASK`.
const ALT_TID: u16 = 0x2000;
/// `BT_IS_POSTING`.
const IS_POSTING: u16 = 0x2000;
/// `BT_OFFSET_MASK`.
const OFFSET_MASK: u16 = 0x0FFF;

/// The high key of a half-dead leaf: no attributes, only `BTreeTupleSetTopParent`.
pub(super) fn top_parent_high_key(top_parent: u32) -> [u8; TUPLE_HEADER_BYTES] {
    let mut tuple = [0; TUPLE_HEADER_BYTES];
    tuple[..4].copy_from_slice(&block_bytes(top_parent));
    tuple[6..].copy_from_slice(&(TUPLE_HEADER_BYTES as u16 | ALT_TID).to_le_bytes());
    tuple
}

/// The heap TIDs of a tuple that is no pivot.
#[derive(Clone, Copy)]
pub(super) struct HeapTids<'a> {
    /// Bytes in front of the posting list (all of a plain tuple).
    pub(super) key: &'a [u8],
    pub(super) tids: &'a [u8],
    pub(super) is_posting: bool,
}

impl HeapTids<'_> {
    pub(super) fn count(&self) -> usize {
        self.tids.len() / TID_BYTES
    }
}

/// Takes a plain or posting list tuple (cut to its size) apart.
pub(super) fn heap_tids(tuple: &[u8]) -> Result<HeapTids<'_>, RedoFault> {
    let header = header(tuple)?;
    if info(header) & ALT_TID == 0 {
        return Ok(HeapTids {
            key: tuple,
            tids: &header[..TID_BYTES],
            is_posting: false,
        });
    }
    let offset = offset_number(header);
    if offset & IS_POSTING == 0 {
        return Err(damaged("is a pivot tuple where heap TIDs are expected"));
    }
    let list_at = block_number(header) as usize;
    let list_bytes = usize::from(offset & OFFSET_MASK) * TID_BYTES;
    let tids = tuple
        .get(list_at..list_at.saturating_add(list_bytes))
        .filter(|_| list_at >= TUPLE_HEADER_BYTES)
        .ok_or(damaged("posting list does not fit the tuple"))?;
    Ok(HeapTids {
        key: &tuple[..list_at],
        tids,
        is_posting: true,
    })
}

/// Largest tuple that a buffer of [`form_posting`] holds: what a page could hold.
pub(super) const MAX_TUPLE_BYTES: usize = SIZE_MASK as usize + 1;

/// `_bt_form_posting` and the tail of `_bt_update_posting`: a tuple of `key` and `tids`, written to
/// `out`, whose length is returned. One TID makes a plain tuple.
pub(super) fn form_posting(
    key: &[u8],
    tids: impl ExactSizeIterator<Item = StoredTid>,
    out: &mut [u8; MAX_TUPLE_BYTES],
) -> Result<usize, RedoFault> {
    let count = tids.len();
    let size = if count > 1 {
        max_align(key.len() + count * TID_BYTES)
    } else {
        key.len()
    };
    if size >= MAX_TUPLE_BYTES || count > usize::from(OFFSET_MASK) || count == 0 {
        return Err(damaged("posting list would be too large or empty"));
    }
    let info = info(header(key)?) & !SIZE_MASK | size as u16;
    out[..key.len()].copy_from_slice(key);
    out[key.len()..size].fill(0);
    if count > 1 {
        out[..4].copy_from_slice(&block_bytes(key.len() as u32));
        out[4..6].copy_from_slice(&(count as u16 | IS_POSTING).to_le_bytes());
        out[6..8].copy_from_slice(&(info | ALT_TID).to_le_bytes());
        for (place, tid) in out[key.len()..size].chunks_exact_mut(TID_BYTES).zip(tids) {
            place.copy_from_slice(&tid);
        }
    } else {
        out[6..8].copy_from_slice(&(info & !ALT_TID).to_le_bytes());
        for tid in tids {
            out[..TID_BYTES].copy_from_slice(&tid);
        }
    }
    Ok(size)
}

/// `_bt_swap_posting` on the posting list itself: `new_tid` goes in at `at`, the highest TID leaves
/// the list and is returned; it becomes the TID of the new item.
pub(super) fn swap_posting(
    posting: &mut [u8],
    at: usize,
    new_tid: StoredTid,
) -> Result<StoredTid, RedoFault> {
    let list = heap_tids(posting)?;
    let count = list.count();
    if !list.is_posting || at == 0 || at >= count {
        return Err(damaged("posting list cannot be split there"));
    }
    let list_at = list.key.len();
    let list = &mut posting[list_at..list_at + count * TID_BYTES];
    let mut highest = [0; TID_BYTES];
    highest.copy_from_slice(&list[(count - 1) * TID_BYTES..]);
    list.copy_within(at * TID_BYTES..(count - 1) * TID_BYTES, (at + 1) * TID_BYTES);
    list[at * TID_BYTES..(at + 1) * TID_BYTES].copy_from_slice(&new_tid);
    Ok(highest)
}

/// The heap TID of a plain tuple.
pub(super) fn plain_tid(tuple: &[u8]) -> Result<StoredTid, RedoFault> {
    header(tuple).map(|header| [header[0], header[1], header[2], header[3], header[4], header[5]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tid(number: u8) -> StoredTid {
        [0, 0, number, 0, 1, 0]
    }

    fn plain() -> Vec<u8> {
        vec![0, 0, 9, 0, 1, 0, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    }

    #[test]
    fn a_posting_list_comes_apart_as_it_was_formed() {
        let mut out = [0xFF; MAX_TUPLE_BYTES];
        let size = form_posting(
            &plain(),
            (1..4).map(tid).collect::<Vec<_>>().into_iter(),
            &mut out,
        )
        .unwrap();
        assert_eq!(size, 40);
        let tuple = whole(&out).unwrap();
        assert_eq!(tuple.len(), 40);
        let tids = heap_tids(tuple).unwrap();
        assert_eq!((tids.count(), tids.key.len(), tids.is_posting), (3, 16, true));
        assert_eq!(&tids.tids[6..12], &tid(2));
        assert_eq!(&tuple[34..], &[0; 6]);
    }

    #[test]
    fn a_split_posting_list_gives_up_its_highest_tid() {
        let mut out = [0; MAX_TUPLE_BYTES];
        let size = form_posting(&plain(), [tid(1), tid(3), tid(5)].into_iter(), &mut out).unwrap();
        assert_eq!(swap_posting(&mut out[..size], 1, tid(2)).unwrap(), tid(5));
        let tids = heap_tids(&out[..size]).unwrap().tids.to_vec();
        assert_eq!(tids, [tid(1), tid(2), tid(3)].concat());
        assert!(swap_posting(&mut out[..size], 3, tid(2)).is_err());
        assert!(swap_posting(&mut plain(), 1, tid(2)).is_err());
    }

    #[test]
    fn one_remaining_tid_makes_a_plain_tuple() {
        let mut posting = [0; MAX_TUPLE_BYTES];
        let size = form_posting(&plain(), [tid(1), tid(3)].into_iter(), &mut posting).unwrap();
        let key = heap_tids(&posting[..size]).unwrap().key.to_vec();
        let mut out = [0; MAX_TUPLE_BYTES];
        let size = form_posting(&key, [tid(3)].into_iter(), &mut out).unwrap();
        let mut expected = plain();
        expected[..6].copy_from_slice(&tid(3));
        assert_eq!(&out[..size], expected);
    }
}
