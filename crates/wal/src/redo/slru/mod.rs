//! Redo of transaction state: pages without headers.

mod clog;
mod commit_ts;
mod multixact;

use pg_quorum_types::SlruKind;

use crate::v15::kind;
use crate::{Record, RedoContext, Rmgr, WalError};

use super::Page;

/// Applies `record` to page `number` of an SLRU; false if the record does not change that page.
pub(super) fn apply(
    record: &Record<'_>,
    kind: SlruKind,
    number: u32,
    page: &mut Page,
    ctx: &RedoContext,
) -> Result<bool, WalError> {
    match (kind, record.rmgr) {
        (SlruKind::Clog, Rmgr::Transaction) => clog::set_outcomes(record, number, page),
        (SlruKind::Clog, Rmgr::Clog) if record.kind() == kind::clog::ZEROPAGE => zero(record, number, page),
        (SlruKind::CommitTs, Rmgr::Transaction) if ctx.track_commit_timestamp => {
            commit_ts::set_times(record, number, page)
        }
        (SlruKind::CommitTs, Rmgr::CommitTs) if record.kind() == kind::commit_ts::ZEROPAGE => {
            zero(record, number, page)
        }
        (SlruKind::MultiXactOffset, Rmgr::MultiXact) => multixact::apply_to_offsets(record, number, page),
        (SlruKind::MultiXactMember, Rmgr::MultiXact) => multixact::apply_to_members(record, number, page),
        _ => Ok(false),
    }
}

/// A record that says the number of a page to be made.
fn zero(record: &Record<'_>, number: u32, page: &mut Page) -> Result<bool, WalError> {
    if record.main_reader().u32()? != number {
        return Ok(false);
    }
    page.fill(0);
    Ok(true)
}
