//! Ends of transactions, and prepared ones.

use pg_quorum_types::{PageKey, SlruKind};

use crate::records::{Completion, Outcome, Preparation};
use crate::slru::{CLOG_XIDS_PER_PAGE, COMMIT_TS_XIDS_PER_PAGE};
use crate::v15::kind::transaction as kind;
use crate::{Record, RedoContext, WalError};

use super::{Effects, MetaChange, origin};

/// `xact_redo`, 15.18.
pub(super) fn add(record: &Record, ctx: &RedoContext, effects: &mut Effects) -> Result<(), WalError> {
    if let Some(completion) = Completion::parse(record)? {
        add_completion(record, &completion, ctx, effects);
    } else if record.info & kind::OPERATION_MASK == kind::PREPARE {
        let preparation = Preparation::parse(record)?;
        effects.meta.push(MetaChange::TransactionPrepared {
            xid: preparation.xid,
            start: record.start,
            end: record.end,
            state: record.main.clone(),
        });
        // PrepareRedoAdd.
        origin::add_advance(record, preparation.origin_lsn, false, effects);
    }
    // Assignments and invalidations are for standbys and decoding only.
    Ok(())
}

/// `xact_redo_commit`, `xact_redo_abort`.
fn add_completion(record: &Record, completion: &Completion<'_>, ctx: &RedoContext, effects: &mut Effects) {
    let mut add_pages = |kind: SlruKind, per_page: u32| {
        for xid in completion.xids() {
            let page = xid / per_page;
            effects.add_page(PageKey::Slru { kind, page }, false);
        }
    };
    add_pages(SlruKind::Clog, CLOG_XIDS_PER_PAGE);
    if ctx.track_commit_timestamp && completion.outcome == Outcome::Committed {
        add_pages(SlruKind::CommitTs, COMMIT_TS_XIDS_PER_PAGE);
    }
    if let Some(remote) = &completion.origin {
        origin::add_advance(record, remote.remote_lsn, false, effects);
    }
    for rel in completion.dropped_relations() {
        effects.meta.push(MetaChange::RelationDropped { rel });
    }
    if completion.was_prepared {
        effects
            .meta
            .push(MetaChange::PreparedTransactionFinished { xid: completion.xid });
    }
}
