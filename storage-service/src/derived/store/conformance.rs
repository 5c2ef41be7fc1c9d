//! What every page store must do. An engine's own tests call [`check`] with a way to open it.

use bytes::Bytes;
use pg_quorum_types::Lsn;

use super::{Batch, PageStore, Space, VersionKey};

/// Runs the whole suite. `open` opens the same place again each time.
pub(crate) fn check<S: PageStore>(open: impl Fn() -> S) {
    newest_is_the_highest_version_at_or_below(&open());
    a_view_does_not_see_later_commits(&open());
    deleted_versions_are_gone_and_others_stay(&open());
    scans_keep_key_and_version_order(&open());
    large_and_empty_values_come_back_unchanged(&open());
    flushed_commits_survive_reopening(&open);
}

fn put(store: &impl PageStore, space: Space, key: &[u8], lsn: u64, value: &'static [u8]) {
    let mut batch = Batch::default();
    batch.put(space, key, Lsn(lsn), Bytes::from_static(value));
    store.commit(batch).unwrap();
}

fn newest(store: &impl PageStore, key: &[u8], at: u64) -> Option<(u64, Vec<u8>)> {
    let found = store.view().newest(Space::Meta, key, Lsn(at)).unwrap();
    found.map(|(lsn, value)| (lsn.0, value.to_vec()))
}

fn newest_is_the_highest_version_at_or_below(store: &impl PageStore) {
    put(store, Space::Meta, b"ab", 10, b"ten");
    put(store, Space::Meta, b"ab", 300, b"three hundred");
    put(store, Space::Meta, b"ac", 5, b"another key");
    assert_eq!(newest(store, b"ab", 9), None);
    assert_eq!(newest(store, b"ab", 10), Some((10, b"ten".to_vec())));
    assert_eq!(newest(store, b"ab", 299), Some((10, b"ten".to_vec())));
    assert_eq!(
        newest(store, b"ab", u64::MAX),
        Some((300, b"three hundred".to_vec()))
    );
    assert_eq!(newest(store, b"aa", u64::MAX), None);
    let pages = store.view().newest(Space::Pages, b"ab", Lsn::MAX).unwrap();
    assert_eq!(pages, None, "the spaces are apart");
}

fn a_view_does_not_see_later_commits(store: &impl PageStore) {
    put(store, Space::Meta, b"va", 1, b"old");
    let view = store.view();
    put(store, Space::Meta, b"va", 2, b"new");
    let mut batch = Batch::default();
    batch.delete(
        Space::Meta,
        &VersionKey {
            key: b"va".to_vec(),
            lsn: Lsn(1),
        },
    );
    store.commit(batch).unwrap();
    let seen = view.newest(Space::Meta, b"va", Lsn::MAX).unwrap();
    assert_eq!(seen, Some((Lsn(1), Bytes::from_static(b"old"))));
}

fn deleted_versions_are_gone_and_others_stay(store: &impl PageStore) {
    put(store, Space::Meta, b"da", 1, b"one");
    put(store, Space::Meta, b"da", 2, b"two");
    let mut batch = Batch::default();
    let version = |lsn| VersionKey {
        key: b"da".to_vec(),
        lsn: Lsn(lsn),
    };
    batch.delete(Space::Meta, &version(2));
    batch.delete(Space::Meta, &version(7)); // was never there
    store.commit(batch).unwrap();
    assert_eq!(newest(store, b"da", 100), Some((1, b"one".to_vec())));
}

fn scans_keep_key_and_version_order(store: &impl PageStore) {
    for (key, lsn) in [(b"sb", 2), (b"sa", 9), (b"sb", 1), (b"sc", 1)] {
        put(store, Space::Pages, key, lsn, b"x");
    }
    let view = store.view();
    let names: Vec<_> = view
        .versions(Space::Pages, b"sa", b"sc")
        .map(|version| version.map(|version| (version.key, version.lsn.0)))
        .collect::<Result<_, _>>()
        .unwrap();
    let expected = [(b"sa", 9), (b"sb", 1), (b"sb", 2)].map(|(key, lsn)| (key.to_vec(), lsn));
    assert_eq!(names, expected);
    assert_eq!(view.scan(Space::Pages, b"sa", b"sc").count(), 3);
}

fn large_and_empty_values_come_back_unchanged(store: &impl PageStore) {
    let page: Vec<u8> = (0..8197_u32).map(|at| (at * 7 + at / 251) as u8).collect();
    let mut batch = Batch::default();
    batch.put(Space::Pages, b"la", Lsn(1), page.clone());
    batch.put(Space::Pages, b"lb", Lsn(1), Bytes::new());
    store.commit(batch).unwrap();
    let view = store.view();
    let large = view.newest(Space::Pages, b"la", Lsn(1)).unwrap().unwrap();
    assert_eq!(&large.1[..], &page[..]);
    let empty = view.newest(Space::Pages, b"lb", Lsn(1)).unwrap().unwrap();
    assert!(empty.1.is_empty());
}

fn flushed_commits_survive_reopening<S: PageStore>(open: &impl Fn() -> S) {
    let store = open();
    for number in 0..1000_u32 {
        let mut batch = Batch::default();
        batch.put(
            Space::Pages,
            &number.to_be_bytes(),
            Lsn(1),
            vec![number as u8; 8192],
        );
        store.commit(batch).unwrap();
    }
    put(&store, Space::Meta, b"ra", 1, b"last");
    store.flush(Space::Pages).unwrap();
    store.flush(Space::Meta).unwrap();
    drop(store);
    let view = open().view();
    for number in [0_u32, 1, 500, 999] {
        let found = view.newest(Space::Pages, &number.to_be_bytes(), Lsn(1)).unwrap();
        assert_eq!(&found.unwrap().1[..], &[number as u8; 8192][..]);
    }
    assert!(view.newest(Space::Meta, b"ra", Lsn(1)).unwrap().is_some());
}

#[test]
fn the_store_in_memory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let stores = super::MemoryStores::default();
    check(|| stores.open(directory.path()).unwrap());
}

#[test]
fn the_fjall_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let settings = super::FjallSettings::default();
    check(|| super::FjallStore::open(directory.path(), &settings).unwrap());
}

/// A power failure can leave any bytes at the end of what was being written: the engine's journal is not needed for
/// what was flushed.
#[test]
fn the_fjall_store_opens_with_what_was_flushed_when_its_journal_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let settings = super::FjallSettings::default();
    let store = super::FjallStore::open(directory.path(), &settings).unwrap();
    put(&store, Space::Pages, b"fa", 1, b"flushed");
    put(&store, Space::Meta, b"fa", 1, b"flushed");
    store.flush(Space::Pages).unwrap();
    store.flush(Space::Meta).unwrap();
    for number in 0..100_u32 {
        put(&store, Space::Meta, &number.to_be_bytes(), 1, b"not flushed");
    }
    drop(store);
    let journal = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "jnl"))
        .unwrap();
    let mut bytes = std::fs::read(&journal).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written - 60] ^= 0x55;
    std::fs::write(&journal, bytes).unwrap();
    let store = super::FjallStore::open(directory.path(), &settings).unwrap();
    let page = store.view().newest(Space::Pages, b"fa", Lsn(1)).unwrap();
    assert_eq!(page, Some((Lsn(1), Bytes::from_static(b"flushed"))));
    assert_eq!(newest(&store, b"fa", 1), Some((1, b"flushed".to_vec())));
    put(&store, Space::Meta, b"fa", 2, b"later");
    store.flush(Space::Meta).unwrap();
    drop(store);
    let store = super::FjallStore::open(directory.path(), &settings).unwrap();
    assert_eq!(newest(&store, b"fa", 9), Some((2, b"later".to_vec())));
}
