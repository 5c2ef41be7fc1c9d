//! What is appended, and where it can be read again.

use bytes::Bytes;
use pg_quorum_types::Lsn;

/// Whole records, one behind the other as on the wire: raw bytes without padding and page headers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// End of the record before the first one: the back link.
    pub previous_end: Lsn,
    /// End of the last record, exclusive.
    pub end: Lsn,
    /// The records' bytes. Shared, not copied, by the streams of all segments.
    pub records: Bytes,
    /// As in the wire message: empty unless records are missing in between.
    pub gaps: Vec<u64>,
}

/// Records that cannot be read again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalSourceError {
    /// Not held any more: the segment gets them from its peers.
    #[error("WAL behind {0} is not held here any more")]
    NotHeld(Lsn),
    #[error("WAL behind {after} cannot be read: {message}")]
    Failed { after: Lsn, message: String },
}

/// The retransmission buffer: for a server, its own `pg_wal`.
///
/// Called on the runtime's threads, and expected to return at once (it reads files that are in the page
/// cache, a bounded piece at a time).
pub trait WalSource: Send + Sync + 'static {
    /// Whole records from the record end `after` on: at least one, not beyond `until` (also a record's end),
    /// and about `max_bytes` unless one record is larger.
    ///
    /// # Errors
    /// See [`WalSourceError`].
    fn read(&self, after: Lsn, until: Lsn, max_bytes: usize) -> Result<Batch, WalSourceError>;
}

/// Holds nothing: a segment that was away gets everything from its peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWalSource;

impl WalSource for NoWalSource {
    fn read(&self, after: Lsn, _until: Lsn, _max_bytes: usize) -> Result<Batch, WalSourceError> {
        Err(WalSourceError::NotHeld(after))
    }
}
