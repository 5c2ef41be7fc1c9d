//! The running state that a checkpoint would write: counters, horizons, settings.
//!
//! PostgreSQL keeps it in shared memory and brings it forward in recovery; here it is brought forward from the
//! log, record by record, so that a shutdown checkpoint can be written at any record's end.

use pg_quorum_types::{ClusterFacts, Lsn};

use crate::effects::RedoContext;
use crate::framing::WalLayout;
use crate::raw_record::{NewRecord, RawRecord};
use crate::reader::Reader;
use crate::records::{Completion, MultiXactCreation, MultiXactTruncation, Outcome, Preparation, Xids};
use crate::slru::{FIRST_NORMAL_XID, wraps_before, xid_precedes};
use crate::v15::checkpoint::{CHECKPOINT_BYTES, Checkpoint};
use crate::v15::kind::{clog, commit_ts, multixact, standby, transaction, xlog};
use crate::v15::settings::{PARAMETERS_BYTES, Parameters};
use crate::v15::{ID_MAIN_DATA_SHORT, RECORD_HEADER_BYTES};
use crate::{Record, Rmgr, WalError};

/// Version of [`CheckpointState::to_bytes`].
const STORED_VERSION: u8 = 1;
/// Bytes of [`CheckpointState::to_bytes`].
const STORED_BYTES: usize = 1 + 8 + CHECKPOINT_BYTES + PARAMETERS_BYTES;

/// What a shutdown checkpoint at this place of the log would say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckpointState {
    /// Counters and horizons of now; `redo`, `time` and `oldest_active_xid` are the last checkpoint's.
    pub checkpoint: Checkpoint,
    /// Start of the last checkpoint record.
    pub last_checkpoint: Lsn,
    pub parameters: Parameters,
}

impl CheckpointState {
    /// Brings the state from before `record` to after it.
    ///
    /// # Errors
    /// A record that contradicts the format of its kind.
    pub fn track(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        self.advance_past_xid(record.xid);
        match record.rmgr {
            Rmgr::Xlog => self.track_xlog(record),
            Rmgr::Transaction => self.track_transaction(record),
            Rmgr::Clog if record.kind() == clog::TRUNCATE => self.track_clog_truncation(record),
            Rmgr::CommitTs if record.kind() == commit_ts::TRUNCATE => self.track_commit_ts_truncation(record),
            Rmgr::MultiXact => self.track_multixact(record),
            Rmgr::Standby => self.track_standby(record),
            _ => Ok(()),
        }
    }

    /// What redo of the next record must know.
    pub fn redo_context(&self, facts: &ClusterFacts) -> RedoContext {
        RedoContext {
            hint_bits_logged: facts.data_checksums || self.parameters.wal_log_hints,
            track_commit_timestamp: self.parameters.track_commit_timestamp,
        }
    }

    /// The record with which a new epoch begins: a shutdown checkpoint as a server would write it that found
    /// nothing to do (`CreateCheckPoint`, 15.18). `previous_end` is the end of the log,
    /// `previous_record_start` the start of its last record; `unix_time` in seconds.
    ///
    /// # Errors
    /// A `previous_end` where no record can end.
    pub fn epoch_start_record(
        &self,
        facts: &ClusterFacts,
        previous_end: Lsn,
        previous_record_start: Lsn,
        unix_time: i64,
    ) -> Result<RawRecord, WalError> {
        let layout = WalLayout::new(facts);
        layout.check_end(previous_end)?;
        let start = layout.next_record_start(previous_end);
        let checkpoint = Checkpoint {
            redo: start,
            timeline: facts.timeline,
            previous_timeline: facts.timeline,
            time: unix_time,
            oldest_active_xid: 0,
            ..self.checkpoint
        };
        let mut body = [0; 2 + CHECKPOINT_BYTES];
        body[0] = ID_MAIN_DATA_SHORT;
        body[1] = CHECKPOINT_BYTES as u8;
        body[2..].copy_from_slice(&checkpoint.to_bytes());
        let record = NewRecord {
            start,
            prev: previous_record_start,
            xid: 0,
            rmgr: Rmgr::Xlog,
            info: xlog::CHECKPOINT_SHUTDOWN,
            body: &body,
        };
        record.encode(layout)
    }

    /// The stored form.
    ///
    /// ```text
    /// 0 version u8 | 1 last_checkpoint u64 | 9 CheckPoint, as in WAL | 97 parameters, as in WAL
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STORED_BYTES);
        bytes.push(STORED_VERSION);
        bytes.extend_from_slice(&self.last_checkpoint.0.to_le_bytes());
        bytes.extend_from_slice(&self.checkpoint.to_bytes());
        bytes.extend_from_slice(&self.parameters.to_bytes());
        bytes
    }

    /// The inverse of [`CheckpointState::to_bytes`].
    ///
    /// # Errors
    /// Bytes that it never makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<CheckpointState, WalError> {
        let mut reader = Reader::new(bytes, Lsn::INVALID, 0);
        if reader.u8()? != STORED_VERSION || bytes.len() != STORED_BYTES {
            return Err(reader.bad("a checkpoint state of another version"));
        }
        Ok(CheckpointState {
            last_checkpoint: reader.lsn()?,
            checkpoint: Checkpoint::parse(&mut reader)?,
            parameters: Parameters::parse(&mut reader)?,
        })
    }

    /// `xlog_redo`, 15.18.
    fn track_xlog(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        let mut reader = record.main_reader();
        match record.kind() {
            xlog::CHECKPOINT_SHUTDOWN => {
                // Nothing runs meanwhile: believe it exactly.
                self.checkpoint = Checkpoint::parse(&mut reader)?;
                self.last_checkpoint = record.start;
            }
            xlog::CHECKPOINT_ONLINE => {
                self.merge_online(&Checkpoint::parse(&mut reader)?);
                self.last_checkpoint = record.start;
            }
            xlog::NEXTOID => self.checkpoint.next_oid = reader.u32()?,
            xlog::FPW_CHANGE => self.checkpoint.full_page_writes = reader.bool()?,
            xlog::PARAMETER_CHANGE => self.change_parameters(Parameters::parse(&mut reader)?),
            _ => {}
        }
        Ok(())
    }

    /// An online checkpoint's values are of its beginning: they are minima. Its OID counter is not used,
    /// NEXTOID records are.
    fn merge_online(&mut self, online: &Checkpoint) {
        let now = &mut self.checkpoint;
        now.redo = online.redo;
        now.time = online.time;
        now.timeline = online.timeline;
        now.previous_timeline = online.previous_timeline;
        now.oldest_active_xid = online.oldest_active_xid;
        now.next_full_xid = now.next_full_xid.max(online.next_full_xid);
        if xid_precedes(now.oldest_xid, online.oldest_xid) {
            now.oldest_xid = online.oldest_xid;
            now.oldest_xid_database = online.oldest_xid_database;
        }
        if wraps_before(now.oldest_multi, online.oldest_multi) {
            now.oldest_multi = online.oldest_multi;
            now.oldest_multi_database = online.oldest_multi_database;
        }
        // SetCommitTsLimit, as a server that starts from this checkpoint calls it (StartupXLOG).
        if self.parameters.track_commit_timestamp && online.oldest_commit_ts_xid != 0 {
            if now.oldest_commit_ts_xid == 0
                || xid_precedes(now.oldest_commit_ts_xid, online.oldest_commit_ts_xid)
            {
                now.oldest_commit_ts_xid = online.oldest_commit_ts_xid;
            }
            if xid_precedes(now.newest_commit_ts_xid, online.newest_commit_ts_xid) {
                now.newest_commit_ts_xid = online.newest_commit_ts_xid;
            }
        }
        self.advance_next_multi(online.next_multi, online.next_multi_offset);
    }

    /// `CommitTsParameterChange`, `ActivateCommitTs`, `DeactivateCommitTs`.
    fn change_parameters(&mut self, new: Parameters) {
        let now = &mut self.checkpoint;
        if !new.track_commit_timestamp {
            now.oldest_commit_ts_xid = 0;
            now.newest_commit_ts_xid = 0;
        } else if now.oldest_commit_ts_xid == 0 {
            now.oldest_commit_ts_xid = now.next_xid();
            now.newest_commit_ts_xid = now.next_xid();
        }
        self.parameters = new;
    }

    /// Ends of transactions, and what names subtransactions (`xact_redo`, `PrescanPreparedTransactions`).
    fn track_transaction(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        if let Some(completion) = Completion::parse(record)? {
            completion.xids().for_each(|xid| self.advance_past_xid(xid));
            if completion.outcome == Outcome::Committed && self.parameters.track_commit_timestamp {
                // TransactionTreeSetCommitTsData
                let newest = completion.xids().last().unwrap_or(completion.xid);
                if xid_precedes(self.checkpoint.newest_commit_ts_xid, newest) {
                    self.checkpoint.newest_commit_ts_xid = newest;
                }
            }
            return Ok(());
        }
        match record.info & transaction::OPERATION_MASK {
            transaction::PREPARE => {
                let preparation = Preparation::parse(record)?;
                self.advance_past_xid(preparation.xid);
                preparation
                    .subtransactions
                    .iter()
                    .for_each(|xid| self.advance_past_xid(xid));
            }
            transaction::ASSIGNMENT => {
                // xl_xact_assignment: xtop u32 | nsubxacts i32 | xsub u32 ...
                let mut reader = record.main_reader();
                self.advance_past_xid(reader.u32()?);
                let n = reader.count(4)?;
                Xids::read(&mut reader, n)?
                    .iter()
                    .for_each(|xid| self.advance_past_xid(xid));
            }
            _ => {}
        }
        Ok(())
    }

    /// The horizon that `vac_truncate_clog` sets right after the record.
    fn track_clog_truncation(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        // xl_clog_truncate: pageno | oldestXact | oldestXactDb
        let mut reader = record.main_reader();
        reader.skip(4)?;
        let oldest_xid = reader.u32()?;
        let database = reader.u32()?;
        if xid_precedes(self.checkpoint.oldest_xid, oldest_xid) {
            self.checkpoint.oldest_xid = oldest_xid;
            self.checkpoint.oldest_xid_database = database;
        }
        Ok(())
    }

    /// `AdvanceOldestCommitTsXid`.
    fn track_commit_ts_truncation(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        // xl_commit_ts_truncate: pageno | oldestXid
        let mut reader = record.main_reader();
        reader.skip(4)?;
        let oldest = reader.u32()?;
        let now = &mut self.checkpoint.oldest_commit_ts_xid;
        if *now != 0 && xid_precedes(*now, oldest) {
            *now = oldest;
        }
        Ok(())
    }

    /// `multixact_redo`, 15.18.
    fn track_multixact(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        match record.kind() {
            multixact::CREATE_ID => {
                let creation = MultiXactCreation::parse(record)?;
                self.advance_next_multi(
                    creation.multi.wrapping_add(1),
                    creation.offset.wrapping_add(creation.member_count()),
                );
                creation
                    .members()
                    .for_each(|member| self.advance_past_xid(member.xid));
            }
            multixact::TRUNCATE_ID => {
                let truncation = MultiXactTruncation::parse(record)?;
                self.checkpoint.oldest_multi = truncation.oldest_multi;
                self.checkpoint.oldest_multi_database = truncation.oldest_multi_database;
            }
            _ => {}
        }
        Ok(())
    }

    /// Transactions that are named while they run (`standby_redo`, 15.18).
    fn track_standby(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        let mut reader = record.main_reader();
        match record.kind() {
            standby::LOCK => {
                // xl_standby_locks: nlocks i32 | for each: xid u32, dbOid u32, relOid u32
                for _ in 0..reader.count(12)? {
                    self.advance_past_xid(reader.u32()?);
                    reader.skip(8)?;
                }
            }
            standby::RUNNING_XACTS => {
                // The next transaction id that the server had (ProcArrayApplyRecoveryInfo).
                // xl_running_xacts: xcnt i32 | subxcnt i32 | subxid_overflow bool, 3 zeros | nextXid u32
                reader.skip(12)?;
                let next_xid = reader.u32()?;
                let mut last = next_xid.wrapping_sub(1);
                while last < FIRST_NORMAL_XID {
                    last = last.wrapping_sub(1);
                }
                self.advance_past_xid(last);
            }
            _ => {}
        }
        Ok(())
    }

    /// `AdvanceNextFullTransactionIdPastXid` (`varsup.c`, 15.18): all that a record does here of
    /// which [`crate::Effects::read_pages_only`] is true. 0 is no transaction.
    pub fn advance_past_xid(&mut self, xid: u32) {
        let next = self.checkpoint.next_xid();
        if xid < FIRST_NORMAL_XID || xid_precedes(xid, next) {
            return;
        }
        let advanced = xid.wrapping_add(1).max(FIRST_NORMAL_XID);
        let epoch = (self.checkpoint.next_full_xid >> 32) + u64::from(advanced < next);
        self.checkpoint.next_full_xid = epoch << 32 | u64::from(advanced);
    }

    /// `MultiXactAdvanceNextMXact`.
    fn advance_next_multi(&mut self, multi: u32, offset: u32) {
        let now = &mut self.checkpoint;
        if wraps_before(now.next_multi, multi) {
            now.next_multi = multi;
        }
        if wraps_before(now.next_multi_offset, offset) {
            now.next_multi_offset = offset;
        }
    }
}

const _: () = assert!(RECORD_HEADER_BYTES + 2 + CHECKPOINT_BYTES == 114);
const _: () = assert!(CHECKPOINT_BYTES < 256);

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of some kind with this main data.
    fn record(rmgr: Rmgr, info: u8, main: &[u8]) -> RawRecord {
        let mut body = vec![ID_MAIN_DATA_SHORT, main.len() as u8];
        body.extend_from_slice(main);
        let new = NewRecord {
            start: Lsn(0x100_0028),
            prev: Lsn::INVALID,
            xid: 0,
            rmgr,
            info,
            body: &body,
        };
        let layout = WalLayout {
            segment_bytes: 16 << 20,
        };
        new.encode(layout).unwrap()
    }

    fn track(state: &mut CheckpointState, raw: &RawRecord) -> Result<(), WalError> {
        state.track(&Record::decode(raw)?)
    }

    /// The limits of commit timestamps, oldest and newest, after an online checkpoint that says `online`, if they were
    /// `before`.
    fn limits(is_tracked: bool, before: (u32, u32), online: (u32, u32)) -> (u32, u32) {
        let checkpoint = |(oldest, newest)| Checkpoint {
            oldest_commit_ts_xid: oldest,
            newest_commit_ts_xid: newest,
            ..Checkpoint::default()
        };
        let mut state = CheckpointState {
            checkpoint: checkpoint(before),
            ..CheckpointState::default()
        };
        state.parameters.track_commit_timestamp = is_tracked;
        let record = record(
            Rmgr::Xlog,
            xlog::CHECKPOINT_ONLINE,
            &checkpoint(online).to_bytes(),
        );
        track(&mut state, &record).unwrap();
        let after = &state.checkpoint;
        (after.oldest_commit_ts_xid, after.newest_commit_ts_xid)
    }

    #[test]
    fn an_online_checkpoint_advances_the_limits_of_commit_timestamps() {
        assert_eq!(limits(true, (0, 0), (700, 800)), (700, 800));
        assert_eq!(limits(true, (600, 650), (700, 800)), (700, 800));
        assert_eq!(
            limits(true, (u32::MAX, u32::MAX), (3, 4)),
            (3, 4),
            "over the wrap"
        );
    }

    #[test]
    fn an_online_checkpoint_never_takes_the_limits_of_commit_timestamps_back() {
        // It says what was so when it began; its record comes later.
        assert_eq!(limits(true, (710, 900), (700, 800)), (710, 900));
        assert_eq!(limits(true, (700, 800), (0, 0)), (700, 800));
        assert_eq!(limits(false, (0, 0), (700, 800)), (0, 0), "they are not tracked");
    }

    fn next_xid_after_locks(locks: &[(u32, u32, u32)]) -> u64 {
        let mut state = CheckpointState::default();
        state.checkpoint.next_full_xid = 1 << 32 | 1000;
        let mut main = (locks.len() as i32).to_le_bytes().to_vec();
        for (xid, db, rel) in locks {
            for word in [xid, db, rel] {
                main.extend_from_slice(&word.to_le_bytes());
            }
        }
        let record = record(Rmgr::Standby, standby::LOCK, &main);
        track(&mut state, &record).unwrap();
        state.checkpoint.next_full_xid
    }

    /// A transaction that has locked a table and written nothing else yet is known by its lock only. Its id must not
    /// be given out again.
    #[test]
    fn the_holder_of_a_logged_lock_has_its_transaction_id() {
        assert_eq!(next_xid_after_locks(&[(1002, 5, 16384)]), 1 << 32 | 1003);
        let several = [(990, 5, 1), (1005, 5, 2), (1001, 5, 3)];
        assert_eq!(next_xid_after_locks(&several), 1 << 32 | 1006);
        assert_eq!(next_xid_after_locks(&[(999, 5, 16384)]), 1 << 32 | 1000);
    }

    #[test]
    fn a_lock_record_that_is_too_short_is_an_error() {
        let short = record(Rmgr::Standby, standby::LOCK, &[2, 0, 0, 0, 1, 2, 3, 4]);
        assert!(track(&mut CheckpointState::default(), &short).is_err());
    }
}
