//! What can be wrong with WAL and with its replay. Every error names the record.

use pg_quorum_types::{Lsn, PageKey};

use crate::Rmgr;
use crate::redo::RedoFault;

/// WAL that cannot be what PostgreSQL 15 wrote, or that this crate does not know.
///
/// None of these is cured by trying again with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// Bytes of a record that contradict the format.
    #[error("WAL record at {lsn}, byte {offset}: {problem}")]
    BadRecord {
        lsn: Lsn,
        offset: usize,
        problem: &'static str,
    },
    /// A record that ends before a field that it must have.
    #[error("WAL record at {lsn}, byte {offset}: {wanted} more bytes expected, {available} are there")]
    ShortRecord {
        lsn: Lsn,
        offset: usize,
        wanted: usize,
        available: usize,
    },
    /// The checksum in the header is not that of the record.
    #[error("WAL record at {lsn}: checksum is {found:08X}, expected {expected:08X}")]
    BadChecksum { lsn: Lsn, found: u32, expected: u32 },
    /// The back link does not lead to the record before.
    #[error("WAL record at {lsn}: its back link is {found}, the record before it starts at {expected}")]
    BadBackLink { lsn: Lsn, found: Lsn, expected: Lsn },
    /// A WAL page header that contradicts the position or the cluster.
    #[error("WAL page at {page}: {problem}")]
    BadPage { page: Lsn, problem: &'static str },
    /// No record can start or end at this position.
    #[error("{lsn} is not a position where a WAL record can {what}")]
    BadPosition { lsn: Lsn, what: &'static str },
    /// A resource manager that is not one of PostgreSQL 15's own.
    #[error("WAL record at {lsn}: resource manager {id} is not one of PostgreSQL's own")]
    UnknownResourceManager { lsn: Lsn, id: u8 },
    /// A kind of record that the resource manager does not have in PostgreSQL 15.
    #[error("WAL record at {lsn}: {rmgr} has no records of kind {info:02X}")]
    UnknownRecord { lsn: Lsn, rmgr: Rmgr, info: u8 },
}

/// A page that cannot be brought forward. Every error names the record and the page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedoError {
    /// The record contradicts the format of its kind.
    #[error("{key}: {error}")]
    Malformed { key: PageKey, error: WalError },
    /// The caller asked for a page that the record does not change.
    #[error("WAL record at {lsn} does not change {key}")]
    NotAffected { lsn: Lsn, key: PageKey },
    /// The page of a relation and the record do not go together.
    #[error("{key}: WAL record at {lsn} cannot be replayed: {fault}")]
    DoesNotFit {
        lsn: Lsn,
        key: PageKey,
        fault: RedoFault,
    },
}
