//! Pages on which a record is replayed that was not written for them.

use pg_quorum_types::BLOCK_SIZE;
use pg_quorum_wal::Page;

use crate::bytes_in::BytesIn;

const HEADER_BYTES: usize = 24;
const ITEM_ID_BYTES: usize = 4;
/// `LP_NORMAL`, in its place in a line pointer.
const NORMAL: u32 = 1 << 15;

/// `seed` over and over, changed a little each time.
pub(crate) fn noise(seed: &[u8]) -> Page {
    let mut state = 0x9E37_79B9_u32;
    std::array::from_fn(|at| {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let byte = (state >> 24) as u8;
        match seed.get(at % (seed.len().max(1) + 7)) {
            Some(given) => *given,
            None => byte,
        }
    })
}

/// A page with header, line pointers, items and special space in order, whose contents are `seed`'s: the items are
/// tuples of an index and of a heap at once, as far as their headers say.
pub(crate) fn sound(seed: &[u8]) -> Page {
    let mut seed = BytesIn(seed);
    let special_bytes = [16, 0, 8, 24, 32][usize::from(seed.u8() % 5)];
    let special = BLOCK_SIZE - special_bytes;
    let items = usize::from(seed.u8());
    let mut page: Page = [0; BLOCK_SIZE];
    page[special..].copy_from_slice(&noise(seed.take(special_bytes))[..special_bytes]);
    let (mut lower, mut upper) = (HEADER_BYTES, special);
    for _ in 0..items {
        let len = usize::from(seed.u8()).next_multiple_of(8).max(24);
        if lower + ITEM_ID_BYTES + len > upper {
            break;
        }
        upper -= len;
        let item = &mut page[upper..upper + len];
        let content = seed.take(len);
        item[..content.len()].copy_from_slice(content);
        // t_info of an index tuple, t_hoff of a heap tuple.
        item[6..8].copy_from_slice(&(len as u16).to_le_bytes());
        item[22] = 24;
        let line_pointer = upper as u32 | NORMAL | (len as u32) << 17;
        page[lower..lower + ITEM_ID_BYTES].copy_from_slice(&line_pointer.to_le_bytes());
        lower += ITEM_ID_BYTES;
    }
    for (at, value) in [(12, lower), (14, upper), (16, special), (18, BLOCK_SIZE | 4)] {
        page[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    }
    page
}

/// A page from its front and its end; zeros between them.
pub(crate) fn given(stored: &[u8]) -> Page {
    let mut stored = BytesIn(stored);
    let front_bytes = usize::from(stored.u16()).min(BLOCK_SIZE);
    let front = stored.take(front_bytes);
    let end = stored.take(BLOCK_SIZE - front.len());
    let mut page: Page = [0; BLOCK_SIZE];
    page[..front.len()].copy_from_slice(front);
    page[BLOCK_SIZE - end.len()..].copy_from_slice(end);
    page
}

/// The inverse of [`given`], but for what stands in the page's free space.
pub(crate) fn stored(page: &Page) -> Vec<u8> {
    let word = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
    let (lower, upper) = (word(12), word(14));
    let (front, end) = match (lower >= HEADER_BYTES, lower <= upper, upper <= BLOCK_SIZE) {
        (true, true, true) => (lower, upper),
        // No header: what is not zeros at either end.
        _ => match page.iter().position(|byte| *byte != 0) {
            Some(first) => (0, first),
            None => (0, BLOCK_SIZE),
        },
    };
    [&(front as u16).to_le_bytes()[..], &page[..front], &page[end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_its_free_space_comes_back() {
        let mut contents = vec![0, 40];
        contents.extend((0..4000).map(|at| (at * 7) as u8));
        for page in [sound(&contents), sound(&[]), noise(b"abc"), [0; BLOCK_SIZE]] {
            assert_eq!(given(&stored(&page)), page);
        }
        assert!(stored(&sound(&[0, 1])).len() < 100);
    }
}
