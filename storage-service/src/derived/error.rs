//! What can go wrong with derived state, by what the caller can do about it.

use pg_quorum_types::Lsn;
use pg_quorum_wal::WalError;

use super::store::StoreError;

/// Why something cannot be read or kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DerivedError {
    /// There is no complete base: nothing can be read yet.
    #[error("this segment has no complete base yet")]
    NoBase,
    /// Ask for a later LSN: versions of before are not kept.
    #[error("{asked} is below {floor}, the oldest position that this node still answers for")]
    TooOld { asked: Lsn, floor: Lsn },
    /// Ask again later, or another node: the log up to there is not here or not indexed yet.
    #[error("{asked} is above {indexed}, the last position that this node has indexed{}", because(.reason))]
    NotIndexed {
        asked: Lsn,
        indexed: Lsn,
        /// Why indexing does not go on, empty if it does.
        reason: String,
    },
    /// The import was not made as it must be; nothing of it is kept.
    #[error("import: {0}")]
    Import(String),
    /// The page store's disk or directory failed. The node must not go on with it.
    #[error("{0}")]
    Store(String),
    /// The log cannot be read.
    #[error("reading the log at {at}: {problem}")]
    Log { at: Lsn, problem: String },
    /// The store holds something that cannot be there.
    #[error("the page store is damaged: {0}")]
    Damaged(String),
    /// The log holds something that cannot be there, or that this version does not know.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A defect of this program: its background work has ended until the node is started again.
    #[error("a panic has ended it (the node's log says more); restart the node")]
    Panicked,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

impl From<StoreError> for DerivedError {
    fn from(error: StoreError) -> Self {
        DerivedError::Store(error.to_string())
    }
}
