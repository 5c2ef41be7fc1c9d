//! The body of a checkpoint record.

use pg_quorum_types::Lsn;

use crate::WalError;
use crate::reader::Reader;

/// `sizeof(CheckPoint)`, 15.18.
pub(crate) const CHECKPOINT_BYTES: usize = 88;

/// `CheckPoint` (`catalog/pg_control.h`, 15.18), also a part of `pg_control`.
///
/// ```text
///  0 redo u64 | 8 ThisTimeLineID u32 | 12 PrevTimeLineID u32 | 16 fullPageWrites bool, 7 zeros | 24 nextXid u64
/// 32 nextOid u32 | 36 nextMulti u32 | 40 nextMultiOffset u32 | 44 oldestXid u32 | 48 oldestXidDB u32
/// 52 oldestMulti u32 | 56 oldestMultiDB u32, 4 zeros | 64 time i64 | 72 oldestCommitTsXid u32
/// 76 newestCommitTsXid u32 | 80 oldestActiveXid u32, 4 zeros
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// Where replay must begin; the record itself for a shutdown checkpoint.
    pub redo: Lsn,
    pub timeline: u32,
    pub previous_timeline: u32,
    pub full_page_writes: bool,
    /// The epoch (how often the counter has wrapped) in the high half.
    pub next_full_xid: u64,
    pub next_oid: u32,
    pub next_multi: u32,
    pub next_multi_offset: u32,
    pub oldest_xid: u32,
    pub oldest_xid_database: u32,
    pub oldest_multi: u32,
    pub oldest_multi_database: u32,
    /// Seconds since 1970.
    pub time: i64,
    /// 0 when commit timestamps are not tracked.
    pub oldest_commit_ts_xid: u32,
    /// 0 when commit timestamps are not tracked.
    pub newest_commit_ts_xid: u32,
    /// 0 in a shutdown checkpoint.
    pub oldest_active_xid: u32,
}

impl Checkpoint {
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Checkpoint, WalError> {
        let redo = reader.lsn()?;
        let timeline = reader.u32()?;
        let previous_timeline = reader.u32()?;
        let full_page_writes = reader.bool()?;
        reader.skip(7)?;
        let next_full_xid = reader.u64()?;
        let next_oid = reader.u32()?;
        let next_multi = reader.u32()?;
        let next_multi_offset = reader.u32()?;
        let oldest_xid = reader.u32()?;
        let oldest_xid_database = reader.u32()?;
        let oldest_multi = reader.u32()?;
        let oldest_multi_database = reader.u32()?;
        reader.skip(4)?;
        let time = reader.i64()?;
        let oldest_commit_ts_xid = reader.u32()?;
        let newest_commit_ts_xid = reader.u32()?;
        let oldest_active_xid = reader.u32()?;
        reader.skip(4)?;
        Ok(Checkpoint {
            redo,
            timeline,
            previous_timeline,
            full_page_writes,
            next_full_xid,
            next_oid,
            next_multi,
            next_multi_offset,
            oldest_xid,
            oldest_xid_database,
            oldest_multi,
            oldest_multi_database,
            time,
            oldest_commit_ts_xid,
            newest_commit_ts_xid,
            oldest_active_xid,
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; CHECKPOINT_BYTES] {
        let mut bytes = [0; CHECKPOINT_BYTES];
        bytes[0..8].copy_from_slice(&self.redo.0.to_le_bytes());
        bytes[16] = u8::from(self.full_page_writes);
        bytes[24..32].copy_from_slice(&self.next_full_xid.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.time.to_le_bytes());
        for (at, word) in [
            (8, self.timeline),
            (12, self.previous_timeline),
            (32, self.next_oid),
            (36, self.next_multi),
            (40, self.next_multi_offset),
            (44, self.oldest_xid),
            (48, self.oldest_xid_database),
            (52, self.oldest_multi),
            (56, self.oldest_multi_database),
            (72, self.oldest_commit_ts_xid),
            (76, self.newest_commit_ts_xid),
            (80, self.oldest_active_xid),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The next transaction id without the epoch.
    pub fn next_xid(&self) -> u32 {
        self.next_full_xid as u32
    }
}
