//! Tests on whole records: what SQL cannot make, or not reliably, and what no damage may do.

use pg_quorum_types::{BLOCK_SIZE, Lsn};

use super::page::{F_DELETED, F_FOLLOW_RIGHT, F_LEAF, F_TUPLES_DELETED, GistPage, NO_BLOCK, ROOT_BLOCK};
use super::{kind, redo_restored};
use crate::redo::hostile::{Sample, SampleBlock, assert_never_panics};
use crate::redo::page::PageLayout;
use crate::redo::test_records::{self, TestBlock};
use crate::{Page, RedoError, RedoFault, Rmgr};

/// The special space's place.
const OPAQUE: usize = BLOCK_SIZE - 16;
const NSN: u64 = 0x1_0000_0002;

fn tuple(number: u8) -> Vec<u8> {
    vec![
        0, 0, number, 0, 1, 0, 16, 0, number, number, number, number, 0, 0, 0, 0,
    ]
}

fn page(flags: u16, items: u8) -> Page {
    let mut page = [0; BLOCK_SIZE];
    GistPage::init(&mut page, flags);
    for number in 1..=items {
        page.add_index_item(u16::from(number), &tuple(number)).unwrap();
    }
    page
}

fn flags(page: &Page) -> u16 {
    page.u16_at(OPAQUE + 12)
}

fn right_link(page: &Page) -> u32 {
    page.u32_at(OPAQUE + 8)
}

fn nsn(page: &Page) -> u64 {
    u64::from(page.u32_at(OPAQUE)) << 32 | u64::from(page.u32_at(OPAQUE + 4))
}

/// `gistxlogPageSplit`.
fn split_main(page_count: u16, is_leaf: bool, mark_follow_right: bool) -> Vec<u8> {
    let mut main = vec![77, 0, 0, 0, 0, 0, 0, 0];
    main.extend(NSN.to_le_bytes());
    main.extend([u8::from(is_leaf), 0]);
    main.extend(page_count.to_le_bytes());
    main.extend([u8::from(mark_follow_right), 0, 0, 0]);
    main
}

fn part_data(numbers: &[u8]) -> Vec<u8> {
    let mut data = (numbers.len() as u32).to_le_bytes().to_vec();
    data.extend(numbers.iter().flat_map(|number| tuple(*number)));
    data
}

fn update(delete: &[u16], insert: &[u8], page: Page, child: Option<Page>) -> Sample {
    let counts = [delete.len() as u16, insert.len() as u16];
    let mut data: Vec<u8> = delete.iter().copied().flat_map(u16::to_le_bytes).collect();
    data.extend(insert.iter().flat_map(|number| tuple(*number)));
    let mut blocks = vec![SampleBlock::new(0, data, page)];
    blocks.extend(child.map(|child| SampleBlock::new(1, Vec::new(), child)));
    Sample {
        rmgr: Rmgr::Gist,
        info: kind::PAGE_UPDATE,
        main: counts.map(u16::to_le_bytes).concat(),
        blocks,
    }
}

fn page_split() -> Sample {
    Sample {
        rmgr: Rmgr::Gist,
        info: kind::PAGE_SPLIT,
        main: split_main(3, true, true),
        blocks: vec![
            SampleBlock::new(0, Vec::new(), page(F_LEAF | F_FOLLOW_RIGHT, 4)),
            SampleBlock::init(1, part_data(&[1, 2])),
            SampleBlock::init(2, part_data(&[3])),
            SampleBlock::init(3, part_data(&[4, 5, 6])),
        ],
    }
}

fn delete(offsets: &[u16]) -> Sample {
    let mut main = 700u32.to_le_bytes().to_vec();
    main.extend((offsets.len() as u16).to_le_bytes());
    main.extend(offsets.iter().copied().flat_map(u16::to_le_bytes));
    Sample {
        rmgr: Rmgr::Gist,
        info: kind::DELETE,
        main,
        blocks: vec![SampleBlock::new(0, Vec::new(), page(F_LEAF, 9))],
    }
}

fn page_delete() -> Sample {
    Sample {
        rmgr: Rmgr::Gist,
        info: kind::PAGE_DELETE,
        main: [&9_000_000_001u64.to_le_bytes()[..], &2u16.to_le_bytes()].concat(),
        blocks: vec![
            SampleBlock::new(0, Vec::new(), page(F_LEAF, 0)),
            SampleBlock::new(1, Vec::new(), page(0, 3)),
        ],
    }
}

/// The part of a split on block `number`, where the parts are on `blocks`, from left to right.
fn part_of(blocks: &[u32], number: usize, mark_follow_right: bool) -> Page {
    let blocks: Vec<TestBlock> = (1..)
        .zip(blocks)
        .map(|(id, block)| TestBlock {
            id,
            block: *block,
            data: part_data(&[id]),
        })
        .collect();
    let main = split_main(blocks.len() as u16, true, mark_follow_right);
    let record = test_records::record(Rmgr::Gist, kind::PAGE_SPLIT, &main, &blocks);
    let mut page = [0xAA; BLOCK_SIZE];
    test_records::redo(&record, &blocks[number], &mut page).unwrap();
    assert_eq!(page.item(1).unwrap(), tuple(number as u8 + 1));
    assert_eq!(nsn(&page), NSN);
    page
}

#[test]
fn parts_are_linked_and_all_but_the_last_wait_for_their_downlinks() {
    let parts = [0, 1, 2].map(|number| part_of(&[8, 20, 21], number, true));
    assert_eq!(parts.each_ref().map(right_link), [20, 21, 77]);
    let waiting = F_LEAF | F_FOLLOW_RIGHT;
    assert_eq!(parts.each_ref().map(flags), [waiting, waiting, F_LEAF]);
}

#[test]
fn parts_of_a_buffered_build_wait_for_nothing() {
    let parts = [0, 1].map(|number| part_of(&[8, 20], number, false));
    assert_eq!(parts.each_ref().map(flags), [F_LEAF, F_LEAF]);
}

#[test]
fn a_new_root_is_no_leaf_and_has_the_downlinks_of_its_parts() {
    let parts = [0, 1, 2].map(|number| part_of(&[ROOT_BLOCK, 20, 21], number, true));
    assert_eq!(parts.each_ref().map(right_link), [NO_BLOCK, 21, 77]);
    assert_eq!(parts.each_ref().map(flags), [0, F_LEAF, F_LEAF]);
}

/// A checkpoint between a split and its downlinks puts an image of the left page into the record of the downlinks.
/// The image still has the old sequence number and the flag; a page that kept them would send scans to the right for
/// ever, or not when they must.
#[test]
fn a_left_page_restored_from_its_image_is_finished_as_well() {
    for (sample, id) in [
        (update(&[1], &[7, 8], page(0, 2), Some(page(F_LEAF, 1))), 1),
        (page_split(), 0),
    ] {
        let record = sample.record();
        let mut child = page(F_LEAF | F_FOLLOW_RIGHT, 4);
        child.set_lsn(record.end);
        redo_restored(&record, record.block(id).unwrap(), &mut child).unwrap();
        assert_eq!(
            (flags(&child), nsn(&child), child.lsn()),
            (F_LEAF, record.end.0, record.end)
        );
        let other = 1 - id;
        let mut untouched = page(F_LEAF | F_FOLLOW_RIGHT, 4);
        redo_restored(&record, record.block(other).unwrap(), &mut untouched).unwrap();
        assert_eq!(untouched, page(F_LEAF | F_FOLLOW_RIGHT, 4));
        let refused = redo_restored(&record, record.block(id).unwrap(), &mut [0; BLOCK_SIZE]);
        assert_eq!(refused, Err(RedoFault::NewPage));
    }
}

/// Without an image, a page that bears the record's LSN has the change already.
#[test]
fn a_left_page_of_the_future_is_left_alone() {
    let mut child = page(F_LEAF | F_FOLLOW_RIGHT, 4);
    child.set_lsn(Lsn(u64::MAX));
    let pages = update(&[], &[7], page(0, 2), Some(child)).replay().unwrap();
    assert_eq!(pages[1], child);
}

#[test]
fn one_tuple_for_another_keeps_its_number_and_others_are_appended() {
    let replaced = update(&[1], &[7], page(0, 3), None).replay().unwrap()[0];
    assert_eq!(replaced.item(1).unwrap(), tuple(7));
    let divided = update(&[1], &[7, 8], page(0, 3), None).replay().unwrap()[0];
    let found: Vec<_> = (1..=4)
        .map(|offset| divided.item(offset).unwrap().to_vec())
        .collect();
    assert_eq!(found, [2, 3, 7, 8].map(tuple));
    assert_eq!(flags(&divided), 0);
    let vacuumed = update(&[1, 2, 3], &[], page(F_LEAF, 3), None).replay().unwrap()[0];
    assert_eq!(
        (vacuumed.max_offset(), flags(&vacuumed)),
        (0, F_LEAF | F_TUPLES_DELETED)
    );
}

#[test]
fn a_deleted_page_keeps_the_transaction_that_may_still_see_it() {
    let pages = page_delete().replay().unwrap();
    assert_eq!(flags(&pages[0]), F_LEAF | F_DELETED);
    assert_eq!(
        (pages[0].lower(), pages[0][24..32].to_vec()),
        (32, 9_000_000_001u64.to_le_bytes().to_vec())
    );
    assert_eq!(pages[1].item(2).unwrap(), tuple(3));
}

#[test]
fn counts_that_are_not_those_of_the_tuples_are_refused() {
    for count in [1u16, 3] {
        let mut sample = update(&[], &[7, 8], page(F_LEAF, 3), None);
        sample.main[2..].copy_from_slice(&count.to_le_bytes());
        assert!(
            matches!(sample.replay(), Err(RedoError::DoesNotFit { .. })),
            "{count}"
        );
        let mut sample = page_split();
        sample.blocks[3].data[..4].copy_from_slice(&u32::from(count + 1).to_le_bytes());
        assert!(
            matches!(sample.replay(), Err(RedoError::DoesNotFit { .. })),
            "{count}"
        );
    }
}

#[test]
fn no_damage_makes_redo_panic() {
    assert_never_panics(&[
        update(&[], &[7], page(F_LEAF, 5), None),
        update(&[2], &[7], page(0, 5), None),
        update(&[2], &[7, 8], page(0, 5), Some(page(F_LEAF | F_FOLLOW_RIGHT, 4))),
        update(&[1, 3, 5], &[], page(F_LEAF, 5), None),
        page_split(),
        delete(&[1]),
        delete(&[2, 3, 9]),
        page_delete(),
    ]);
}
