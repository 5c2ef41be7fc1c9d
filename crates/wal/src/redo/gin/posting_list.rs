//! Posting lists: rising TIDs as varbyte-encoded differences (ginpostinglist.c, 15.18).
//!
//! ```text
//! 0 first TID   6 nbytes   8 nbytes bytes, padded to an even number with a zero
//! ```
//!
//! A TID counts as `block << 11 | offset`. Each one but the first is stored as the difference to the one in
//! front, seven bits to a byte, low bits first; all bytes of a number but its last have the top bit set.

use std::iter::Peekable;

use crate::redo::error::RedoFault;
use crate::redo::heap_tuple::TupleId;
use crate::redo::index_tuple::TID_BYTES;

/// `offsetof(GinPostingList, bytes)`.
const HEADER_BYTES: usize = 8;
/// `MaxHeapTuplesPerPageBits`.
const OFFSET_BITS: u32 = 11;
/// Bits of the largest TID.
const TID_BITS: u32 = 32 + OFFSET_BITS;
/// `MaxBytesPerInteger`.
const MAX_NUMBER_BYTES: usize = 7;

/// TIDs on their way from one form to another.
pub(super) type TidResult = Result<TupleId, RedoFault>;

/// `itemptr_to_uint64`.
fn to_number(tid: TupleId) -> u64 {
    u64::from(tid.block) << OFFSET_BITS | u64::from(tid.offset)
}

/// `uint64_to_itemptr`.
fn to_tid(number: u64) -> TidResult {
    if number >> TID_BITS != 0 {
        return Err(RedoFault::PostingList("TID beyond the last block"));
    }
    Ok(TupleId {
        block: (number >> OFFSET_BITS) as u32,
        offset: number as u16 & ((1 << OFFSET_BITS) - 1),
    })
}

/// An encoded posting list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PostingList<'a> {
    first: TupleId,
    differences: &'a [u8],
    size: usize,
}

impl<'a> PostingList<'a> {
    /// The posting list at the start of `bytes`.
    pub(super) fn at(bytes: &'a [u8]) -> Result<PostingList<'a>, RedoFault> {
        let cut = RedoFault::PostingList("cut off");
        let Some(([b0, b1, b2, b3, b4, b5, n0, n1], rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(cut);
        };
        let len = usize::from(u16::from_le_bytes([*n0, *n1]));
        let padded_len = len.next_multiple_of(2);
        if rest.len() < padded_len {
            return Err(cut);
        }
        Ok(PostingList {
            first: TupleId::from_bytes(&[*b0, *b1, *b2, *b3, *b4, *b5]),
            differences: &rest[..len],
            size: HEADER_BYTES + padded_len,
        })
    }

    /// `SizeOfGinPostingList`: bytes, with header and padding.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// `ginPostingListDecode`. Ends behind the first error.
    pub(super) fn items(&self) -> Items<'a> {
        Items {
            first: Some(self.first),
            number: to_number(self.first),
            differences: self.differences,
        }
    }
}

/// The TIDs of an encoded posting list.
pub(super) struct Items<'a> {
    first: Option<TupleId>,
    number: u64,
    differences: &'a [u8],
}

impl Iterator for Items<'_> {
    type Item = TidResult;

    fn next(&mut self) -> Option<TidResult> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        if self.differences.is_empty() {
            return None;
        }
        let tid = decode_varbyte(&mut self.differences).and_then(|difference| {
            self.number = self.number.saturating_add(difference);
            to_tid(self.number)
        });
        if tid.is_err() {
            self.differences = &[];
        }
        Some(tid)
    }
}

/// `decode_varbyte`, which takes the number off the front of `bytes`.
fn decode_varbyte(bytes: &mut &[u8]) -> Result<u64, RedoFault> {
    let mut number = 0;
    for index in 0..MAX_NUMBER_BYTES {
        let Some((byte, rest)) = bytes.split_first() else {
            return Err(RedoFault::PostingList("number cut off"));
        };
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(RedoFault::PostingList("number too long"))
}

/// `encode_varbyte`: the bytes and how many they are. `number` has at most 49 bits.
fn encode_varbyte(mut number: u64) -> ([u8; MAX_NUMBER_BYTES], usize) {
    let mut bytes = [0; MAX_NUMBER_BYTES];
    let mut len = 0;
    for byte in &mut bytes {
        len += 1;
        *byte = number as u8 & 0x7F;
        number >>= 7;
        if number == 0 {
            break;
        }
        *byte |= 0x80;
    }
    (bytes, len)
}

/// `ginCompressPostingList`: writes a posting list of `items`, which rise, to the front of `out`, and returns its
/// size. All of them must fit.
pub(super) fn encode(mut items: impl Iterator<Item = TidResult>, out: &mut [u8]) -> Result<usize, RedoFault> {
    let no_room = RedoFault::PostingList("does not fit its place");
    let first = items.next().ok_or(RedoFault::PostingList("empty"))??;
    let (header, place) = out
        .split_first_chunk_mut::<HEADER_BYTES>()
        .ok_or(no_room.clone())?;
    let mut len = 0;
    let mut previous = to_number(first);
    for tid in items {
        let number = to_number(tid?);
        let difference = number
            .checked_sub(previous)
            .filter(|difference| *difference > 0)
            .ok_or(RedoFault::PostingList("TIDs do not rise"))?;
        let (bytes, count) = encode_varbyte(difference);
        place
            .get_mut(len..len + count)
            .ok_or(no_room.clone())?
            .copy_from_slice(&bytes[..count]);
        len += count;
        previous = number;
    }
    header[..TID_BYTES].copy_from_slice(&first.to_bytes());
    let stored_len = u16::try_from(len).map_err(|_| no_room.clone())?;
    header[TID_BYTES..].copy_from_slice(&stored_len.to_le_bytes());
    if len % 2 == 1 {
        *place.get_mut(len).ok_or(no_room)? = 0;
        len += 1;
    }
    Ok(HEADER_BYTES + len)
}

/// TIDs in their plain form, six bytes each.
pub(super) fn stored_tids(bytes: &[u8]) -> impl Iterator<Item = TidResult> {
    let (tids, _) = bytes.as_chunks::<TID_BYTES>();
    tids.iter().map(|tid| Ok(TupleId::from_bytes(tid)))
}

/// `ginMergeItemPointers`: the TIDs of both, in order; what both have comes once.
pub(super) fn merge(
    one: impl Iterator<Item = TidResult>,
    other: impl Iterator<Item = TidResult>,
) -> impl Iterator<Item = TidResult> {
    Merge {
        one: one.peekable(),
        other: other.peekable(),
    }
}

struct Merge<A: Iterator, B: Iterator> {
    one: Peekable<A>,
    other: Peekable<B>,
}

impl<A: Iterator<Item = TidResult>, B: Iterator<Item = TidResult>> Iterator for Merge<A, B> {
    type Item = TidResult;

    fn next(&mut self) -> Option<TidResult> {
        match (self.one.peek(), self.other.peek()) {
            (Some(Ok(one)), Some(Ok(other))) if one > other => self.other.next(),
            (Some(Ok(one)), Some(Ok(other))) if one == other => {
                self.one.next();
                self.other.next()
            }
            (None, _) | (_, Some(Err(_))) => self.other.next(),
            _ => self.one.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pg_quorum_types::BLOCK_SIZE;
    use proptest::prelude::*;

    use super::*;

    fn tid(block: u32, offset: u16) -> TupleId {
        TupleId { block, offset }
    }

    fn encoded(items: &[TupleId]) -> Result<Vec<u8>, RedoFault> {
        let mut out = [0xFF; BLOCK_SIZE];
        let size = encode(items.iter().copied().map(Ok), &mut out)?;
        Ok(out[..size].to_vec())
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<TupleId>, RedoFault> {
        PostingList::at(bytes)?.items().collect()
    }

    #[test]
    fn differences_are_stored_low_bits_first_and_padded() {
        let items = [tid(1, 2), tid(1, 3), tid(1, 130), tid(2, 1)];
        let mut expected = vec![0, 0, 1, 0, 2, 0, 4, 0];
        expected.extend([1, 127]); // 3 - 2, 130 - 3
        expected.extend([0xFF, 0x0E]); // (2 << 11 | 1) - (1 << 11 | 130) = 1919
        assert_eq!(encoded(&items).unwrap(), expected);
        let odd = encoded(&items[..2]).unwrap();
        assert_eq!(odd, [0, 0, 1, 0, 2, 0, 1, 0, 1, 0]);
        assert_eq!(PostingList::at(&odd).unwrap().size(), 10);
    }

    #[test]
    fn the_largest_difference_takes_seven_bytes() {
        let items = [tid(0, 1), tid(u32::MAX, 2047)];
        let bytes = encoded(&items).unwrap();
        assert_eq!(bytes[6..8], [7, 0]);
        assert_eq!(decoded(&bytes).unwrap(), items);
    }

    #[test]
    fn a_list_that_does_not_fit_is_refused() {
        let items = [tid(0, 1), tid(0, 2), tid(0, 3), tid(0, 4)];
        for size in 0..12 {
            assert!(encode(items.iter().copied().map(Ok), &mut [0; 12][..size]).is_err());
        }
        assert_eq!(encode(items.iter().copied().map(Ok), &mut [0; 12]), Ok(12));
    }

    #[test]
    fn tids_that_do_not_rise_are_refused() {
        assert!(encoded(&[]).is_err());
        assert!(encoded(&[tid(1, 1), tid(1, 1)]).is_err());
        assert!(encoded(&[tid(2, 1), tid(1, 2)]).is_err());
    }

    #[test]
    fn damaged_lists_are_refused() {
        let list = |bytes: &[u8]| [&[0, 0, 1, 0, 1, 0, bytes.len() as u8, 0], bytes].concat();
        assert!(decoded(&list(&[0x80, 0x81])).is_err(), "cut off");
        let too_long = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0];
        assert!(decoded(&list(&too_long)).is_err());
        let too_far = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0];
        assert!(decoded(&list(&too_far)).is_err());
        assert!(PostingList::at(&list(&[1, 1])[..9]).is_err());
        assert!(PostingList::at(&[0; 7]).is_err());
    }

    #[test]
    fn merging_keeps_the_order_and_one_of_each() {
        let merged = |one: &[TupleId], other: &[TupleId]| -> Vec<TupleId> {
            let (one, other) = (one.iter().copied().map(Ok), other.iter().copied().map(Ok));
            merge(one, other).collect::<Result<_, _>>().unwrap()
        };
        let (a, b, c, d) = (tid(0, 1), tid(0, 9), tid(3, 1), tid(3, 2));
        assert_eq!(merged(&[a, c], &[b, d]), [a, b, c, d]);
        assert_eq!(merged(&[b, c], &[a, c, d]), [a, b, c, d]);
        assert_eq!(merged(&[], &[a, b]), [a, b]);
        assert_eq!(merged(&[c, d], &[a, b]), [a, b, c, d]);
    }

    fn rising_tids() -> impl Strategy<Value = Vec<TupleId>> {
        let offset = prop_oneof![1u16..300, 1u16..2048];
        let block = prop_oneof![0u32..40, 0u32..100_000, any::<u32>()];
        prop::collection::btree_set((block, offset), 1..900).prop_map(|tids| {
            tids.into_iter()
                .map(|(block, offset)| tid(block, offset))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_list_decodes_to_what_was_encoded(items in rising_tids()) {
            let bytes = encoded(&items).unwrap();
            prop_assert_eq!(bytes.len() % 2, 0);
            prop_assert_eq!(PostingList::at(&bytes).unwrap().size(), bytes.len());
            prop_assert_eq!(decoded(&bytes).unwrap(), items);
        }

        #[test]
        fn a_list_without_some_items_is_no_longer(items in rising_tids(), keep in any::<u64>()) {
            let kept: Vec<_> = items
                .iter()
                .zip((0..64).cycle())
                .filter(|(_, bit)| keep >> bit & 1 == 1)
                .map(|(tid, _)| *tid)
                .collect();
            prop_assume!(!kept.is_empty());
            prop_assert!(encoded(&kept).unwrap().len() <= encoded(&items).unwrap().len());
        }

        #[test]
        fn hostile_bytes_decode_to_bounded_tids_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(list) = PostingList::at(&bytes) {
                prop_assert!(list.size() <= bytes.len());
                let items: Vec<_> = list.items().collect();
                prop_assert!(items.len() <= bytes.len());
                let errors = items.iter().filter(|item| item.is_err()).count();
                prop_assert!(errors == 0 || errors == 1 && items[items.len() - 1].is_err());
                let mut out = [0; BLOCK_SIZE];
                let _ = encode(list.items(), &mut out);
                let _ = encode(merge(list.items(), stored_tids(&bytes)), &mut out);
            }
        }

        #[test]
        fn what_decodes_with_rising_tids_encodes_to_the_same_items(
            first in any::<[u8; 6]>(),
            tail in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [&first[..], &(tail.len() as u16).to_le_bytes(), &tail, &[0]].concat();
            if let Ok(items) = decoded(&bytes)
                && let Ok(again) = encoded(&items)
                && items.iter().all(|tid| tid.offset < 1 << OFFSET_BITS)
            {
                prop_assert_eq!(decoded(&again).unwrap(), items);
            }
        }
    }
}
