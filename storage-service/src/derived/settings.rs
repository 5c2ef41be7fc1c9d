//! Limits of the derived state. Six nodes may share a process, so the defaults are small.

use std::time::Duration;

use super::redo_threads::RedoThreads;
use super::store::StoreSettings;

/// See the fields.
#[derive(Clone, Debug)]
pub struct DerivedSettings {
    /// Memory for the page index and the metadata above the persisted state. When it is full, indexing
    /// waits until some of it has been persisted. The last quarter is for log that a reader waits for.
    pub index_bytes: usize,
    /// How much log is gathered before it is turned into pages. More of it means fewer images of pages that
    /// change often, and more log on disk.
    pub round_wal_bytes: u64,
    /// After so long without new records, what there is is turned into pages.
    pub idle_before_round: Duration,
    /// Log that is read and decoded at once.
    pub ingest_batch_bytes: usize,
    /// Pages that a thread builds and writes at once.
    pub pages_per_batch: usize,
    /// While records arrive, the background is one thread that rests this many times as long as it works, unless
    /// memory is short.
    pub rest_factor: u32,
    /// How long a read waits for records that are on their way.
    pub read_wait: Duration,
    /// What builds pages. Nodes of one process share it.
    pub redo_threads: RedoThreads,
    pub store: StoreSettings,
}

impl DerivedSettings {
    /// With so much in memory what there is is turned into pages; the rest is for what arrives meanwhile.
    pub fn round_index_bytes(&self) -> usize {
        self.index_bytes / 2
    }

    /// With more in memory it is short: log that no reader waits for is left where it is.
    pub fn ample_index_bytes(&self) -> usize {
        self.index_bytes / 4 * 3
    }
}

impl Default for DerivedSettings {
    fn default() -> Self {
        Self {
            index_bytes: 128 << 20,
            round_wal_bytes: 512 << 20,
            idle_before_round: Duration::from_secs(10),
            ingest_batch_bytes: 1 << 20,
            pages_per_batch: 64,
            rest_factor: 3,
            read_wait: Duration::from_secs(5),
            redo_threads: RedoThreads::default(),
            store: StoreSettings::default(),
        }
    }
}
