//! Tests on whole records: what they leave on a page, and what no damage to them may do.

use proptest::prelude::*;

use super::page::{
    DATA_AT, GIN_COMPRESSED, GIN_DATA, GIN_DELETED, GIN_INCOMPLETE_SPLIT, GIN_LEAF, GIN_LIST, GinPage,
};
use super::posting_list::{PostingList, encode};
use super::{INSERT_IS_DATA, INSERT_IS_LEAF, NO_BLOCK, kind};
use crate::redo::heap_tuple::TupleId;
use crate::redo::hostile::{Sample, SampleBlock, assert_never_panics};
use crate::redo::index_tuple::block_bytes;
use crate::redo::page::PageLayout;
use crate::{Page, Rmgr, mask_page};

use pg_quorum_types::BLOCK_SIZE;

fn tids(numbers: impl IntoIterator<Item = u32>) -> Vec<TupleId> {
    let tid = |number: u32| TupleId {
        block: number / 200,
        offset: (number % 200 + 1) as u16,
    };
    numbers.into_iter().map(tid).collect()
}

fn packed(items: &[TupleId]) -> Vec<u8> {
    let mut out = [0; BLOCK_SIZE];
    let size = encode(items.iter().copied().map(Ok), &mut out).unwrap();
    out[..size].to_vec()
}

fn plain(items: &[TupleId]) -> Vec<u8> {
    items.iter().flat_map(|tid| tid.to_bytes()).collect()
}

fn gin_page(flags: u16, fill: impl FnOnce(&mut GinPage<'_>)) -> Page {
    let mut page = [0; BLOCK_SIZE];
    fill(&mut GinPage::init(&mut page, flags));
    page
}

fn leaf(lists: &[Vec<TupleId>]) -> Page {
    let lists: Vec<u8> = lists.iter().flat_map(|list| packed(list)).collect();
    gin_page(GIN_DATA | GIN_LEAF | GIN_COMPRESSED, |page| {
        page.page[DATA_AT..DATA_AT + lists.len()].copy_from_slice(&lists);
        page.set_end_of_data(DATA_AT + lists.len());
    })
}

/// As PostgreSQL before 9.4 wrote them.
fn old_leaf(items: &[TupleId]) -> Page {
    gin_page(GIN_DATA | GIN_LEAF, |page| {
        let items = plain(items);
        page.page[DATA_AT..DATA_AT + items.len()].copy_from_slice(&items);
        page.set_item_count(items.len() as u16 / 6);
    })
}

fn posting_item(child: u32, key: u32) -> [u8; 10] {
    let mut item = [0; 10];
    item[..4].copy_from_slice(&block_bytes(child));
    item[4..].copy_from_slice(&tids([key])[0].to_bytes());
    item
}

fn internal(children: &[u32]) -> Page {
    gin_page(GIN_DATA, |page| {
        let items: Vec<u8> = children
            .iter()
            .flat_map(|child| posting_item(*child, child * 10))
            .collect();
        page.page[DATA_AT..DATA_AT + items.len()].copy_from_slice(&items);
        page.set_item_count(children.len() as u16);
        page.set_end_of_data(DATA_AT + items.len());
    })
}

fn index_tuple(number: u8, len: usize) -> Vec<u8> {
    let mut tuple = vec![number; len];
    tuple[..6].copy_from_slice(&tids([u32::from(number)])[0].to_bytes());
    tuple[6..8].copy_from_slice(&(len as u16).to_le_bytes());
    tuple
}

fn item_page(flags: u16) -> Page {
    gin_page(flags, |page| {
        for number in 1..=5u8 {
            let tuple = index_tuple(number, 16 + 8 * usize::from(number));
            page.page.add_index_item(u16::from(number), &tuple).unwrap();
        }
    })
}

fn sample(info: u8, main: Vec<u8>, blocks: Vec<SampleBlock>) -> Sample {
    Sample {
        rmgr: Rmgr::Gin,
        info,
        main,
        blocks,
    }
}

fn insert_main(flags: u16, children: Option<(u32, u32)>) -> Vec<u8> {
    let mut main = flags.to_le_bytes().to_vec();
    if let Some((left, right)) = children {
        main.extend(block_bytes(left));
        main.extend(block_bytes(right));
    }
    main
}

fn child() -> Page {
    gin_page(
        GIN_DATA | GIN_LEAF | GIN_COMPRESSED | GIN_INCOMPLETE_SPLIT,
        |_| {},
    )
}

fn entry_data(offset: u16, replaces: bool, tuple: &[u8]) -> Vec<u8> {
    let mut data = offset.to_le_bytes().to_vec();
    data.extend([u8::from(replaces), 0]);
    data.extend(tuple);
    data
}

/// What a record does to a leaf's posting list.
#[derive(Clone, Debug)]
enum Action {
    Delete,
    Insert(Vec<TupleId>),
    Replace(Vec<TupleId>),
    Add(Vec<TupleId>),
}

fn leaf_data(actions: &[(u8, Action)]) -> Vec<u8> {
    let mut data = (actions.len() as u16).to_le_bytes().to_vec();
    for (number, action) in actions {
        data.push(*number);
        match action {
            Action::Delete => data.push(1),
            Action::Insert(items) => {
                data.push(2);
                data.extend(packed(items));
            }
            Action::Replace(items) => {
                data.push(3);
                data.extend(packed(items));
            }
            Action::Add(items) => {
                data.push(4);
                data.extend((items.len() as u16).to_le_bytes());
                data.extend(plain(items));
            }
        }
    }
    data
}

fn change_leaf(page: Page, actions: &[(u8, Action)]) -> Sample {
    let main = insert_main(INSERT_IS_DATA | INSERT_IS_LEAF, None);
    sample(
        kind::INSERT,
        main,
        vec![SampleBlock::new(0, leaf_data(actions), page)],
    )
}

fn insert_entry(flags: u16, data: Vec<u8>) -> Sample {
    let page = item_page(flags);
    if flags & GIN_LEAF != 0 {
        let main = insert_main(INSERT_IS_LEAF, None);
        return sample(kind::INSERT, main, vec![SampleBlock::new(0, data, page)]);
    }
    let blocks = vec![
        SampleBlock::new(0, data, page),
        SampleBlock::new(1, Vec::new(), child()),
    ];
    sample(kind::INSERT, insert_main(0, Some((7, 8))), blocks)
}

fn insert_downlink(page: Page, offset: u16) -> Sample {
    let mut data = offset.to_le_bytes().to_vec();
    data.extend(posting_item(70, 25));
    let blocks = vec![
        SampleBlock::new(0, data, page),
        SampleBlock::new(1, Vec::new(), child()),
    ];
    sample(kind::INSERT, insert_main(INSERT_IS_DATA, Some((70, 71))), blocks)
}

fn metadata() -> Vec<u8> {
    (1..=56).collect()
}

fn update_meta(previous_tail: u32, tuple_count: i32) -> Vec<u8> {
    let mut main = vec![0; 16];
    main.extend(metadata());
    main.extend(previous_tail.to_le_bytes());
    main.extend(44u32.to_le_bytes());
    main.extend(tuple_count.to_le_bytes());
    main.extend([0; 4]);
    main
}

fn delete_page(parent_offset: u16) -> Sample {
    let mut main = parent_offset.to_le_bytes().to_vec();
    main.extend([0; 2]);
    main.extend(55u32.to_le_bytes());
    main.extend(900u32.to_le_bytes());
    let empty_leaf = leaf(&[]);
    let blocks = vec![
        SampleBlock::new(0, Vec::new(), empty_leaf),
        SampleBlock::new(1, Vec::new(), internal(&[1, 2, 3])),
        SampleBlock::new(2, Vec::new(), empty_leaf),
    ];
    sample(kind::DELETE_PAGE, main, blocks)
}

fn list_page(right_link: u32, tuples: &[Vec<u8>]) -> Sample {
    let mut main = right_link.to_le_bytes().to_vec();
    main.extend((tuples.len() as i32).to_le_bytes());
    sample(
        kind::INSERT_LISTPAGE,
        main,
        vec![SampleBlock::init(0, tuples.concat())],
    )
}

fn delete_list_pages(count: u8) -> Sample {
    let mut main = metadata();
    main.extend(i32::from(count).to_le_bytes());
    main.extend([0; 4]);
    let blocks = (0..=count).map(|id| SampleBlock::init(id, Vec::new())).collect();
    sample(kind::DELETE_LISTPAGE, main, blocks)
}

fn samples() -> Vec<Sample> {
    let lists = [tids(0..90), tids(100..250), tids([400])];
    let created = packed(&tids(0..3000));
    let mut tree = (created.len() as u32).to_le_bytes().to_vec();
    tree.extend(created);
    let mut split_of_parent = vec![0; 24];
    split_of_parent.extend([0; 4]);
    let tuples = [index_tuple(8, 24), index_tuple(9, 40)];
    let vacuum = leaf_data(&[(0, Action::Replace(tids(0..5))), (1, Action::Delete)]);
    vec![
        sample(kind::CREATE_PTREE, tree, vec![SampleBlock::init(0, Vec::new())]),
        insert_entry(GIN_LEAF, entry_data(3, false, &tuples[0])),
        insert_entry(GIN_LEAF, entry_data(3, true, &tuples[1])),
        insert_entry(0, entry_data(2, false, &tuples[0])),
        change_leaf(leaf(&lists), &[(1, Action::Add(tids([99, 260])))]),
        change_leaf(
            leaf(&lists),
            &[(0, Action::Delete), (1, Action::Replace(tids(0..200)))],
        ),
        change_leaf(
            leaf(&lists),
            &[(3, Action::Insert(tids([500]))), (3, Action::Insert(tids([600])))],
        ),
        change_leaf(old_leaf(&tids(0..700)), &[(0, Action::Add(tids([900])))]),
        change_leaf(old_leaf(&[]), &[(0, Action::Insert(tids([900])))]),
        insert_downlink(internal(&[1, 2, 3]), 2),
        sample(
            kind::SPLIT,
            split_of_parent,
            vec![SampleBlock::new(3, Vec::new(), child())],
        ),
        sample(
            kind::VACUUM_DATA_LEAF_PAGE,
            Vec::new(),
            vec![SampleBlock::new(0, vacuum, leaf(&lists))],
        ),
        delete_page(2),
        sample(
            kind::UPDATE_META_PAGE,
            update_meta(NO_BLOCK, 2),
            vec![
                SampleBlock::init(0, Vec::new()),
                SampleBlock::new(1, tuples.concat(), item_page(GIN_LIST)),
            ],
        ),
        sample(
            kind::UPDATE_META_PAGE,
            update_meta(43, 0),
            vec![
                SampleBlock::init(0, Vec::new()),
                SampleBlock::new(1, Vec::new(), item_page(GIN_LIST)),
            ],
        ),
        list_page(NO_BLOCK, &tuples),
        list_page(12, &tuples),
        delete_list_pages(16),
    ]
}

#[test]
fn damaged_records_and_pages_are_refused_without_a_panic() {
    assert_never_panics(&samples());
}

/// The lists of a leaf, and the bytes behind them.
fn lists_of(page: &Page) -> (Vec<Vec<TupleId>>, &[u8]) {
    let end = usize::from(page.lower());
    let mut rest = &page[DATA_AT..end];
    let mut lists = Vec::new();
    while !rest.is_empty() {
        let list = PostingList::at(rest).unwrap();
        lists.push(list.items().map(Result::unwrap).collect());
        rest = &rest[list.size()..];
    }
    (lists, &page[end..usize::from(page.special())])
}

/// Lists of rising TIDs, each with how far its first TID is behind the last one of the list in front.
fn random_lists() -> impl Strategy<Value = Vec<Vec<TupleId>>> {
    prop::collection::vec(prop::collection::vec(1u32..5000, 1..60), 1..20).prop_map(|steps| {
        let mut number = 0;
        let list = |steps: Vec<u32>| {
            tids(steps.into_iter().map(|step| {
                number += step * 2;
                number
            }))
        };
        steps.into_iter().map(list).collect()
    })
}

/// What to do to one list: nothing, delete, replace with every third TID, add TIDs that it does not have, insert
/// one in front.
fn plan(lists: &[Vec<TupleId>], choices: &[u8]) -> (Vec<(u8, Action)>, Vec<Vec<TupleId>>) {
    let mut actions = Vec::new();
    let mut expected = Vec::new();
    for ((number, list), choice) in (0u8..).zip(lists).zip(choices) {
        match choice {
            0 => actions.push((number, Action::Delete)),
            1 => {
                let kept: Vec<_> = list.iter().step_by(3).copied().collect();
                actions.push((number, Action::Replace(kept.clone())));
                expected.push(kept);
            }
            2 => {
                let next = |tid: &TupleId| TupleId {
                    offset: tid.offset + 1000,
                    ..*tid
                };
                let added: Vec<_> = list.iter().step_by(4).map(next).collect();
                let mut merged = [list.clone(), added.clone()].concat();
                merged.sort();
                actions.push((number, Action::Add(added)));
                expected.push(merged);
            }
            3 => {
                actions.push((number, Action::Insert(list[..1].to_vec())));
                expected.extend([list[..1].to_vec(), list.clone()]);
            }
            _ => expected.push(list.clone()),
        }
    }
    (actions, expected)
}

proptest! {
    #[test]
    fn a_leaf_gets_the_lists_that_the_actions_make(
        lists in random_lists(),
        choices in prop::collection::vec(0u8..7, 20),
    ) {
        let (actions, expected) = plan(&lists, &choices);
        let before = leaf(&lists);
        prop_assume!(!actions.is_empty());
        prop_assume!(expected.iter().map(|list| packed(list).len()).sum::<usize>() <= 8152);
        let after = change_leaf(before, &actions).replay().unwrap()[0];
        let (found, behind) = lists_of(&after);
        prop_assert_eq!(found, expected);
        // What was there stays behind the lists.
        let end = usize::from(after.lower());
        prop_assert_eq!(behind, &before[end..usize::from(before.special())]);
    }
}

#[test]
fn a_leaf_in_the_old_format_is_converted_before_it_changes() {
    let items = tids(0..700);
    let before = old_leaf(&items);
    let added = tids([10_000]);
    let after = change_leaf(before, &[(0, Action::Add(added.clone()))])
        .replay()
        .unwrap()[0];
    let mut copy = after;
    let page = GinPage::of(&mut copy).unwrap();
    assert_eq!(page.flags(), GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
    assert_eq!(page.item_count(), 0);
    let (lists, behind) = lists_of(&after);
    assert_eq!(lists, [[items, added].concat()]);
    let end = usize::from(after.lower());
    assert_eq!(behind, &before[end..BLOCK_SIZE - 8]);
}

#[test]
fn actions_on_lists_that_do_not_exist_are_refused() {
    let lists = [tids(0..5), tids(10..15)];
    for actions in [
        vec![],
        vec![(2, Action::Delete)],
        vec![(2, Action::Replace(tids([1])))],
        vec![(2, Action::Add(tids([20])))],
        vec![(3, Action::Insert(tids([20])))],
        vec![(1, Action::Delete), (0, Action::Delete)],
        vec![(0, Action::Add(tids([2, 1])))],
    ] {
        assert!(
            change_leaf(leaf(&lists), &actions).replay().is_err(),
            "{actions:?}"
        );
    }
    let too_much: Vec<_> = (0..40)
        .map(|n| (2, Action::Insert(tids(n * 9000..n * 9000 + 300))))
        .collect();
    assert!(change_leaf(leaf(&lists), &too_much).replay().is_err());
}

#[test]
fn a_downlink_goes_in_front_of_the_one_that_gets_the_right_half() {
    let after = insert_downlink(internal(&[1, 2, 3]), 2).replay().unwrap();
    let items: Vec<&[u8]> = after[0][DATA_AT..usize::from(after[0].lower())]
        .chunks(10)
        .collect();
    let right = posting_item(71, 20);
    let expected = [
        posting_item(1, 10),
        posting_item(70, 25),
        right,
        posting_item(3, 30),
    ];
    assert_eq!(items, expected);
    let mut child = after[1];
    assert_eq!(GinPage::of(&mut child).unwrap().flags() & GIN_INCOMPLETE_SPLIT, 0);
    for offset in [0, 4] {
        assert!(insert_downlink(internal(&[1, 2, 3]), offset).replay().is_err());
    }
    let full: Vec<u32> = (1..=815).collect();
    assert!(insert_downlink(internal(&full), 1).replay().is_err());
    assert!(insert_downlink(internal(&full[..814]), 1).replay().is_ok());
}

#[test]
fn a_deleted_page_leaves_its_parent_and_its_left_sibling() {
    let mut after = delete_page(2).replay().unwrap();
    assert_eq!(after[0].u32_at(20), 900);
    let mut flags = |index: usize| GinPage::of(&mut after[index]).unwrap().flags();
    assert_eq!(flags(0), GIN_DATA | GIN_LEAF | GIN_COMPRESSED | GIN_DELETED);
    let parent = &after[1];
    let items: Vec<&[u8]> = parent[DATA_AT..usize::from(parent.lower())].chunks(10).collect();
    assert_eq!(items, [posting_item(1, 10), posting_item(3, 30)]);
    assert_eq!(after[2].u32_at(BLOCK_SIZE - 8), 55);
    assert!(delete_page(4).replay().is_err());
}

#[test]
fn masks_hide_deleted_pages_and_the_middle_of_others_unless_their_end_is_unknown() {
    let mut deleted = gin_page(GIN_DELETED, |page| page.page[100] = 1);
    mask_page(Rmgr::Gin, &mut deleted, 1).unwrap();
    assert_eq!(deleted[24..], [0; BLOCK_SIZE - 24]);
    let mut page = item_page(GIN_LEAF);
    page[1000] = 1;
    mask_page(Rmgr::Gin, &mut page, 1).unwrap();
    assert_eq!(page[1000], 0);
    let mut old = old_leaf(&tids(0..700));
    let before = old;
    mask_page(Rmgr::Gin, &mut old, 1).unwrap();
    assert_eq!(old[DATA_AT..], before[DATA_AT..]);
}
