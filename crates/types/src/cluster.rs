//! What a volume must know of the PostgreSQL cluster whose pages it keeps.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Lsn;

/// A complete copy of a cluster's content at an LSN: what a volume's log starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Base {
    /// Drawn for each attempt at an import, so that two halves are never taken for one whole.
    pub id: Uuid,
    /// End of the last record that the pages contain.
    pub lsn: Lsn,
}

/// Facts of a cluster that no WAL record changes (from `pg_control`), fixed at the import.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// `ControlFileData.system_identifier`.
    pub system_identifier: u64,
    /// The timeline of all WAL from the base on.
    pub timeline: u32,
    /// Bytes of a WAL segment file: see [`is_wal_segment_size`]. Positions are computed with it.
    pub wal_segment_bytes: u32,
    /// Whether pages bear checksums (`data_checksum_version` is not zero).
    pub data_checksums: bool,
    /// `PG_CONTROL_VERSION` of the server, 1300 for PostgreSQL 13 to 16.
    pub pg_control_version: u32,
    /// `CATALOG_VERSION_NO` of the server.
    pub catalog_version: u32,
    /// PostgreSQL's major version, 15.
    pub pg_major: u32,
}

/// Whether a server can have WAL segments of this size (`IsValidWalSegSize`): a power of two from 1 MB to 1 GB.
pub const fn is_wal_segment_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30
}
