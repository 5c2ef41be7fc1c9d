//! Commit log: two bits for each transaction.

use crate::records::{Completion, Outcome};
use crate::redo::Page;
use crate::slru::CLOG_XIDS_PER_PAGE;
use crate::{Record, WalError};

/// `TRANSACTION_STATUS_COMMITTED`.
const COMMITTED: u8 = 0x01;
/// `TRANSACTION_STATUS_ABORTED`.
const ABORTED: u8 = 0x02;

/// `TransactionIdSetTreeStatus` (15.18) on one page. The state "subtransaction committed" that PostgreSQL
/// passes through is over when the record is.
pub(super) fn set_outcomes(record: &Record<'_>, number: u32, page: &mut Page) -> Result<bool, WalError> {
    let Some(completion) = Completion::parse(record)? else {
        return Ok(false);
    };
    let status = match completion.outcome {
        Outcome::Committed => COMMITTED,
        Outcome::Aborted => ABORTED,
    };
    let mut is_changed = false;
    for xid in completion.xids() {
        if xid / CLOG_XIDS_PER_PAGE == number {
            let index = xid % CLOG_XIDS_PER_PAGE;
            let shift = (index % 4) * 2;
            let byte = &mut page[index as usize / 4];
            *byte = *byte & !(0b11 << shift) | status << shift;
            is_changed = true;
        }
    }
    Ok(is_changed)
}
