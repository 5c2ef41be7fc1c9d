//! Where the fields of `pg_control` stand (`ControlFileData`, `catalog/pg_control.h`, 15.18).

use std::ops::Range;

/// `PG_CONTROL_VERSION`.
pub(crate) const CONTROL_VERSION: u32 = 1300;
/// `CATALOG_VERSION_NO` of PostgreSQL 15: other major versions have the same control version.
pub(crate) const CATALOG_VERSION: u32 = 202_209_061;
/// PostgreSQL's major version.
pub(crate) const MAJOR_VERSION: u32 = 15;

/// `PG_CONTROL_FILE_SIZE`: the data, then zeros.
pub(crate) const FILE_BYTES: usize = 8192;
/// Offset of the checksum, which covers all before it.
pub(crate) const CRC: usize = 288;
/// Where the data ends, without padding.
pub(crate) const DATA_END: usize = CRC + 4;

pub(crate) const SYSTEM_IDENTIFIER: usize = 0;
pub(crate) const CONTROL_VERSION_AT: usize = 8;
pub(crate) const CATALOG_VERSION_AT: usize = 12;
pub(crate) const STATE: usize = 16;
pub(crate) const TIME: usize = 24;
pub(crate) const CHECKPOINT: usize = 32;
pub(crate) const CHECKPOINT_COPY: usize = 40;
pub(crate) const UNLOGGED_LSN: usize = 128;
/// minRecoveryPoint u64, its timeline u32, backupStartPoint u64, backupEndPoint u64, backupEndRequired bool.
pub(crate) const RECOVERY: Range<usize> = 136..169;
pub(crate) const WAL_LEVEL: usize = 172;
pub(crate) const WAL_LOG_HINTS: usize = 176;
pub(crate) const MAX_CONNECTIONS: usize = 180;
pub(crate) const MAX_WORKER_PROCESSES: usize = 184;
pub(crate) const MAX_WAL_SENDERS: usize = 188;
pub(crate) const MAX_PREPARED_TRANSACTIONS: usize = 192;
pub(crate) const MAX_LOCKS_PER_TRANSACTION: usize = 196;
pub(crate) const TRACK_COMMIT_TIMESTAMP: usize = 200;
pub(crate) const BLOCK_BYTES: usize = 216;
pub(crate) const RELATION_SEGMENT_BLOCKS: usize = 220;
pub(crate) const WAL_BLOCK_BYTES: usize = 224;
pub(crate) const WAL_SEGMENT_BYTES: usize = 228;
pub(crate) const CHECKSUM_VERSION: usize = 252;
