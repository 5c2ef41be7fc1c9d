//! Reads at an LSN, before and after the log has been turned into pages, and over restarts.

mod derived_support;

use std::time::Duration;

use derived_support::{BASE, Node, main_fork, rel, wait_until};
use pg_quorum_types::{ForkNumber, Lsn, RelFork};
use storage_service::derived::{ContentItem, DerivedError, ReadPage, page_checksum};

/// Asks the same thrice: from memory, from the store, and after a restart.
fn thrice(node: Node, check: impl Fn(&Node)) -> Node {
    node.wait_indexed();
    check(&node);
    let node = node.restart();
    check(&node);
    node.coalesce();
    check(&node);
    let node = node.restart();
    check(&node);
    node
}

#[test]
fn a_page_is_read_as_of_each_lsn() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    let mut ends = Vec::new();
    for fill in 1..=5 {
        let record = node.writer.full_page(fork, 3, fill);
        ends.push(node.append(record));
    }
    node.wait_indexed();
    assert_eq!(node.fill(fork, 3, BASE), None);
    for (end, fill) in ends.iter().zip(1..) {
        assert_eq!(node.fill(fork, 3, *end), Some(fill));
        assert_eq!(node.fill(fork, 3, Lsn(end.0 - 1)), (fill > 1).then(|| fill - 1));
    }
    let end = node.end();
    thrice(node, |node| {
        assert_eq!(node.fill(fork, 3, end), Some(5));
        assert_eq!(node.fill(fork, 2, end), None);
        assert_eq!(node.size(fork, end), Some(4));
    });
}

#[test]
fn records_build_on_images_across_rounds() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    for offset in 1..=40_u16 {
        let record = node.writer.heap_insert(fork, 0, offset, &[offset as u8; 100]);
        node.append(record);
        if offset % 7 == 0 {
            node.coalesce();
        }
    }
    let end = node.end();
    thrice(node, |node| {
        let ReadPage::Page(page) = node.page(fork, 0, end) else {
            panic!("a page is expected");
        };
        let lower = u16::from_le_bytes([page[12], page[13]]);
        assert_eq!((lower - 24) / 4, 40, "line pointers");
        let checksum = u16::from_le_bytes([page[8], page[9]]);
        assert_eq!(checksum, page_checksum(&page, 0));
        let high = u64::from(u32::from_le_bytes([page[0], page[1], page[2], page[3]]));
        let low = u64::from(u32::from_le_bytes([page[4], page[5], page[6], page[7]]));
        assert_eq!(Lsn(high << 32 | low), end);
    });
}

#[test]
fn reads_below_the_floor_are_refused_unless_the_page_did_not_change() {
    let mut node = Node::new();
    let (changed, same) = (main_fork(16384), main_fork(16385));
    let record = node.writer.full_page(same, 0, 1);
    node.append(record);
    let record = node.writer.full_page(changed, 0, 1);
    let before = node.append(record);
    let record = node.writer.full_page(changed, 0, 2);
    node.append(record);
    node.coalesce();
    assert_eq!(node.fill(same, 0, before), Some(1));
    let key = |fork, block| pg_quorum_types::PageKey::Relation { rel: fork, block };
    for (key, at) in [(key(changed, 0), before), (key(same, 7), before)] {
        let error = node.derived.page(key, at).unwrap_err();
        assert!(matches!(error, DerivedError::TooOld { .. }), "{error}");
    }
    assert!(matches!(
        node.derived.relation_size(changed, before),
        Err(DerivedError::TooOld { .. })
    ));
}

#[test]
fn reads_above_what_is_indexed_are_refused() {
    let node = Node::new();
    let key = pg_quorum_types::PageKey::Relation {
        rel: main_fork(1),
        block: 0,
    };
    let error = node.derived.page(key, BASE + 8).unwrap_err();
    assert!(matches!(error, DerivedError::NotIndexed { .. }), "{error}");
}

#[test]
fn nothing_is_persisted_above_the_vdl_or_the_oldest_read_point() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    let record = node.writer.full_page(fork, 0, 1);
    let first = node.append(record);
    let record = node.writer.full_page(fork, 0, 2);
    let second = node.append(record);
    node.wait_indexed();
    node.view.send_modify(|view| {
        view.vdl = first;
    });
    for _ in 0..3 {
        node.derived.request_coalescing();
        std::thread::sleep(std::time::Duration::from_millis(120));
    }
    assert!(node.derived.applied_lsn() <= first);
    assert_eq!(node.fill(fork, 0, first), Some(1));
    node.view.send_modify(|view| {
        view.vdl = second;
        view.pgmrpl = first;
    });
    node.derived.request_coalescing();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(node.derived.applied_lsn() <= first);
    assert_eq!(node.fill(fork, 0, first), Some(1));
    node.view.send_modify(|view| view.pgmrpl = second);
    wait_until("the read point lets it go on", || {
        node.derived.request_coalescing();
        node.derived.applied_lsn() == second
    });
}

#[test]
fn a_cut_takes_back_what_was_not_durable() {
    let mut node = Node::new();
    let (kept, new) = (main_fork(16384), main_fork(16385));
    let record = node.writer.full_page(kept, 0, 1);
    let durable = node.append(record);
    node.coalesce();
    for block in 0..10 {
        let record = node.writer.full_page(kept, block, 9);
        node.append(record);
    }
    let record = node.writer.create(new);
    node.append(record);
    let record = node.writer.commit_dropping(746, &[rel(16384)]);
    node.append(record);
    node.wait_indexed();
    assert_eq!(node.size(kept, node.end()), None);
    assert_eq!(node.size(new, node.end()), Some(0));

    node.cut(durable);
    node.wait_indexed();
    assert_eq!(node.derived.indexed_lsn(), durable);
    assert_eq!(node.fill(kept, 0, durable), Some(1));
    assert_eq!(node.size(kept, durable), Some(1));

    // Another history at the same positions.
    let record = node.writer.full_page(kept, 1, 7);
    let end = node.append(record);
    thrice(node, |node| {
        assert_eq!(node.fill(kept, 0, end), Some(1));
        assert_eq!(node.fill(kept, 1, end), Some(7));
        assert_eq!(node.size(kept, end), Some(2));
        assert_eq!(node.size(new, end), None);
    });
}

#[test]
fn a_cut_in_the_middle_of_a_batch_reads_the_rest_again() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    let mut ends = Vec::new();
    for fill in 1..=20 {
        let record = node.writer.full_page(fork, 0, fill);
        let end = record.end;
        node.log.push(record);
        ends.push(end);
    }
    // All twenty become visible at once: one batch, one mark.
    node.view.send_modify(|view| view.scl = ends[19]);
    node.wait_indexed();
    node.cut(ends[12]);
    node.wait_indexed();
    assert_eq!(node.fill(fork, 0, ends[12]), Some(13));
    assert_eq!(node.derived.indexed_lsn(), ends[12]);
}

#[test]
fn a_record_that_does_not_fit_its_page_fails_that_only_until_it_is_set_anew() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    let record = node.writer.full_page(fork, 0, 1);
    node.append(record);
    let record = node.writer.full_page(fork, 1, 2);
    node.append(record);
    // No such line pointer can follow those that the page has.
    let record = node.writer.heap_insert(fork, 0, 200, &[7; 8]);
    let (start, end) = (record.start, record.end);
    node.append(record);
    let mut node = thrice(node, |node| {
        let ReadPage::Failed(why) = node.page(fork, 0, end) else {
            panic!("the page cannot be built");
        };
        assert!(
            why.contains(&start.to_string()) && why.contains("INSERT"),
            "{why}"
        );
        assert_eq!(node.fill(fork, 1, end), Some(2));
    });
    let record = node.writer.full_page(fork, 0, 5);
    let end = node.append(record);
    thrice(node, |node| assert_eq!(node.fill(fork, 0, end), Some(5)));
}

#[test]
fn a_full_index_makes_indexing_wait_and_loses_nothing() {
    let mut settings = derived_support::quiet_settings();
    settings.index_bytes = 20_000;
    settings.ingest_batch_bytes = 4096;
    let mut node = Node::with_base(settings, derived_support::empty_base());
    let fork = main_fork(16384);
    for block in 0..2000 {
        let record = node.writer.heap_insert(fork, block, 1, &[block as u8; 8]);
        node.append(record);
        node.make_durable();
    }
    node.wait_indexed();
    let stats = node.derived.stats();
    assert!(stats.memory_bytes < 200_000, "{stats:?}");
    assert!(stats.rounds > 0 && stats.index_full_waits > 0, "{stats:?}");
    let end = node.end();
    assert_eq!(node.size(fork, end), Some(2000));
    for block in [0, 999, 1999] {
        assert!(matches!(node.page(fork, block, end), ReadPage::Page(_)));
    }
}

#[test]
fn memory_that_is_short_is_for_log_that_a_reader_waits_for() {
    let mut settings = derived_support::quiet_settings();
    settings.index_bytes = 20_000;
    let mut node = Node::with_base(settings, derived_support::empty_base());
    let fork = main_fork(16384);
    let mut block = 0;
    let mut append = |node: &mut Node| {
        let record = node.writer.heap_insert(fork, block, 1, &[7; 8]);
        block += 1;
        node.append(record)
    };
    // Nothing is durable, so that no round gives memory back.
    while node.derived.stats().index_full_waits == 0 {
        let end = append(&mut node);
        wait_until("a record is indexed, or memory is short", || {
            node.derived.indexed_lsn() >= end || node.derived.stats().index_full_waits > 0
        });
    }
    let end = append(&mut node);
    let with_room = node.derived.indexed_with_room();
    let had_room = *with_room.borrow();
    assert!(had_room <= node.derived.indexed_lsn() && node.derived.indexed_lsn() < end);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let indexed = runtime.block_on(node.derived.wait_indexed(end, Duration::from_secs(10)));
    assert_eq!(indexed, end, "a reader waits");
    assert_eq!(*with_room.borrow(), had_room, "memory is as short as before");
    node.make_durable();
    wait_until("a round has given memory back", || *with_room.borrow() == end);
}

#[test]
fn imported_pages_are_served_at_the_base() {
    let fork = main_fork(16384);
    let init = RelFork {
        fork: ForkNumber::Init,
        ..main_fork(16400)
    };
    let mut items = derived_support::empty_base();
    let mut pages = vec![0_u8; 3 * 8192];
    pages[8192 + 14] = 0xFF;
    items.push(ContentItem::RelationPages {
        fork,
        first_block: 4,
        pages: pages.clone().into(),
    });
    items.push(ContentItem::RelationSize { fork, blocks: 7 });
    items.push(ContentItem::RelationSize {
        fork: init,
        blocks: 0,
    });
    let node = Node::with_base(derived_support::quiet_settings(), items);
    let node = thrice(node, |node| {
        assert_eq!(node.size(fork, BASE), Some(7));
        assert_eq!(node.page(fork, 4, BASE), ReadPage::Zeros);
        assert!(matches!(node.page(fork, 5, BASE), ReadPage::Page(_)));
        assert_eq!(node.size(init, BASE), Some(0));
    });
    assert_eq!(node.derived.base().unwrap().base.lsn, BASE);
}
