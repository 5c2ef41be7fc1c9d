//! The versioned key-value store under the derived state: page images and metadata by (key, LSN).
//!
//! The trait is small so that engines can be compared; [`conformance`] says what each of them must do.
//! Promises: a commit is applied whole or not at all, also over a crash; commits to one space survive a crash
//! in their order, and all that were made before a [`PageStore::flush`] of the space do; a view sees one moment.
//! The store does not know what its values mean, nor which versions may still be asked for.

#[cfg(test)]
pub(crate) mod conformance;
mod fjall_store;
mod memory_store;

use std::path::Path;

use bytes::Bytes;
use pg_quorum_types::Lsn;

pub use fjall_store::{FjallSettings, FjallStore};
pub use memory_store::{MemoryStore, MemoryStores};

/// Two kinds of keys that are stored apart because their values differ in size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Page images, 8 KiB each: values stand apart from the keys.
    Pages,
    /// Everything else.
    Meta,
}

/// The engine failed. Its latest commits may or may not survive; it must be opened anew.
#[derive(Debug, thiserror::Error)]
#[error("page store: {0}")]
pub struct StoreError(pub String);

/// A version's name without its value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct VersionKey {
    pub key: Vec<u8>,
    pub lsn: Lsn,
}

impl VersionKey {
    /// The stored form: the key, then the LSN in big-endian order, so that versions stand in LSN order.
    pub fn stored(key: &[u8], lsn: Lsn) -> Vec<u8> {
        let mut stored = Vec::with_capacity(key.len() + 8);
        stored.extend_from_slice(key);
        stored.extend_from_slice(&lsn.0.to_be_bytes());
        stored
    }

    fn parse(stored: &[u8]) -> Result<VersionKey, StoreError> {
        let split = stored
            .len()
            .checked_sub(8)
            .ok_or_else(|| StoreError(format!("a stored key of {} bytes", stored.len())))?;
        let (key, lsn) = stored.split_at(split);
        let mut raw = [0; 8];
        raw.copy_from_slice(lsn);
        Ok(VersionKey {
            key: key.to_vec(),
            lsn: Lsn(u64::from_be_bytes(raw)),
        })
    }
}

/// A version and its value.
pub type Version = (VersionKey, Bytes);

/// Changes that are applied as one.
#[derive(Default, Debug)]
pub struct Batch {
    changes: Vec<(Space, Vec<u8>, Option<Bytes>)>,
    bytes: usize,
}

impl Batch {
    pub fn put(&mut self, space: Space, key: &[u8], lsn: Lsn, value: impl Into<Bytes>) {
        let value = value.into();
        self.bytes += key.len() + 8 + value.len();
        self.changes
            .push((space, VersionKey::stored(key, lsn), Some(value)));
    }

    pub fn delete(&mut self, space: Space, version: &VersionKey) {
        self.bytes += version.key.len() + 8;
        self.changes
            .push((space, VersionKey::stored(&version.key, version.lsn), None));
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Which engine, and its limits.
#[derive(Clone, Debug)]
pub enum StoreSettings {
    Fjall(FjallSettings),
    /// For tests and benchmarks.
    Memory(MemoryStores),
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings::Fjall(FjallSettings::default())
    }
}

impl StoreSettings {
    /// Opens the store in `directory`, or makes one there.
    ///
    /// # Errors
    /// The directory cannot be used or holds something else.
    pub fn open(&self, directory: &Path) -> Result<Box<dyn PageStore>, StoreError> {
        Ok(match self {
            StoreSettings::Fjall(settings) => Box::new(FjallStore::open(directory, settings)?),
            StoreSettings::Memory(stores) => Box::new(stores.open(directory)?),
        })
    }
}

/// An engine. Keys must be free of prefixes of each other (all of one length, or with their length in front).
pub trait PageStore: Send + Sync + 'static {
    /// What is committed now.
    fn view(&self) -> Box<dyn StoreView>;

    /// On disk some time.
    ///
    /// # Errors
    /// The engine failed.
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// When this returns, all that was committed to the space before is on disk.
    ///
    /// # Errors
    /// The engine failed.
    fn flush(&self, space: Space) -> Result<(), StoreError>;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}

/// One moment of the store.
pub trait StoreView: Send {
    /// The newest version of `key` at or below `at`.
    ///
    /// # Errors
    /// The engine failed.
    fn newest(&self, space: Space, key: &[u8], at: Lsn) -> Result<Option<(Lsn, Bytes)>, StoreError>;

    /// Names of all versions of all keys in `[from, to)`, in order. Values are not read.
    fn versions(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Box<dyn Iterator<Item = Result<VersionKey, StoreError>> + '_>;

    /// All versions of all keys in `[from, to)`, in order.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> Box<dyn Iterator<Item = Result<Version, StoreError>> + '_>;
}
