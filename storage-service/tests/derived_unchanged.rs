//! Which pages the log has not changed behind an LSN: what a compute that has kept pages of before asks.

mod derived_support;

use derived_support::{BASE, Node, main_fork, rel};
use pg_quorum_types::{Lsn, RelFork};
use storage_service::derived::{ContentItem, DerivedError};

/// The unchanged ones of the first blocks.
fn unchanged(node: &Node, fork: RelFork, since: Lsn) -> Vec<u32> {
    let bits = node.derived.unchanged(fork, 0, since, node.end()).unwrap();
    (0..128).filter(|block| bits >> block & 1 == 1).collect()
}

/// Asks the same from memory, from the store, and after a restart.
fn thrice(node: Node, check: impl Fn(&Node)) {
    node.wait_indexed();
    check(&node);
    node.coalesce();
    check(&node);
    check(&node.restart());
}

fn write(node: &mut Node, fork: RelFork, blocks: &[u32]) -> Lsn {
    for block in blocks {
        let record = node.writer.full_page(fork, *block, 1);
        node.append(record);
    }
    node.end()
}

#[test]
fn a_page_is_unchanged_up_to_the_end_of_its_last_record() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    let first = write(&mut node, fork, &[0, 1, 5, 127, 128]);
    let second = write(&mut node, fork, &[1]);
    thrice(node, |node| {
        assert_eq!(unchanged(node, fork, second), [0, 1, 5, 127]);
        assert_eq!(unchanged(node, fork, Lsn(second.0 - 1)), [0, 5, 127]);
        assert_eq!(unchanged(node, fork, first), [0, 5, 127]);
        let next_chunk = node.derived.unchanged(fork, 128, first, second).unwrap();
        assert_eq!(next_chunk, 1);
        assert!(unchanged(node, fork, BASE).is_empty());
        assert!(
            unchanged(node, main_fork(16385), second).is_empty(),
            "nothing is known of it"
        );
    });
}

#[test]
fn imported_pages_are_unchanged_since_the_import() {
    let fork = main_fork(16384);
    let pages = ContentItem::RelationPages {
        fork,
        first_block: 0,
        pages: vec![9; 3 * 8192].into(),
    };
    let size = ContentItem::RelationSize { fork, blocks: 3 };
    let items = derived_support::empty_base().into_iter().chain([size, pages]);
    let mut node = Node::with_base(derived_support::quiet_settings(), items.collect());
    write(&mut node, fork, &[2]);
    thrice(node, |node| assert_eq!(unchanged(node, fork, BASE), [0, 1]));
}

#[test]
fn what_was_truncated_or_dropped_or_made_anew_is_changed() {
    let mut node = Node::new();
    let (truncated, dropped, made) = (main_fork(16384), main_fork(16385), main_fork(16386));
    for fork in [truncated, dropped, made] {
        write(&mut node, fork, &[0, 1, 2, 3]);
    }
    let before = node.end();
    let record = node.writer.truncate(rel(16384), 2);
    node.append(record);
    let record = node.writer.create(made);
    node.append(record);
    let record = node.writer.commit_dropping(700, &[rel(16385)]);
    node.append(record);
    let after = write(&mut node, truncated, &[3]);
    thrice(node, |node| {
        assert_eq!(unchanged(node, truncated, before), [0, 1]);
        assert_eq!(
            unchanged(node, truncated, after),
            [0, 1, 3],
            "of 2 nothing is known"
        );
        assert!(unchanged(node, dropped, after).is_empty());
        assert!(unchanged(node, made, after).is_empty());
    });
}

#[test]
fn a_cut_takes_changes_back_and_what_is_not_indexed_is_refused() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    let first = write(&mut node, fork, &[0, 1]);
    let second = write(&mut node, fork, &[1]);
    node.wait_indexed();
    assert_eq!(unchanged(&node, fork, first), [0]);
    node.cut(first);
    let error = node.derived.unchanged(fork, 0, first, second).unwrap_err();
    assert!(matches!(error, DerivedError::NotIndexed { .. }), "{error}");
    node.wait_indexed();
    assert_eq!(unchanged(&node, fork, first), [0, 1]);
}
