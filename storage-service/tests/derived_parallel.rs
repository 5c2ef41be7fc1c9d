//! Pages that are built together and by several threads are those that one thread builds one by one.

mod derived_support;

use std::num::NonZeroUsize;

use derived_support::{Node, empty_base, main_fork, quiet_settings};
use pg_quorum_types::{Lsn, PageKey, RelFork, SlruKind};
use pg_quorum_wal::{ControlFile, RawRecord};
use storage_service::derived::{ContentItem, DerivedSettings, ReadPage, RedoThreads};

const FORK: u32 = 16384;
const BLOCKS: u32 = 60;
/// It gets a record that does not fit, and records behind that.
const BROKEN: u32 = 7;
/// Another one, which a record then sets as a whole.
const MENDED: u32 = 23;
/// Transactions: their records all change one page of transaction state.
const TRANSACTIONS: u32 = 700;
const CLOG: PageKey = PageKey::Slru {
    kind: SlruKind::Clog,
    page: 0,
};

fn node(threads: usize) -> Node {
    let settings = DerivedSettings {
        pages_per_batch: 4,
        redo_threads: RedoThreads::new(NonZeroUsize::new(threads).unwrap()),
        ..quiet_settings()
    };
    let mut node = Node::with_base(settings, empty_base());
    let fork = main_fork(FORK);
    for offset in 1..=20_u16 {
        for block in 0..BLOCKS {
            let is_wrong = offset == 12 && (block == BROKEN || block == MENDED);
            let at = if is_wrong { 100 } else { offset };
            let record = node.writer.heap_insert(fork, block, at, &[offset as u8; 40]);
            node.append(record);
        }
        if offset == 17 {
            let record = node.writer.full_page(fork, MENDED, 5);
            node.append(record);
            // An empty page but for its body: what follows begins with its first item.
            let record = node.writer.heap_insert(fork, MENDED, 1, b"anew");
            node.append(record);
            for at in 2..=17 {
                let record = node.writer.heap_insert(fork, MENDED, at, b"again");
                node.append(record);
            }
        }
    }
    for xid in 0..TRANSACTIONS {
        let record = node.writer.commit_dropping(800 + xid, &[]);
        node.append(record);
    }
    node.wait_indexed();
    node
}

fn one_by_one(node: &Node, fork: RelFork, at: Lsn) -> Vec<ReadPage> {
    (0..BLOCKS).map(|block| node.page(fork, block, at)).collect()
}

fn end_of(records: &[RawRecord]) -> Lsn {
    records.last().map(|record| record.end).unwrap()
}

fn next_xid(image: &[ContentItem]) -> u64 {
    let control_file = image.iter().find_map(|item| match item {
        ContentItem::ControlFile(bytes) => ControlFile::parse(bytes).ok(),
        _ => None,
    });
    control_file.unwrap().checkpoint().next_full_xid
}

#[test]
fn several_threads_build_the_same_pages_and_a_bad_one_is_its_own_error() {
    let fork = main_fork(FORK);
    let alone = node(1);
    let end = alone.end();
    let expected = one_by_one(&alone, fork, end);
    let expected_clog = alone.derived.page(CLOG, end).unwrap();
    for (block, page) in (0..).zip(&expected) {
        let is_broken = matches!(page, ReadPage::Failed(_));
        assert_eq!(is_broken, block == BROKEN, "block {block}: {page:?}");
    }
    let blocks: Vec<u32> = (0..BLOCKS).rev().chain([3, 3, 1000]).collect();
    let key = |block: &u32| PageKey::Relation {
        rel: fork,
        block: *block,
    };
    let keys: Vec<PageKey> = blocks.iter().map(key).collect();
    for threads in [1, 2, 5] {
        let node = node(threads);
        let check = |node: &Node| {
            let together = node.derived.pages(&keys, end).unwrap();
            assert_eq!(together.len(), blocks.len());
            for (block, page) in blocks.iter().zip(&together) {
                let expected = expected.get(*block as usize);
                assert_eq!(page, expected.unwrap_or(&ReadPage::Zeros), "block {block}");
            }
            assert_eq!(node.derived.page(CLOG, end).unwrap(), expected_clog);
        };
        check(&node);
        node.coalesce();
        check(&node);
        check(&node.restart());
    }
}

#[test]
fn pages_as_of_an_earlier_position_are_built_together_too() {
    let node = node(3);
    let fork = main_fork(FORK);
    let keys: Vec<PageKey> = (0..BLOCKS)
        .map(|block| PageKey::Relation { rel: fork, block })
        .collect();
    let half = Lsn(derived_support::BASE.0 + node.end().bytes_since(derived_support::BASE) / 2);
    let together = node.derived.pages(&keys, half).unwrap();
    assert_eq!(together, one_by_one(&node, fork, half));
}

/// All of the log is there at once, and so much of it that the next records are read and taken apart meanwhile.
#[test]
fn records_that_are_taken_apart_ahead_are_indexed_like_all_others() {
    let fork = main_fork(FORK);
    let images = [1, 2, 5].map(|threads| {
        let settings = DerivedSettings {
            ingest_batch_bytes: 1 << 10,
            redo_threads: RedoThreads::new(NonZeroUsize::new(threads).unwrap()),
            ..quiet_settings()
        };
        let mut node = Node::with_base(settings, empty_base());
        let mut records = vec![node.writer.create(fork)];
        let (mut sizes, mut next_xids) = (Vec::new(), Vec::new());
        for round in 0..100_u32 {
            for block in 0..BLOCKS {
                // Only a round's first record says that there was its last transaction.
                let xid = 1000 * (round + 1) + BLOCKS - block;
                let record = node
                    .writer
                    .heap_insert_by(xid, fork, block, 1, &[round as u8; 40]);
                records.push(record);
            }
            sizes.push((end_of(&records), BLOCKS));
            next_xids.push((end_of(&records), u64::from(1000 * (round + 1) + BLOCKS + 1)));
            records.push(node.writer.commit_dropping(800 + round, &[]));
            records.push(node.writer.truncate(fork.rel, round % 7));
            sizes.push((end_of(&records), round % 7));
        }
        records.push(node.writer.heap_insert(fork, 3, 1, b"last"));
        let end = end_of(&records);
        for record in records {
            node.log.push(record);
        }
        node.view.send_modify(|view| view.scl = end);
        node.wait_indexed();
        for (at, blocks) in sizes {
            assert_eq!(
                node.size(fork, at),
                Some(blocks),
                "at {at} with {threads} threads"
            );
        }
        for (at, next) in next_xids {
            assert_eq!(
                next_xid(&node.image(at).1),
                next,
                "at {at} with {threads} threads"
            );
        }
        let pages = one_by_one(&node, fork, end);
        assert!(matches!(pages[3], ReadPage::Page(_)));
        (node.image(end), pages)
    });
    assert!(images.iter().all(|image| *image == images[0]));
}
