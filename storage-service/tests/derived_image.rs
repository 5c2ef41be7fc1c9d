//! What an attaching compute gets, WAL as bytes, and imports that fail.

mod derived_support;

use derived_support::{
    BASE, FACTS, Node, control_file, empty_base, empty_base_of_checkpoint, main_fork, quiet_settings,
};
use pg_quorum_types::{Base, ForkNumber, Lsn, RelFork, SlruKind};
use pg_quorum_wal::{ControlFile, WalSplitter};
use storage_service::derived::{ContentItem, DerivedError};
use uuid::Uuid;

#[test]
fn an_image_says_what_a_shutdown_checkpoint_would() {
    let mut node = Node::new();
    let record = node.writer.heap_insert(main_fork(16384), 0, 1, b"x");
    node.append(record);
    let record = node.writer.full_page(main_fork(16384), 1, 1);
    let end = node.append(record);
    let last = node.writer.last_start();
    node.wait_indexed();
    for coalesced in [false, true] {
        if coalesced {
            node.coalesce();
        }
        let (last_record, items) = node.image(end);
        assert_eq!(last_record, last);
        let control = items.iter().find_map(|item| match item {
            ContentItem::ControlFile(bytes) => Some(ControlFile::parse(bytes).unwrap()),
            _ => None,
        });
        let control = control.unwrap();
        assert_eq!(control.facts(), FACTS);
        assert_eq!(control.checkpoint().next_full_xid, 746, "behind the insert's 745");
        let clog: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                ContentItem::SlruPages {
                    kind: SlruKind::Clog,
                    first_page,
                    pages,
                } => Some((*first_page, pages.len())),
                _ => None,
            })
            .collect();
        assert_eq!(clog, [(0, 8192)]);
    }
}

#[test]
fn an_image_in_the_middle_of_a_batch_is_exact() {
    let mut node = Node::new();
    let fork = main_fork(16384);
    let mut made = Vec::new();
    for block in 0..10 {
        let record = node.writer.full_page(fork, block, 1);
        made.push((record.start, record.end));
        node.log.push(record);
    }
    node.view.send_modify(|view| view.scl = made[9].1);
    node.wait_indexed();
    let (last_record, items) = node.image(made[4].1);
    assert_eq!(last_record, made[4].0);
    assert!(items.contains(&ContentItem::RelationSize { fork, blocks: 5 }));
}

#[test]
fn init_forks_come_with_their_pages() {
    let init = RelFork {
        fork: ForkNumber::Init,
        ..main_fork(16390)
    };
    let mut node = Node::new();
    let record = node.writer.create(init);
    node.append(record);
    let record = node.writer.full_page(init, 0, 42);
    let end = node.append(record);
    node.wait_indexed();
    let (_, items) = node.image(end);
    let pages = items.iter().find_map(|item| match item {
        ContentItem::RelationPages {
            fork,
            first_block: 0,
            pages,
        } if *fork == init => Some(pages.clone()),
        _ => None,
    });
    assert_eq!(pages.unwrap()[8191], 42);
}

/// The oldest multixacts were given out right before a crash and never logged: their offsets are 0. Rows are locked by
/// the ones behind, and a server that misses the pages of their members fails at each such row.
#[test]
fn the_members_of_multixacts_are_there_although_the_oldest_was_lost_in_a_crash() {
    let mut offsets = vec![0; 8192];
    for (multi, first_member) in [(7, 1700_u32), (8, 4000)] {
        offsets[multi * 4..multi * 4 + 4].copy_from_slice(&first_member.to_le_bytes());
    }
    let slru = |kind, pages: Vec<u8>| ContentItem::SlruPages {
        kind,
        first_page: 0,
        pages: pages.into(),
    };
    let members: Vec<u8> = (10..14).flat_map(|page| [page; 8192]).collect();
    // nextMulti, nextMultiOffset, oldestMulti
    let mut base = empty_base_of_checkpoint(&[(36, 9), (40, 5000), (52, 5)]);
    base.push(slru(SlruKind::MultiXactOffset, offsets));
    base.push(slru(SlruKind::MultiXactMember, members));
    let node = Node::with_base(quiet_settings(), base);
    let (_, items) = node.image(BASE);
    let mut members = items.iter().filter_map(|item| match item {
        ContentItem::SlruPages {
            kind: SlruKind::MultiXactMember,
            first_page,
            pages,
        } => Some((*first_page, pages)),
        _ => None,
    });
    let (first_page, pages) = members.next().expect("there are members");
    let fillings: Vec<u8> = pages.chunks(8192).map(|page| page[0]).collect();
    assert_eq!(
        (first_page, fillings),
        (1, vec![11, 12, 13]),
        "1636 members are on a page"
    );
    assert_eq!(members.next(), None);
}

#[test]
fn wal_comes_back_as_it_was_from_the_start_of_the_bases_segment() {
    let segment_start = Lsn(BASE.0 & !0xF_FFFF);
    let prefix: Vec<u8> = (0..BASE.0 - segment_start.0).map(|at| at as u8).collect();
    let mut items = empty_base();
    items.push(ContentItem::WalPrefix {
        lsn: segment_start,
        wal: prefix.clone().into(),
    });
    let mut node = Node::with_base(quiet_settings(), items);
    // Three segments of 1 MiB.
    let mut records = Vec::new();
    for number in 0..400_u32 {
        let record = node.writer.full_page(main_fork(16384), number, number as u8);
        records.push(record.clone());
        node.append(record);
        if number == 250 {
            node.coalesce();
        }
    }
    let node = node.restart();
    let end = node.end();
    let read = |start: Lsn, end: Lsn| {
        let mut wal = Vec::new();
        let mut next = start;
        node.derived
            .read_wal(start, end, &mut |lsn, piece| {
                assert_eq!(lsn, next);
                assert!(!piece.is_empty());
                next = lsn + piece.len() as u64;
                wal.extend(piece);
                true
            })
            .unwrap();
        assert_eq!(wal.len() as u64, end.bytes_since(start));
        wal
    };
    let all = read(segment_start, end);
    assert_eq!(all[..prefix.len()], prefix[..]);
    let mut splitter = WalSplitter::new(FACTS, BASE);
    splitter.feed(all[prefix.len()..].to_vec().into());
    for record in &records {
        assert_eq!(splitter.next_record().unwrap().as_ref(), Some(record));
    }
    let third = Lsn(segment_start.0 + (2 << 20));
    for (start, end) in [
        (third, end),
        (Lsn(third.0 + 12345), Lsn(third.0 + 20000)),
        (Lsn(BASE.0 - 10), Lsn(BASE.0 + 10)),
        (end, end),
    ] {
        let from = start.bytes_since(segment_start) as usize;
        let to = end.bytes_since(segment_start) as usize;
        assert!(read(start, end) == all[from..to], "{start} to {end}");
    }
    assert!(node.derived.log_floor() > segment_start);
    assert!(node.derived.log_floor() <= node.derived.applied_lsn());
}

#[test]
fn an_interrupted_import_is_replaced_whole() {
    let mut node = Node::new();
    let record = node.writer.full_page(main_fork(16384), 0, 1);
    let end = node.append(record);
    node.coalesce();
    let base = Base {
        id: Uuid::from_u128(2),
        lsn: BASE,
    };
    node.derived.begin_import(base, FACTS).unwrap();
    let size = |number| ContentItem::RelationSize {
        fork: main_fork(number),
        blocks: 1,
    };
    node.derived.import_items(base, vec![size(1)]).unwrap();
    // It is not finished: what there was stays.
    let node = node.restart();
    assert_eq!(node.fill(main_fork(16384), 0, end), Some(1));
    assert!(
        node.derived.import_items(base, vec![size(1)]).is_err(),
        "the import was interrupted"
    );
    node.derived.begin_import(base, FACTS).unwrap();
    node.derived
        .import_items(
            base,
            vec![size(2), ContentItem::ControlFile(control_file(&FACTS))],
        )
        .unwrap();
    node.derived.finish_import(base).unwrap();
    assert_eq!(node.derived.base().unwrap().base, base);
    assert_eq!(node.size(main_fork(1), BASE), None);
    assert_eq!(node.size(main_fork(2), BASE), Some(1));
    let stores = std::fs::read_dir(node.directory.path()).unwrap().count();
    assert!(
        stores <= 3,
        "old stores are removed by the next import at the latest"
    );
}

#[test]
fn an_import_that_does_not_fit_is_refused() {
    let node = Node::new();
    let base = Base {
        id: Uuid::from_u128(2),
        lsn: BASE,
    };
    let refused = |items: Vec<ContentItem>| {
        node.derived.begin_import(base, FACTS).unwrap();
        let added = node.derived.import_items(base, items);
        added.and_then(|()| node.derived.finish_import(base)).unwrap_err()
    };
    let other = pg_quorum_types::ClusterFacts {
        system_identifier: 1,
        ..FACTS
    };
    for items in [
        vec![],
        vec![ContentItem::ControlFile(control_file(&other))],
        vec![ContentItem::ControlFile(b"no control file".as_slice().into())],
        vec![ContentItem::RelationPages {
            fork: main_fork(1),
            first_block: 0,
            pages: vec![1; 8193].into(),
        }],
    ] {
        let error = refused(items);
        assert!(matches!(error, DerivedError::Import(_)), "{error}");
    }
    assert!(node.derived.base().is_some(), "the base of before stays");
}
