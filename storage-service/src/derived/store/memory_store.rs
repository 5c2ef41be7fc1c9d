//! A store in memory: for tests, and for benchmarks that measure what stands on a store without an engine's work.
//!
//! Nothing of it survives the process.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use pg_quorum_types::Lsn;
use smallvec::SmallVec;

use super::{Batch, PageStore, Space, StoreError, StoreView, Version, VersionKey};

/// Stores by directory: what is opened again is the same store.
#[derive(Clone, Default, Debug)]
pub struct MemoryStores(Arc<Mutex<HashMap<PathBuf, MemoryStore>>>);

impl MemoryStores {
    /// The store of `directory`, which is made and stays empty.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(&self, directory: &Path) -> Result<MemoryStore, StoreError> {
        fs::create_dir_all(directory).map_err(|error| StoreError(error.to_string()))?;
        let mut stores = self.0.lock();
        Ok(stores.entry(directory.to_owned()).or_default().clone())
    }
}

/// See the module. Clones are the same store.
#[derive(Clone, Default, Debug)]
pub struct MemoryStore(Arc<RwLock<Contents>>);

#[derive(Default, Debug)]
struct Contents {
    /// Rises with every commit.
    commits: u64,
    pages: BTreeMap<Vec<u8>, Values>,
    meta: BTreeMap<Vec<u8>, Values>,
    /// How many views there are of the moment behind each commit.
    views: BTreeMap<u64, usize>,
    /// Keys with values that only views see.
    replaced: Vec<(Space, Vec<u8>)>,
    bytes: u64,
}

/// What was put at a key, oldest first. All but the last one are there for views only.
type Values = SmallVec<[Value; 1]>;

#[derive(Debug)]
struct Value {
    bytes: Bytes,
    /// Seen behind this commit, and not behind that one.
    from: u64,
    until: u64,
}

impl Contents {
    fn space(&self, space: Space) -> &BTreeMap<Vec<u8>, Values> {
        match space {
            Space::Pages => &self.pages,
            Space::Meta => &self.meta,
        }
    }

    fn space_mut(&mut self, space: Space) -> &mut BTreeMap<Vec<u8>, Values> {
        match space {
            Space::Pages => &mut self.pages,
            Space::Meta => &mut self.meta,
        }
    }

    fn change(&mut self, space: Space, key: Vec<u8>, value: Option<Bytes>) {
        let commit = self.commits;
        let (mut more, mut less) = (0, 0);
        let is_replaced = match self.space_mut(space).entry(key.clone()) {
            std::collections::btree_map::Entry::Vacant(_) if value.is_none() => false,
            entry => {
                let values = entry.or_default();
                let last = values.last_mut().filter(|last| last.until == u64::MAX);
                let is_replaced = last.is_some();
                if let Some(last) = last {
                    last.until = commit;
                    less = last.bytes.len() as u64;
                }
                if let Some(bytes) = value {
                    more = bytes.len() as u64;
                    values.push(Value {
                        bytes,
                        from: commit,
                        until: u64::MAX,
                    });
                }
                is_replaced
            }
        };
        self.bytes = self.bytes + more - less;
        if is_replaced {
            self.replaced.push((space, key));
        }
    }

    /// Drops what nobody can see.
    fn clean(&mut self) {
        if !self.views.is_empty() {
            return;
        }
        for (space, key) in std::mem::take(&mut self.replaced) {
            let values = self.space_mut(space);
            if let Some(of_key) = values.get_mut(&key) {
                of_key.retain(|value| value.until == u64::MAX);
                if of_key.is_empty() {
                    values.remove(&key);
                }
            }
        }
    }
}

impl PageStore for MemoryStore {
    fn view(&self) -> Box<dyn StoreView> {
        let mut contents = self.0.write();
        let commits = contents.commits;
        *contents.views.entry(commits).or_insert(0) += 1;
        Box::new(MemoryView {
            store: self.clone(),
            commits,
        })
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut contents = self.0.write();
        contents.commits += 1;
        for (space, key, value) in batch.changes {
            contents.change(space, key, value);
        }
        contents.clean();
        Ok(())
    }

    fn flush(&self, _space: Space) -> Result<(), StoreError> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.0.read().bytes
    }
}

struct MemoryView {
    store: MemoryStore,
    commits: u64,
}

impl MemoryView {
    fn seen<'v>(&self, values: &'v Values) -> Option<&'v Bytes> {
        let seen = |value: &&Value| value.from <= self.commits && self.commits < value.until;
        values.iter().find(seen).map(|value| &value.bytes)
    }

    fn collect<T>(
        &self,
        space: Space,
        range: impl RangeBounds<[u8]>,
        item: impl Fn(VersionKey, &Bytes) -> T,
    ) -> Vec<Result<T, StoreError>> {
        let contents = self.store.0.read();
        contents
            .space(space)
            .range::<[u8], _>(range)
            .filter_map(|(key, values)| Some((key, self.seen(values)?)))
            .map(|(key, bytes)| VersionKey::parse(key).map(|version| item(version, bytes)))
            .collect()
    }
}

impl Drop for MemoryView {
    fn drop(&mut self) {
        let mut contents = self.store.0.write();
        if let Some(views) = contents.views.get_mut(&self.commits) {
            *views -= 1;
            if *views == 0 {
                contents.views.remove(&self.commits);
            }
        }
    }
}

impl StoreView for MemoryView {
    fn newest(&self, space: Space, key: &[u8], at: Lsn) -> Result<Option<(Lsn, Bytes)>, StoreError> {
        let contents = self.store.0.read();
        let (from, to) = (VersionKey::stored(key, Lsn::INVALID), VersionKey::stored(key, at));
        let mut versions = contents.space(space).range(from..=to).rev();
        let newest = versions.find_map(|(key, values)| Some((key, self.seen(values)?)));
        let Some((key, bytes)) = newest else {
            return Ok(None);
        };
        Ok(Some((VersionKey::parse(key)?.lsn, bytes.clone())))
    }

    fn versions(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Box<dyn Iterator<Item = Result<VersionKey, StoreError>> + '_> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        Box::new(self.collect(space, range, |version, _| version).into_iter())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Box<dyn Iterator<Item = Result<Version, StoreError>> + '_> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let with_value = |version, bytes: &Bytes| (version, bytes.clone());
        Box::new(self.collect(space, range, with_value).into_iter())
    }
}
