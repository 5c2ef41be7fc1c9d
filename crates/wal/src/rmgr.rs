//! PostgreSQL 15's resource managers.

use std::fmt;

/// Who wrote a record and can replay it (`access/rmgrlist.h`). The numbers are those in WAL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rmgr {
    Xlog = 0,
    Transaction = 1,
    Storage = 2,
    Clog = 3,
    Database = 4,
    Tablespace = 5,
    MultiXact = 6,
    RelMap = 7,
    Standby = 8,
    Heap2 = 9,
    Heap = 10,
    Btree = 11,
    Hash = 12,
    Gin = 13,
    Gist = 14,
    Sequence = 15,
    SpGist = 16,
    Brin = 17,
    CommitTs = 18,
    ReplicationOrigin = 19,
    Generic = 20,
    LogicalMessage = 21,
}

impl Rmgr {
    pub const ALL: [Rmgr; 22] = [
        Rmgr::Xlog,
        Rmgr::Transaction,
        Rmgr::Storage,
        Rmgr::Clog,
        Rmgr::Database,
        Rmgr::Tablespace,
        Rmgr::MultiXact,
        Rmgr::RelMap,
        Rmgr::Standby,
        Rmgr::Heap2,
        Rmgr::Heap,
        Rmgr::Btree,
        Rmgr::Hash,
        Rmgr::Gin,
        Rmgr::Gist,
        Rmgr::Sequence,
        Rmgr::SpGist,
        Rmgr::Brin,
        Rmgr::CommitTs,
        Rmgr::ReplicationOrigin,
        Rmgr::Generic,
        Rmgr::LogicalMessage,
    ];

    /// From the number in a record (`xl_rmid`); `None` for an extension's and for numbers never given.
    pub fn from_id(id: u8) -> Option<Rmgr> {
        Rmgr::ALL.get(usize::from(id)).copied()
    }

    /// The name that `pg_waldump` prints.
    pub fn name(self) -> &'static str {
        match self {
            Rmgr::Xlog => "XLOG",
            Rmgr::Transaction => "Transaction",
            Rmgr::Storage => "Storage",
            Rmgr::Clog => "CLOG",
            Rmgr::Database => "Database",
            Rmgr::Tablespace => "Tablespace",
            Rmgr::MultiXact => "MultiXact",
            Rmgr::RelMap => "RelMap",
            Rmgr::Standby => "Standby",
            Rmgr::Heap2 => "Heap2",
            Rmgr::Heap => "Heap",
            Rmgr::Btree => "Btree",
            Rmgr::Hash => "Hash",
            Rmgr::Gin => "Gin",
            Rmgr::Gist => "Gist",
            Rmgr::Sequence => "Sequence",
            Rmgr::SpGist => "SPGist",
            Rmgr::Brin => "BRIN",
            Rmgr::CommitTs => "CommitTs",
            Rmgr::ReplicationOrigin => "ReplicationOrigin",
            Rmgr::Generic => "Generic",
            Rmgr::LogicalMessage => "LogicalMessage",
        }
    }
}

impl fmt::Display for Rmgr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
