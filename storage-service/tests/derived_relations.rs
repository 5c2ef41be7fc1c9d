//! Relations and databases that come, shrink, go, and come again under the same number.

mod derived_support;

use derived_support::{DATABASE, Node, free_space_map, main_fork, rel};
use pg_quorum_types::{DatabaseKey, ForkNumber, RelFileNode, RelFork};
use storage_service::derived::{ContentItem, ReadPage};

fn thrice(node: Node, check: impl Fn(&Node)) -> Node {
    node.wait_indexed();
    check(&node);
    node.coalesce();
    check(&node);
    let node = node.restart();
    check(&node);
    node
}

#[test]
fn pages_behind_a_truncation_start_from_zeros() {
    for coalesced_before in [false, true] {
        let mut node = Node::new();
        let fork = main_fork(16384);
        for block in 0..10 {
            let record = node.writer.full_page(fork, block, 1 + block as u8);
            node.append(record);
        }
        if coalesced_before {
            node.coalesce();
        }
        let before = node.end();
        let record = node.writer.truncate(rel(16384), 4);
        let truncated = node.append(record);
        let record = node.writer.full_page(fork, 6, 77);
        let end = node.append(record);
        node.wait_indexed();
        assert_eq!(node.fill(fork, 9, before), Some(10));
        assert_eq!(node.size(fork, before), Some(10));
        assert_eq!(node.size(fork, truncated), Some(4));
        thrice(node, |node| {
            assert_eq!(node.size(fork, end), Some(7));
            assert_eq!(node.fill(fork, 3, end), Some(4));
            assert_eq!(node.fill(fork, 4, end), None);
            assert_eq!(node.fill(fork, 5, end), None);
            assert_eq!(node.fill(fork, 6, end), Some(77));
            assert_eq!(node.fill(fork, 9, end), None);
        });
    }
}

#[test]
fn a_number_that_is_used_again_shows_nothing_of_before() {
    for coalesced_between in [false, true] {
        let mut node = Node::new();
        let fork = main_fork(16384);
        let map = RelFork {
            fork: ForkNumber::VisibilityMap,
            ..fork
        };
        for block in 0..3 {
            let record = node.writer.full_page(fork, block, 1);
            node.append(record);
        }
        let record = node.writer.full_page(map, 0, 2);
        let before = node.append(record);
        if coalesced_between {
            node.coalesce();
        }
        let record = node.writer.commit_dropping(746, &[rel(16384)]);
        let dropped = node.append(record);
        node.wait_indexed();
        assert_eq!(node.fill(fork, 0, before), Some(1));
        assert_eq!(node.size(fork, dropped), None);
        if coalesced_between {
            node.coalesce();
            assert_eq!(node.size(fork, dropped), None);
        }
        let record = node.writer.create(fork);
        node.append(record);
        let record = node.writer.full_page(fork, 1, 9);
        let end = node.append(record);
        thrice(node, |node| {
            assert_eq!(node.size(fork, end), Some(2));
            assert_eq!(node.size(map, end), None);
            assert_eq!(node.fill(fork, 0, end), None);
            assert_eq!(node.fill(fork, 1, end), Some(9));
            assert_eq!(node.fill(fork, 2, end), None);
        });
    }
}

#[test]
fn a_relation_whose_creation_was_never_undone_is_made_anew() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    let record = node.writer.full_page(fork, 5, 1);
    node.append(record);
    node.coalesce();
    let record = node.writer.create(fork);
    let end = node.append(record);
    thrice(node, |node| {
        assert_eq!(node.size(fork, end), Some(0));
        assert_eq!(node.fill(fork, 5, end), None);
    });
}

#[test]
fn dropping_thousands_of_relations_leaves_nothing_behind() {
    let mut node = Node::new();
    let numbers: Vec<u32> = (20_000..25_000).collect();
    for number in &numbers {
        let record = node.writer.create(main_fork(*number));
        node.append(record);
        let record = node.writer.full_page(main_fork(*number), 0, 1);
        node.append(record);
    }
    node.coalesce();
    let rels: Vec<RelFileNode> = numbers.iter().map(|number| rel(*number)).collect();
    let record = node.writer.commit_dropping(746, &rels);
    let end = node.append(record);
    node.coalesce();
    let node = node.restart();
    let (_, items) = node.image(end);
    let sizes = items
        .iter()
        .filter(|item| matches!(item, ContentItem::RelationSize { .. }));
    assert_eq!(sizes.count(), 0);
    assert_eq!(node.fill(main_fork(22_000), 0, end), None);
}

#[test]
fn a_free_space_map_is_as_its_images_say_and_is_cut_with_its_heap() {
    /// Heap blocks of a page of the map; the first three of these pages are its blocks 2, 3 and 4.
    const SLOTS: u32 = 4069;
    let mut node = Node::new();
    let (heap, map) = (main_fork(16384), free_space_map(16384));
    let record = node.writer.create(heap);
    node.append(record);
    let record = node.writer.full_page(heap, 2 * SLOTS + 5, 1);
    node.append(record);
    for (block, fill) in [(0, 10), (3, 13), (4, 14)] {
        let record = node.writer.full_page(map, block, fill);
        node.append(record);
    }
    let before = node.end();
    let record = node.writer.truncate(rel(16384), SLOTS + 1);
    let end = node.append(record);
    node.wait_indexed();
    assert_eq!(
        (node.size(map, before), node.fill(map, 4, before)),
        (Some(5), Some(14))
    );
    thrice(node, |node| {
        assert_eq!(node.size(map, end), Some(4));
        assert_eq!(node.fill(map, 0, end), Some(10));
        assert_eq!(node.fill(map, 1, end), None, "never logged");
        assert_eq!(node.fill(map, 3, end), Some(13));
        assert_eq!(node.fill(map, 4, end), None);
        let ReadPage::Page(page) = node.page(map, 3, end) else {
            panic!("no page")
        };
        assert_ne!(page[8..10], [0, 0], "it bears a checksum as every page");
    });
}

/// Whoever logs a map's page holds no lock on its relation: a drop may come first in the log.
#[test]
fn a_map_that_is_logged_behind_the_drop_of_its_relation_brings_nothing_back() {
    for coalesced_between in [false, true] {
        let mut node = Node::new();
        let (heap, map) = (main_fork(16384), free_space_map(16384));
        for fork in [heap, map] {
            let record = node.writer.full_page(fork, 0, 1);
            node.append(record);
        }
        let record = node.writer.commit_dropping(746, &[rel(16384)]);
        node.append(record);
        if coalesced_between {
            node.coalesce();
        }
        let record = node.writer.full_page(map, 0, 2);
        node.append(record);
        let record = node.writer.full_page(free_space_map(16385), 0, 2);
        let late = node.append(record);
        node.wait_indexed();
        assert_eq!(node.size(map, late), None);
        assert_eq!(node.fill(map, 0, late), None);
        assert_eq!(
            node.size(free_space_map(16385), late),
            None,
            "there never was one"
        );
        // The number's next relation has a map of its own.
        let record = node.writer.create(heap);
        let created = node.append(record);
        let record = node.writer.full_page(map, 2, 3);
        let end = node.append(record);
        let other = DatabaseKey { spc: 1663, db: 70 };
        let record = node.writer.drop_database(other);
        node.append(record);
        let record = node.writer.full_page(in_database(other, map), 0, 4);
        let last = node.append(record);
        node.wait_indexed();
        assert_eq!(node.size(map, created), None);
        assert!(created < end);
        thrice(node, |node| {
            assert_eq!(node.size(map, last), Some(3));
            assert_eq!(node.fill(map, 0, last), None);
            assert_eq!(node.fill(map, 2, last), Some(3));
            let (_, items) = node.image(last);
            let sizes = items
                .iter()
                .filter(|item| matches!(item, ContentItem::RelationSize { .. }));
            assert_eq!(sizes.count(), 2);
        });
    }
}

fn in_database(database: DatabaseKey, fork: RelFork) -> RelFork {
    RelFork {
        rel: RelFileNode {
            spc: database.spc,
            db: database.db,
            rel: fork.rel.rel,
        },
        ..fork
    }
}

#[test]
fn a_database_copied_as_files_is_the_source_as_of_the_record() {
    let copy = DatabaseKey { spc: 16999, db: 5 };
    let mut items = derived_support::empty_base();
    items.push(ContentItem::Database {
        database: DATABASE,
        version_file: b"15\n".as_slice().into(),
        relation_map: b"the map".as_slice().into(),
    });
    let mut node = Node::with_base(derived_support::quiet_settings(), items);
    let (fork, gone) = (main_fork(16384), main_fork(16385));
    for block in 0..5 {
        let record = node.writer.full_page(fork, block, 10 + block as u8);
        node.append(record);
    }
    let record = node.writer.full_page(gone, 0, 1);
    node.append(record);
    let record = node.writer.full_page(free_space_map(16384), 2, 30);
    node.append(record);
    // The destination has been in use before, under the same relation number.
    let record = node.writer.full_page(in_database(copy, main_fork(16777)), 0, 5);
    node.append(record);
    node.coalesce();
    let record = node.writer.full_page(fork, 2, 99);
    node.append(record);
    let record = node.writer.commit_dropping(746, &[rel(16385)]);
    node.append(record);
    let record = node.writer.copy_database(DATABASE, copy);
    let copied = node.append(record);
    let record = node.writer.drop_database(DATABASE);
    node.append(record);
    let record = node.writer.full_page(in_database(copy, fork), 4, 200);
    let end = node.append(record);
    node.make_durable();
    node.wait_indexed();
    assert!(copied < end);
    thrice(node, |node| {
        let moved = in_database(copy, fork);
        assert_eq!(node.size(moved, end), Some(5));
        assert_eq!(node.fill(moved, 0, end), Some(10));
        assert_eq!(node.fill(moved, 2, end), Some(99));
        assert_eq!(node.fill(moved, 4, end), Some(200));
        assert_eq!(node.size(in_database(copy, gone), end), None);
        let map = in_database(copy, free_space_map(16384));
        assert_eq!((node.size(map, end), node.fill(map, 2, end)), (Some(3), Some(30)));
        assert_eq!(node.size(in_database(copy, main_fork(16777)), end), None);
        assert_eq!(node.size(fork, end), None);
        assert_eq!(node.fill(fork, 0, end), None);
        let (_, items) = node.image(end);
        assert!(items.contains(&ContentItem::Database {
            database: copy,
            version_file: b"15\n".as_slice().into(),
            relation_map: b"the map".as_slice().into(),
        }));
        let dropped = |item: &ContentItem| matches!(item, ContentItem::Database { database, .. } if *database == DATABASE);
        assert!(!items.iter().any(dropped));
    });
}

#[test]
fn a_copy_waits_until_no_cut_can_undo_it() {
    let copy = DatabaseKey { spc: 16999, db: 5 };
    let mut node = Node::new();
    let fork = main_fork(16384);
    let record = node.writer.full_page(fork, 0, 1);
    let before = node.append(record);
    node.coalesce();
    let record = node.writer.copy_database(DATABASE, copy);
    node.append(record);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(node.derived.indexed_lsn(), before);
    node.cut(before);
    let record = node.writer.full_page(fork, 0, 2);
    let end = node.append(record);
    thrice(node, |node| {
        assert_eq!(node.fill(fork, 0, end), Some(2));
        assert_eq!(node.size(in_database(copy, fork), end), None);
    });
}

#[test]
fn databases_and_tablespaces_come_and_go() {
    let (new, gone) = (
        DatabaseKey { spc: 1663, db: 70 },
        DatabaseKey { spc: 1663, db: 71 },
    );
    let mut node = Node::new();
    for database in [new, gone] {
        let record = node.writer.create_database(database);
        node.append(record);
        let record = node
            .writer
            .full_page(in_database(database, main_fork(16384)), 0, 3);
        node.append(record);
    }
    // PostgreSQL takes a path as it comes, here in LATIN1.
    let location = b"/srv/sch\xF6n";
    let record = node.writer.create_tablespace(16500, location);
    node.append(record);
    let record = node.writer.drop_database(gone);
    let end = node.append(record);
    thrice(node, |node| {
        let (_, items) = node.image(end);
        let databases: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                ContentItem::Database {
                    database,
                    version_file,
                    ..
                } => Some((*database, version_file.to_vec())),
                _ => None,
            })
            .collect();
        assert_eq!(databases, [(new, b"15\n".to_vec())]);
        assert!(items.contains(&ContentItem::Tablespace {
            spc: 16500,
            location: location.as_slice().into(),
        }));
        let sizes: Vec<_> = items
            .iter()
            .filter(|item| matches!(item, ContentItem::RelationSize { .. }))
            .collect();
        assert_eq!(
            sizes,
            [&ContentItem::RelationSize {
                fork: in_database(new, main_fork(16384)),
                blocks: 1,
            }]
        );
    });
}

/// One commit record may name all relations of a large schema.
#[test]
fn a_commit_that_drops_eighty_thousand_relations_leaves_nothing_and_takes_others_along() {
    const RELATIONS: u32 = 80_000;
    let mut node = Node::new();
    let numbers = 16384..16384 + RELATIONS;
    for number in numbers.clone() {
        let record = node.writer.create(main_fork(number));
        node.append(record);
        if number % 10 == 0 {
            let record = node.writer.full_page(main_fork(number), 0, 1);
            node.append(record);
        }
    }
    node.coalesce();
    let kept = main_fork(numbers.end);
    let record = node.writer.full_page(kept, 0, 7);
    let before = node.append(record);
    let all: Vec<RelFileNode> = numbers.clone().map(rel).collect();
    let record = node.writer.commit_dropping(750, &all);
    let end = node.append(record);
    node.wait_indexed();
    assert_eq!(node.size(main_fork(16390), before), Some(1));
    thrice(node, |node| {
        for number in numbers.clone().step_by(997) {
            assert_eq!(node.size(main_fork(number), end), None, "{number}");
            assert_eq!(node.fill(main_fork(number), 0, end), None, "{number}");
        }
        assert_eq!(node.fill(kept, 0, end), Some(7));
    });
}
