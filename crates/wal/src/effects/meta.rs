//! Changes that are not changes of a page.

use bytes::Bytes;
use pg_quorum_types::{DatabaseKey, Lsn, RelFileNode, RelFork};

use crate::slru::SlruTruncation;

/// A change of the volume's non-relational state, or of what relations there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetaChange {
    /// The fork's file was made (`log_smgrcreate`): it has 0 blocks. What bore this name before is of an
    /// earlier relation.
    RelationCreated {
        fork: RelFork,
    },
    /// The fork has at most `blocks` blocks, if it exists. What was behind is gone: it reads as zeros if the
    /// fork grows again.
    RelationTruncated {
        fork: RelFork,
        blocks: u32,
    },
    /// All forks are gone.
    RelationDropped {
        rel: RelFileNode,
    },
    /// The database's folder exists in the tablespace, with a `PG_VERSION` and nothing else yet.
    DatabaseCreated {
        database: DatabaseKey,
    },
    /// `to`, whatever was there, is what `from` is at the record: every fork of every relation, and the
    /// relation map.
    DatabaseCopied {
        from: DatabaseKey,
        to: DatabaseKey,
    },
    /// The database's folder in the tablespace is gone, with all relations in it.
    DatabaseDropped {
        database: DatabaseKey,
    },
    /// `location` is the folder that the link in `pg_tblspc` leads to, in no particular encoding; empty for a
    /// tablespace in place.
    TablespaceCreated {
        spc: u32,
        location: Bytes,
    },
    TablespaceDropped {
        spc: u32,
    },
    /// The content of `pg_filenode.map`. `db` 0 is the shared map.
    RelationMapUpdated {
        database: DatabaseKey,
        map: Bytes,
    },
    /// A transaction was prepared; `state` is its two-phase file without the trailing checksum.
    TransactionPrepared {
        xid: u32,
        start: Lsn,
        end: Lsn,
        state: Bytes,
    },
    /// A prepared transaction was committed or rolled back.
    PreparedTransactionFinished {
        xid: u32,
    },
    /// Pages of an SLRU are gone.
    SlruTruncated(SlruTruncation),
    /// The origin has been replayed up to `remote_lsn` by what ends at `local_lsn`. Without `backwards` a
    /// position never falls.
    ReplicationOriginAdvanced {
        origin: u16,
        remote_lsn: Lsn,
        local_lsn: Lsn,
        backwards: bool,
    },
    ReplicationOriginDropped {
        origin: u16,
    },
}
