//! Settings that the log carries because replay depends on them.

use crate::WalError;
use crate::reader::Reader;

/// Bytes of the stored form without the padding at the end.
pub(crate) const PARAMETERS_BYTES: usize = 26;

/// `xl_parameter_change`, 15.18; the same settings stand in `pg_control`.
///
/// ```text
/// 0 max_connections i32 | 4 max_worker_processes i32 | 8 max_wal_senders i32 | 12 max_prepared_xacts i32
/// 16 max_locks_per_xact i32 | 20 wal_level i32 | 24 wal_log_hints bool | 25 track_commit_timestamp bool
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Parameters {
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_transactions: i32,
    pub max_locks_per_transaction: i32,
    /// 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    pub wal_log_hints: bool,
    pub track_commit_timestamp: bool,
}

impl Parameters {
    /// From a record of kind PARAMETER_CHANGE.
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Parameters, WalError> {
        Ok(Parameters {
            max_connections: reader.i32()?,
            max_worker_processes: reader.i32()?,
            max_wal_senders: reader.i32()?,
            max_prepared_transactions: reader.i32()?,
            max_locks_per_transaction: reader.i32()?,
            wal_level: reader.i32()?,
            wal_log_hints: reader.bool()?,
            track_commit_timestamp: reader.bool()?,
        })
    }

    /// The form in WAL.
    pub(crate) fn to_bytes(self) -> [u8; PARAMETERS_BYTES] {
        let mut bytes = [0; PARAMETERS_BYTES];
        for (nth, value) in [
            self.max_connections,
            self.max_worker_processes,
            self.max_wal_senders,
            self.max_prepared_transactions,
            self.max_locks_per_transaction,
            self.wal_level,
        ]
        .into_iter()
        .enumerate()
        {
            bytes[nth * 4..nth * 4 + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes[24] = u8::from(self.wal_log_hints);
        bytes[25] = u8::from(self.track_commit_timestamp);
        bytes
    }
}
