//! A volume's content as items: what an import brings in and a compute image gives out.

use bytes::Bytes;
use pg_quorum_types::{DatabaseKey, Lsn, RelFork, SlruKind};

/// One item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ContentItem {
    /// A fork that exists.
    RelationSize { fork: RelFork, blocks: u32 },
    /// Adjacent blocks, 8192 bytes each.
    RelationPages {
        fork: RelFork,
        first_block: u32,
        pages: Bytes,
    },
    /// Adjacent pages, 8192 bytes each.
    SlruPages {
        kind: SlruKind,
        first_page: u32,
        pages: Bytes,
    },
    /// A database's folder in a tablespace; database 0 is `global`.
    Database {
        database: DatabaseKey,
        version_file: Bytes,
        /// Empty if there is none.
        relation_map: Bytes,
    },
    /// The location is a path in no particular encoding; empty: in place.
    Tablespace { spc: u32, location: Bytes },
    PreparedTransaction {
        xid: u32,
        start: Lsn,
        end: Lsn,
        state: Bytes,
    },
    ReplicationOrigin {
        origin: u32,
        remote_lsn: Lsn,
        local_lsn: Lsn,
    },
    /// A file by its path in PGDATA.
    File { path: String, content: Bytes },
    /// WAL of the base's segment before the base.
    WalPrefix { lsn: Lsn, wal: Bytes },
    /// `pg_control`.
    ControlFile(Bytes),
}
