//! Commit timestamps: time and replication origin of each committed transaction.

use crate::records::{Completion, Outcome};
use crate::redo::Page;
use crate::slru::{COMMIT_TS_ENTRY_BYTES, COMMIT_TS_XIDS_PER_PAGE};
use crate::{Record, WalError};

/// `TransactionTreeSetCommitTsData` (15.18) on one page, as `xact_redo_commit` calls it.
pub(super) fn set_times(record: &Record<'_>, number: u32, page: &mut Page) -> Result<bool, WalError> {
    let completion = match Completion::parse(record)? {
        Some(completion) if completion.outcome == Outcome::Committed => completion,
        _ => return Ok(false),
    };
    let time = completion
        .origin
        .as_ref()
        .map_or(completion.time, |origin| origin.time);
    let mut entry = [0; COMMIT_TS_ENTRY_BYTES];
    entry[..8].copy_from_slice(&time.to_le_bytes());
    entry[8..].copy_from_slice(&record.origin.unwrap_or(0).to_le_bytes());
    let mut is_changed = false;
    for xid in completion.xids() {
        if xid / COMMIT_TS_XIDS_PER_PAGE == number {
            let at = (xid % COMMIT_TS_XIDS_PER_PAGE) as usize * COMMIT_TS_ENTRY_BYTES;
            page[at..at + COMMIT_TS_ENTRY_BYTES].copy_from_slice(&entry);
            is_changed = true;
        }
    }
    Ok(is_changed)
}
