//! The domain's words as types.
//!
//! Everything that crosses a crate border is one of these: no bare `u64` stands for a position, an
//! epoch or a page. The crate knows no I/O, no protocol and no PostgreSQL record layout.

mod cluster;
mod epoch;
mod identity;
mod lsn;
mod page;

pub use cluster::{Base, ClusterFacts, is_wal_segment_size};
pub use epoch::{Epoch, History, HistoryEntry, HistoryError};
pub use identity::{
    AzName, ComputeId, Membership, NodeName, Owner, ProtectionGroup, SegmentId, SegmentMember, VolumeId,
};
pub use lsn::{Lsn, ParseLsnError};
pub use page::{
    BLOCK_SIZE, DatabaseKey, ForkNumber, PAGE_KEY_BYTES, PageKey, RelFileNode, RelFork, SlruKind,
};
