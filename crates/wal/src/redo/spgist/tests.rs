//! Tests on whole records: what SQL cannot make, and what no damage may do.

use pg_quorum_types::BLOCK_SIZE;

use super::kind;
use super::page::{PageUse, init_or_prepare};
use super::tuple::{DeadTuple, TupleState, state};
use crate::redo::hostile::{Sample, SampleBlock, assert_never_panics};
use crate::redo::index_tuple::{StoredTid, stored_tid};
use crate::redo::page::PageLayout;
use crate::{Page, RedoError, Rmgr};

const OPAQUE: usize = BLOCK_SIZE - 8;
const NO_TID: StoredTid = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0];
const XID: u32 = 700;

fn leaf(number: u8, next: u16) -> Vec<u8> {
    let mut tuple = (24u32 << 2).to_le_bytes().to_vec();
    tuple.extend(next.to_le_bytes());
    tuple.extend([0, 0, number, 0, 1, 0, 0, 0, 0, 0]);
    tuple.extend([number; 8]);
    tuple
}

/// An inner tuple with a prefix of eight bytes.
fn inner(nodes: u8) -> Vec<u8> {
    let mut tuple = (8u32 << 16 | u32::from(nodes) << 3).to_le_bytes().to_vec();
    tuple.extend((16 + u16::from(nodes) * 16).to_le_bytes());
    tuple.extend([0, 0]);
    tuple.extend(*b"prefix..");
    for label in 0..nodes {
        tuple.extend(NO_TID);
        tuple.extend([16, 0, label, 0, 0, 0, 0, 0, 0, 0]);
    }
    tuple
}

/// Where node number `node` of the inner tuple at `offset` points to.
fn link(page: &Page, offset: u16, node: usize) -> StoredTid {
    let at = 16 + node * 16;
    page.item(offset).unwrap()[at..at + 6].try_into().unwrap()
}

fn page_of(is_leaf: bool, items: &[Vec<u8>]) -> Page {
    let mut page = [0; BLOCK_SIZE];
    let empty = sample(kind::VACUUM_ROOT, Vec::new(), Vec::new()).record();
    let page_use = PageUse {
        is_leaf,
        stores_nulls: false,
    };
    init_or_prepare(&empty, &mut page, true, page_use).unwrap();
    for (offset, item) in (1..).zip(items) {
        page.add_index_item(offset, item).unwrap();
        if state(item).unwrap() == TupleState::Placeholder {
            page[OPAQUE + 4] += 1;
        }
        if state(item).unwrap() == TupleState::Redirect {
            page[OPAQUE + 2] += 1;
        }
    }
    page
}

/// `nRedirection`, `nPlaceholder`.
fn counters(page: &Page) -> (u16, u16) {
    (page.u16_at(OPAQUE + 2), page.u16_at(OPAQUE + 4))
}

fn placeholder() -> Vec<u8> {
    DeadTuple::Placeholder.bytes().to_vec()
}

fn redirect(block: u32, offset: u16) -> Vec<u8> {
    let to = stored_tid(block, offset);
    DeadTuple::Redirect { to, xid: XID }.bytes().to_vec()
}

fn sample(info: u8, main: Vec<u8>, blocks: Vec<SampleBlock>) -> Sample {
    Sample {
        rmgr: Rmgr::SpGist,
        info,
        main,
        blocks,
    }
}

fn block(id: u8, page: Page) -> SampleBlock {
    SampleBlock::new(id, Vec::new(), page)
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().copied().flat_map(u16::to_le_bytes).collect()
}

/// `spgxlogState`, aligned.
fn writer(is_build: bool) -> Vec<u8> {
    let mut state = XID.to_le_bytes().to_vec();
    state.extend([u8::from(is_build), 0, 0, 0]);
    state
}

/// A leaf tuple goes to `offset`, behind the head of its chain; with 0 for that it is a new chain.
fn add_leaf(offset: u16, head: u16, page: Page) -> Sample {
    let has_parent = head == 0;
    let mut main = vec![0, 0];
    main.extend(numbers(&[offset, head, u16::from(has_parent), 1]));
    main.extend(leaf(9, 0));
    let mut blocks = vec![block(0, page)];
    if has_parent {
        blocks.push(block(1, page_of(false, &[inner(3)])));
    }
    sample(kind::ADD_LEAF, main, blocks)
}

fn move_leafs(is_build: bool, replaces_dead: bool) -> Sample {
    let (source, deleted, inserted) = if replaces_dead {
        let dead = DeadTuple::Dead.bytes().to_vec();
        (page_of(true, &[leaf(1, 0), dead]), vec![2], vec![1])
    } else {
        (
            page_of(true, &[leaf(1, 0), leaf(2, 1)]),
            vec![2, 1],
            vec![1, 3, 4],
        )
    };
    let destination = page_of(true, &[placeholder(), leaf(5, 0)]);
    let mut main = numbers(&[deleted.len() as u16]);
    main.extend([0, u8::from(replaces_dead), 0, 0]);
    main.extend(numbers(&[1, 2, 0]));
    main.extend(writer(is_build));
    main.extend(numbers(&deleted));
    main.extend(numbers(&inserted));
    main.extend((0..inserted.len()).flat_map(|number| leaf(number as u8 + 20, 0)));
    let parent = page_of(false, &[inner(3)]);
    sample(
        kind::MOVE_LEAFS,
        main,
        vec![block(0, source), block(1, destination), block(2, parent)],
    )
}

/// The tuple at line pointer 2 of block 0 gets a node; the downlink is node 1 of the one at line pointer 1 of
/// `parent_block`.
fn add_node(parent_block: i8, is_build: bool) -> Sample {
    let mut main = numbers(&[2, if parent_block < 0 { 0 } else { 3 }]);
    main.extend([0, parent_block as u8]);
    main.extend(numbers(&[1, 1, 0]));
    main.extend(writer(is_build));
    main.extend(inner(4));
    let mut blocks = vec![block(0, page_of(false, &[inner(2), inner(3)]))];
    if parent_block >= 0 {
        blocks.push(block(1, page_of(false, &[inner(2), inner(2), placeholder()])));
    }
    if parent_block == 2 {
        blocks.push(block(2, page_of(false, &[inner(2)])));
    }
    sample(kind::ADD_NODE, main, blocks)
}

fn split_tuple(on_same_page: bool) -> Sample {
    let mut main = numbers(&[1, if on_same_page { 2 } else { 1 }]);
    main.extend([u8::from(!on_same_page), u8::from(on_same_page)]);
    main.extend(inner(1));
    main.extend(inner(3));
    let mut blocks = vec![block(0, page_of(false, &[inner(3), placeholder()]))];
    if !on_same_page {
        blocks.push(SampleBlock::init(1, Vec::new()));
    }
    sample(kind::SPLIT_TUPLE, main, blocks)
}

/// A chain of two, and a new tuple, is divided between its page and a new one, under an inner tuple on its parent's
/// page or on another one.
fn pick_split(is_build: bool, inner_is_parent: bool) -> Sample {
    let mut main = vec![0, 0];
    main.extend(numbers(&[2, 3]));
    main.extend([0, 1]);
    main.extend(numbers(&[2]));
    main.extend([0, 0, u8::from(inner_is_parent), 0]);
    main.extend(numbers(&[1, 2, 0]));
    main.extend(writer(is_build));
    main.extend(numbers(&[3, 1, 4, 1, 2]));
    main.extend([0, 1, 1]);
    main.extend(inner(2));
    main.extend((20..23).flat_map(|number| leaf(number, 0)));
    let source = page_of(true, &[leaf(1, 0), leaf(2, 0), leaf(3, 1)]);
    let mut blocks = vec![
        block(0, source),
        SampleBlock::init(1, Vec::new()),
        block(2, page_of(false, &[inner(3), placeholder()])),
    ];
    if !inner_is_parent {
        blocks.push(block(3, page_of(false, &[inner(3)])));
    }
    sample(kind::PICKSPLIT, main, blocks)
}

fn vacuum_leaf() -> Sample {
    let mut main = numbers(&[1, 3, 1, 1]);
    main.extend(writer(false));
    main.extend(numbers(&[1, 7, 3, 4, 6, 5, 2, 0]));
    let items: Vec<_> = (1..=7).map(|number| leaf(number, 0)).collect();
    sample(kind::VACUUM_LEAF, main, vec![block(0, page_of(true, &items))])
}

fn vacuum_root() -> Sample {
    let mut main = numbers(&[3, 0]);
    main.extend(writer(false));
    main.extend(numbers(&[1, 3, 4]));
    let items: Vec<_> = (1..=5).map(|number| leaf(number, 0)).collect();
    sample(kind::VACUUM_ROOT, main, vec![block(0, page_of(true, &items))])
}

fn vacuum_redirect(first_placeholder: u16) -> Sample {
    let mut main = numbers(&[2, first_placeholder]);
    main.extend(XID.to_le_bytes());
    main.extend(numbers(&[4, 1]));
    let items = [
        redirect(9, 1),
        leaf(1, 0),
        placeholder(),
        redirect(9, 2),
        placeholder(),
    ];
    sample(kind::VACUUM_REDIRECT, main, vec![block(0, page_of(true, &items))])
}

/// `SpGistGetBuffer` cannot lock its caller's parent page once more, so that no server makes the second of these.
#[test]
fn the_downlink_to_a_tuple_that_moves_is_updated_on_whichever_page_it_is() {
    let moved_to = stored_tid(2, 3);
    for parent_block in 0..3 {
        let pages = add_node(parent_block, false).replay().unwrap();
        for (id, page) in (0..).zip(&pages) {
            let expected = if id == parent_block { moved_to } else { NO_TID };
            assert_eq!(link(page, 1, 1), expected, "parent on {parent_block}, page {id}");
        }
        assert_eq!(pages[0].item(2).unwrap(), redirect(2, 3));
        assert_eq!((counters(&pages[0]), counters(&pages[1])), ((1, 0), (0, 0)));
        assert_eq!(pages[1].item(3).unwrap(), inner(4));
    }
    let in_place = add_node(-1, false).replay().unwrap();
    assert_eq!(in_place[0].item(2).unwrap(), inner(4));
    assert_eq!(
        (counters(&in_place[0]), link(&in_place[0], 1, 1)),
        ((0, 0), NO_TID)
    );
}

/// 15 writes no records while it builds an index; its redo routines know those of such a writer nevertheless.
#[test]
fn a_build_leaves_placeholders_where_others_leave_redirections() {
    type Make = fn(bool) -> Sample;
    let cases: [(Make, u16, Vec<u8>); 3] = [
        (|is_build| add_node(2, is_build), 2, redirect(2, 3)),
        (|is_build| move_leafs(is_build, false), 2, redirect(2, 4)),
        (|is_build| pick_split(is_build, true), 3, redirect(3, 2)),
    ];
    for (make, offset, redirection) in cases {
        let page = make(false).replay().unwrap()[0];
        assert_eq!(page.item(offset).unwrap(), redirection);
        let (redirects, placeholders) = counters(&page);
        let built = make(true).replay().unwrap()[0];
        assert_eq!(built.item(offset).unwrap(), placeholder());
        assert_eq!(counters(&built), (redirects - 1, placeholders + 1));
    }
}

#[test]
fn a_tuple_in_the_place_of_a_dead_head_starts_its_chain_anew() {
    let dead = DeadTuple::Dead.bytes().to_vec();
    let page = add_leaf(1, 1, page_of(true, &[dead, leaf(2, 0)]))
        .replay()
        .unwrap()[0];
    assert_eq!(
        (page.item(1).unwrap(), page.item(2).unwrap()),
        (&leaf(9, 0)[..], &leaf(2, 0)[..])
    );
    let pages = move_leafs(false, true).replay().unwrap();
    assert_eq!(pages[0].item(2).unwrap(), redirect(2, 1));
    assert_eq!(link(&pages[2], 1, 2), stored_tid(2, 1));
}

#[test]
fn vacuum_moves_tuples_by_their_line_pointers_and_keeps_the_flags_beside_a_link() {
    let mut sample = vacuum_leaf();
    let page = &mut sample.blocks[0].page;
    page.item_mut(2).unwrap()[5] = 0x80;
    let page = sample.replay().unwrap()[0];
    let states: Vec<_> = (1..=7)
        .map(|offset| state(page.item(offset).unwrap()).unwrap())
        .collect();
    use TupleState::{Dead, Live, Placeholder};
    assert_eq!(
        states,
        [
            Dead,
            Live,
            Placeholder,
            Placeholder,
            Live,
            Placeholder,
            Placeholder
        ]
    );
    assert_eq!(page.item(5).unwrap(), leaf(6, 0));
    assert_eq!(page.item(2).unwrap()[4..6], [0, 0x80]);
    assert_eq!(counters(&page), (0, 4));
}

#[test]
fn redirections_become_placeholders_and_those_at_the_end_go() {
    let page = vacuum_redirect(3).replay().unwrap()[0];
    assert_eq!((page.max_offset(), counters(&page)), (2, (0, 1)));
    let item = page.item(1).unwrap();
    assert_eq!(
        (state(item).unwrap(), &item[6..12]),
        (TupleState::Placeholder, &NO_TID[..])
    );
    assert_eq!(item[12..], XID.to_le_bytes(), "the transaction stays");
    let page = vacuum_redirect(0).replay().unwrap()[0];
    assert_eq!((page.max_offset(), counters(&page)), (5, (0, 4)));
}

#[test]
fn what_is_in_the_way_is_refused() {
    let refused = |sample: Sample| matches!(sample.replay(), Err(RedoError::DoesNotFit { .. }));
    assert!(
        refused(add_leaf(1, 0, page_of(true, &[leaf(1, 0)]))),
        "no placeholder"
    );
    assert!(refused(add_leaf(3, 0, page_of(true, &[leaf(1, 0)]))), "a gap");
    assert!(refused(vacuum_redirect(6)), "beyond the end");
    let mut no_such_node = add_leaf(2, 0, page_of(true, &[leaf(1, 0)]));
    no_such_node.main[8] = 3;
    assert!(refused(no_such_node));
}

#[test]
fn no_damage_makes_redo_panic() {
    let chain = page_of(true, &[leaf(1, 0), leaf(2, 0), placeholder()]);
    assert_never_panics(&[
        add_leaf(3, 0, chain),
        add_leaf(4, 1, chain),
        add_leaf(2, 2, chain),
        move_leafs(false, false),
        move_leafs(false, true),
        add_node(-1, false),
        add_node(0, false),
        add_node(1, true),
        add_node(2, false),
        split_tuple(true),
        split_tuple(false),
        pick_split(false, true),
        pick_split(true, false),
        vacuum_leaf(),
        vacuum_root(),
        vacuum_redirect(3),
    ]);
}
