//! Redo of resource manager Hash (hash_xlog.c `hash_redo`, 15.18).
//!
//! `hash_xlog_split_allocate_page` and `hash_xlog_split_complete` also change a page that was just restored
//! from an image. Here an image is all: it was taken after the same changes, under the same lock
//! (hashpage.c `_hash_expandtable`, `_hash_splitbucket`), so the second time changes nothing.

mod bucket;
mod meta;
mod overflow;
mod page;
mod split;

pub(crate) use page::{
    HashPage, LH_BUCKET_PAGE, LH_OVERFLOW_PAGE, LH_PAGE_HAS_DEAD_TUPLES, LH_PAGE_TYPE, LH_UNUSED_PAGE,
};

use super::error::RedoFault;
use crate::{BlockRef, Page, Record};

/// `XLOG_HASH_*`.
mod kind {
    pub(super) const INIT_META_PAGE: u8 = 0x00;
    pub(super) const INIT_BITMAP_PAGE: u8 = 0x10;
    pub(super) const INSERT: u8 = 0x20;
    pub(super) const ADD_OVFL_PAGE: u8 = 0x30;
    pub(super) const SPLIT_ALLOCATE_PAGE: u8 = 0x40;
    pub(super) const SPLIT_PAGE: u8 = 0x50;
    pub(super) const SPLIT_COMPLETE: u8 = 0x60;
    pub(super) const MOVE_PAGE_CONTENTS: u8 = 0x70;
    pub(super) const SQUEEZE_PAGE: u8 = 0x80;
    pub(super) const DELETE: u8 = 0x90;
    pub(super) const SPLIT_CLEANUP: u8 = 0xA0;
    pub(super) const UPDATE_META_PAGE: u8 = 0xB0;
    pub(super) const VACUUM_ONE_PAGE: u8 = 0xC0;
}

/// Applies the record to the page of `block`, whose image, if any, has been dealt with.
pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    match (record.kind(), block.id) {
        (kind::INIT_META_PAGE, 0) => meta::init(record, page),
        (kind::INIT_BITMAP_PAGE, 0) => overflow::init_bitmap(record, page),
        (kind::INIT_BITMAP_PAGE, 1) => meta::add_first_bitmap(record, page),

        (kind::INSERT, 0) => bucket::insert(record, block, page),
        (kind::INSERT, 1) => meta::count_inserted(record, page),

        (kind::ADD_OVFL_PAGE, 0) => overflow::init(record, block, page),
        (kind::ADD_OVFL_PAGE, 1) => overflow::link_new(record, page),
        (kind::ADD_OVFL_PAGE, 2) => overflow::mark_used(record, block, page),
        (kind::ADD_OVFL_PAGE, 3) => overflow::init_bitmap(record, page),
        (kind::ADD_OVFL_PAGE, 4) => meta::add_overflow_page(record, block, page),

        (kind::SPLIT_ALLOCATE_PAGE, 0) => split::begin(record, page),
        (kind::SPLIT_ALLOCATE_PAGE, 1) => split::init_new_bucket(record, page),
        (kind::SPLIT_ALLOCATE_PAGE, 2) => meta::add_bucket(record, block, page),
        (kind::SPLIT_PAGE, 0) => Err(RedoFault::Image("there is none to restore")),
        (kind::SPLIT_COMPLETE, 0) => split::complete_old(record, page),
        (kind::SPLIT_COMPLETE, 1) => split::complete_new(record, page),
        (kind::SPLIT_CLEANUP, 0) => split::cleaned_up(record, page),

        // The bucket's first page: a standby locks it, nothing more.
        (kind::MOVE_PAGE_CONTENTS | kind::SQUEEZE_PAGE | kind::DELETE, 0) => Ok(()),
        (kind::MOVE_PAGE_CONTENTS, 1) => bucket::add_moved(record, block, page),
        (kind::MOVE_PAGE_CONTENTS, 2) => bucket::delete_moved(record, block, page),
        (kind::SQUEEZE_PAGE, 1) => overflow::add_squeezed(record, block, page),
        (kind::SQUEEZE_PAGE, 2) => overflow::free(record, page),
        (kind::SQUEEZE_PAGE, 3) => overflow::unlink_from_previous(record, page),
        (kind::SQUEEZE_PAGE, 4) => overflow::unlink_from_next(record, page),
        (kind::SQUEEZE_PAGE, 5) => overflow::mark_free(record, block, page),
        (kind::SQUEEZE_PAGE, 6) => meta::set_first_free(record, block, page),
        (kind::DELETE, 1) => bucket::delete(record, block, page),

        (kind::UPDATE_META_PAGE, 0) => meta::set_tuple_count(record, page),
        (kind::VACUUM_ONE_PAGE, 0) => bucket::vacuum(record, page),
        (kind::VACUUM_ONE_PAGE, 1) => meta::count_vacuumed(record, page),
        _ => Err(RedoFault::UnrelatedPage),
    }
}

#[cfg(test)]
mod tests {
    use pg_quorum_types::BLOCK_SIZE;
    use proptest::prelude::*;

    use super::*;
    use crate::redo::page::PageLayout;
    use crate::redo::test_records::{self, TestBlock, hostile_pages, hostile_records};
    use crate::{RedoError, Rmgr, mask_page};

    fn block(id: u8, block: u32, data: &[u8]) -> TestBlock {
        TestBlock {
            id,
            block,
            data: data.to_vec(),
        }
    }

    fn metapage() -> Page {
        let mut main = 10_000f64.to_le_bytes().to_vec();
        main.extend_from_slice(&[0x92, 0x01, 0, 0, 40, 0]);
        let blocks = [block(0, 0, &[])];
        let record = test_records::record(Rmgr::Hash, kind::INIT_META_PAGE, &main, &blocks);
        let mut page: Page = [0xEE; BLOCK_SIZE];
        test_records::redo(&record, &blocks[0], &mut page).unwrap();
        page.set_lsn(pg_quorum_types::Lsn(1));
        page
    }

    // A bitmap has room for 32768 overflow pages, so that no workload of a test makes a second one.
    #[test]
    fn an_overflow_page_that_needs_a_new_bitmap_counts_twice() {
        let blocks = [
            block(0, 900, &5u32.to_le_bytes()),
            block(1, 6, &[]),
            block(3, 899, &[]),
            block(4, 0, &32770u32.to_le_bytes()),
        ];
        let record = test_records::record(Rmgr::Hash, kind::ADD_OVFL_PAGE, &[0, 16, 0], &blocks);

        let mut page: Page = [0; BLOCK_SIZE];
        test_records::redo(&record, &blocks[2], &mut page).unwrap();
        assert_eq!(page.lower(), 24 + 4096);
        assert!(page[24..24 + 4096].iter().all(|byte| *byte == 0xFF));
        assert!(page[24 + 4096..8176].iter().all(|byte| *byte == 0));
        assert_eq!(HashPage::of(&mut page).unwrap().flags(), 4);

        let mut meta = metapage();
        let before = meta;
        test_records::redo(&record, &blocks[3], &mut meta).unwrap();
        let splitpoint = before.u32_at(24 + 36) as usize;
        let spare = 24 + 52 + 4 * splitpoint;
        assert_eq!(meta.u32_at(spare), before.u32_at(spare) + 2);
        assert_eq!((before.u32_at(24 + 44), meta.u32_at(24 + 44)), (0, 1));
        assert_eq!(meta.u32_at(24 + 444), 899);
        assert_eq!(meta.u32_at(24 + 40), 32770);
        let changed: Vec<usize> = (8..BLOCK_SIZE).filter(|at| meta[*at] != before[*at]).collect();
        let is_expected = |at: &usize| {
            let words = [spare, 24 + 40, 24 + 44, 24 + 444];
            words.iter().any(|word| (*word..*word + 4).contains(at))
        };
        assert!(changed.iter().all(is_expected), "{changed:?}");
    }

    // Vacuum frees the last page of a bucket only: a page behind the freed one is in the format, but not made.
    #[test]
    fn the_page_behind_a_freed_one_is_linked_to_the_page_in_front() {
        let mut main = 11u32.to_le_bytes().to_vec();
        main.extend_from_slice(&33u32.to_le_bytes());
        main.extend_from_slice(&[0, 0, 1, 0]);
        let blocks = [
            block(1, 1, &[]),
            block(2, 22, &[]),
            block(3, 11, &[]),
            block(4, 33, &[]),
        ];
        let record = test_records::record(Rmgr::Hash, kind::SQUEEZE_PAGE, &main, &blocks);
        let mut links = Vec::new();
        for (block, (previous, next)) in blocks.iter().zip([(9, 11), (11, 33), (1, 22), (22, 44)]) {
            let mut page: Page = [0; BLOCK_SIZE];
            page.init(16);
            let mut hash_page = HashPage::of(&mut page).unwrap();
            hash_page.set_previous(previous);
            hash_page.set_next(next);
            test_records::redo(&record, block, &mut page).unwrap();
            assert_eq!(page.lsn(), record.end);
            links.push((page.u32_at(8176), page.u32_at(8180)));
        }
        assert_eq!(links, [(9, 11), (u32::MAX, u32::MAX), (1, 33), (11, 44)]);
    }

    #[test]
    fn a_split_page_is_nothing_without_its_image() {
        let blocks = [block(0, 3, &[])];
        let record = test_records::record(Rmgr::Hash, kind::SPLIT_PAGE, &[], &blocks);
        let refused = test_records::redo(&record, &blocks[0], &mut metapage());
        assert!(matches!(
            refused,
            Err(RedoError::DoesNotFit {
                fault: RedoFault::Image(_),
                ..
            })
        ));
    }

    proptest! {
        #[test]
        fn no_record_panics_on_any_page(
            (record, blocks) in hostile_records(Rmgr::Hash, 6),
            page in hostile_pages(16),
            meta_count in any::<u32>(),
        ) {
            let mut meta = metapage();
            meta.put_u32(24 + 44, meta_count % 2048);
            let _ = mask_page(Rmgr::Hash, &mut page.clone(), 1);
            for block in &blocks {
                let _ = test_records::redo(&record, block, &mut page.clone());
                let _ = test_records::redo(&record, block, &mut meta.clone());
            }
        }
    }
}
