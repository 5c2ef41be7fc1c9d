//! A page as the store keeps it, and its checksums.

use bytes::Bytes;
use pg_quorum_types::BLOCK_SIZE;
use pg_quorum_wal::Page;

/// The content of one version of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoredPage {
    Image(Box<Page>),
    /// All zeros: a new page.
    Zeros,
    /// It could not be built, and cannot be until a record sets it as a whole; says why (record and LSN).
    Unbuildable(String),
}

/// The bytes are not a stored page: the store returned something that was never written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoredPageError {
    #[error("a stored page of {0} bytes with an unknown kind")]
    Malformed(usize),
    #[error("a stored page whose CRC-32C is {found:08x} instead of {expected:08x}")]
    Checksum { expected: u32, found: u32 },
}

const KIND_IMAGE: u8 = 1;
const KIND_ZEROS: u8 = 2;
const KIND_UNBUILDABLE: u8 = 3;
const IMAGE_HEADER_BYTES: usize = 5;

impl StoredPage {
    /// An image, or [`StoredPage::Zeros`] if there is nothing in it.
    pub fn from_page(page: Box<Page>) -> StoredPage {
        if page.iter().all(|byte| *byte == 0) {
            StoredPage::Zeros
        } else {
            StoredPage::Image(page)
        }
    }

    /// ```text
    /// 1 | crc32c of the page, LE u32 | page, 8192 bytes
    /// 2
    /// 3 | why, UTF-8
    /// ```
    pub fn to_bytes(&self) -> Bytes {
        match self {
            StoredPage::Image(page) => {
                let mut bytes = Vec::with_capacity(IMAGE_HEADER_BYTES + BLOCK_SIZE);
                bytes.push(KIND_IMAGE);
                bytes.extend_from_slice(&crc32c::crc32c(&page[..]).to_le_bytes());
                bytes.extend_from_slice(&page[..]);
                bytes.into()
            }
            StoredPage::Zeros => Bytes::from_static(&[KIND_ZEROS]),
            StoredPage::Unbuildable(why) => [&[KIND_UNBUILDABLE], why.as_bytes()].concat().into(),
        }
    }

    /// An image is put into `buffer`.
    ///
    /// # Errors
    /// Not what [`StoredPage::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8], mut buffer: Box<Page>) -> Result<StoredPage, StoredPageError> {
        let malformed = || StoredPageError::Malformed(bytes.len());
        match bytes.first() {
            Some(&KIND_IMAGE) => {
                let (header, page) = bytes.split_at_checked(IMAGE_HEADER_BYTES).ok_or_else(malformed)?;
                let page: &Page = page.try_into().map_err(|_| malformed())?;
                let expected = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
                let found = crc32c::crc32c(page);
                if found != expected {
                    return Err(StoredPageError::Checksum { expected, found });
                }
                *buffer = *page;
                Ok(StoredPage::Image(buffer))
            }
            Some(&KIND_ZEROS) => Ok(StoredPage::Zeros),
            Some(&KIND_UNBUILDABLE) => Ok(StoredPage::Unbuildable(
                String::from_utf8_lossy(&bytes[1..]).into_owned(),
            )),
            _ => Err(malformed()),
        }
    }
}

/// Offset of `pd_checksum` in a page header.
const CHECKSUM_OFFSET: usize = 8;
/// Offset of `pd_upper`, zero in a new page.
const UPPER_OFFSET: usize = 14;
/// `N_SUMS` of `checksum_impl.h`.
const SUMS: usize = 32;
/// `FNV_PRIME`.
const PRIME: u32 = 16_777_619;
/// `checksumBaseOffsets`.
const BASE_OFFSETS: [u32; SUMS] = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
];

/// `pg_checksum_page` of `checksum_impl.h` (15.18): the checksum that `page` should bear as `block`.
pub fn page_checksum(page: &Page, block: u32) -> u16 {
    let step = |sum: u32, value: u32| {
        let mixed = sum ^ value;
        mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
    };
    let mut sums = BASE_OFFSETS;
    for (row, bytes) in page.chunks_exact(4 * SUMS).enumerate() {
        for (column, word) in bytes.chunks_exact(4).enumerate() {
            let mut value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            if row == 0 && column == CHECKSUM_OFFSET / 4 {
                value &= 0xFFFF_0000; // pd_checksum itself counts as zero
            }
            sums[column] = step(sums[column], value);
        }
    }
    for _ in 0..2 {
        sums = sums.map(|sum| step(sum, 0));
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    (folded % 65535) as u16 + 1
}

/// `PageSetChecksumCopy` of `bufpage.c` (15.18): a new page bears none.
pub fn set_page_checksum(page: &mut Page, block: u32) {
    if page[UPPER_OFFSET..UPPER_OFFSET + 2] == [0, 0] {
        return;
    }
    let checksum = page_checksum(page, block);
    page[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page() -> Page {
        std::array::from_fn(|at| (at * 31 + at / 97) as u8)
    }

    fn from_bytes(bytes: &[u8]) -> Result<StoredPage, StoredPageError> {
        StoredPage::from_bytes(bytes, Box::new([7; BLOCK_SIZE]))
    }

    #[test]
    fn stored_pages_come_back_unchanged() {
        for stored in [
            StoredPage::from_page(Box::new(page())),
            StoredPage::from_page(Box::new([0; BLOCK_SIZE])),
            StoredPage::Unbuildable("0/1: Hash/INSERT".to_owned()),
        ] {
            assert_eq!(from_bytes(&stored.to_bytes()), Ok(stored));
        }
        assert_eq!(
            StoredPage::from_page(Box::new([0; BLOCK_SIZE])),
            StoredPage::Zeros
        );
    }

    #[test]
    fn a_stored_page_with_a_flipped_bit_is_not_served() {
        let mut bytes = StoredPage::from_page(Box::new(page())).to_bytes().to_vec();
        bytes[5000] ^= 4;
        let error = from_bytes(&bytes).unwrap_err();
        assert!(matches!(error, StoredPageError::Checksum { .. }));
        assert!(from_bytes(&bytes[..5000]).is_err());
        assert!(from_bytes(&[]).is_err());
    }

    #[test]
    fn the_checksum_ignores_its_own_field_and_depends_on_the_block() {
        let mut changed = page();
        let expected = page_checksum(&changed, 7);
        assert_ne!(expected, page_checksum(&changed, 8));
        set_page_checksum(&mut changed, 7);
        assert_eq!(changed[8..10], expected.to_le_bytes());
        assert_eq!(page_checksum(&changed, 7), expected);
        changed[4000] ^= 1;
        assert_ne!(page_checksum(&changed, 7), expected);
    }

    #[test]
    fn new_pages_bear_no_checksum() {
        let mut zeros = [0; BLOCK_SIZE];
        set_page_checksum(&mut zeros, 3);
        assert_eq!(zeros, [0; BLOCK_SIZE]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(kind in 0..5_u8, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = [&[kind], &bytes[..]].concat();
            let _ = StoredPage::from_bytes(&bytes, Box::new([0; BLOCK_SIZE]));
            bytes.resize(IMAGE_HEADER_BYTES + BLOCK_SIZE, 7);
            prop_assert!(kind != KIND_IMAGE || StoredPage::from_bytes(&bytes, Box::new([0; BLOCK_SIZE])).is_err());
        }
    }
}
