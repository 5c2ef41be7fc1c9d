//! Ends of transactions, and prepared ones.

use bytes::Bytes;
use pg_quorum_types::{PageKey, SlruKind};
use smallvec::SmallVec;

use crate::records::{Completion, Outcome, Preparation};
use crate::slru::{CLOG_XIDS_PER_PAGE, COMMIT_TS_XIDS_PER_PAGE};
use crate::v15::kind::transaction as kind;
use crate::{Record, RedoContext, WalError};

use super::{Effects, MetaChange, origin};

/// `xact_redo`, 15.18.
pub(super) fn add(record: &Record<'_>, ctx: &RedoContext, effects: &mut Effects) -> Result<(), WalError> {
    if let Some(completion) = Completion::parse(record)? {
        add_completion(record, &completion, ctx, effects);
    } else if record.info & kind::OPERATION_MASK == kind::PREPARE {
        let preparation = Preparation::parse(record)?;
        effects.meta.push(MetaChange::TransactionPrepared {
            xid: preparation.xid,
            start: record.start,
            end: record.end,
            state: Bytes::copy_from_slice(record.main),
        });
        // PrepareRedoAdd.
        origin::add_advance(record, preparation.origin_lsn, false, effects);
    }
    // Assignments and invalidations are for standbys and decoding only.
    Ok(())
}

/// `xact_redo_commit`, `xact_redo_abort`.
fn add_completion(
    record: &Record<'_>,
    completion: &Completion<'_>,
    ctx: &RedoContext,
    effects: &mut Effects,
) {
    let mut add_pages = |kind: SlruKind, per_page: u32| {
        let mut pages: SmallVec<[u32; 4]> = completion.xids().map(|xid| xid / per_page).collect();
        pages.sort_unstable();
        pages.dedup();
        for page in pages {
            effects.push_page(PageKey::Slru { kind, page }, false);
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::redo::test_records;
    use crate::{Rmgr, effects};

    /// Transactions of one page stand together in a real record. In this one each is on another page than the one
    /// before: to look every page up among all others would take hours.
    #[test]
    fn a_commit_of_many_scattered_subtransactions_names_each_page_once() {
        const COUNT: u32 = 1 << 20;
        let mut main = 5_i64.to_le_bytes().to_vec();
        main.extend_from_slice(&2_u32.to_le_bytes()); // XACT_XINFO_HAS_SUBXACTS
        main.extend_from_slice(&COUNT.to_le_bytes());
        for number in 0..COUNT {
            let xid = number.wrapping_mul(2_654_435_769) | 8;
            main.extend_from_slice(&xid.to_le_bytes());
        }
        let record = test_records::record(Rmgr::Transaction, kind::HAS_INFO, &main, &[]);
        let ctx = RedoContext {
            track_commit_timestamp: true,
            ..RedoContext::default()
        };
        let begin = Instant::now();
        let pages = effects(&record, &ctx).unwrap().pages;
        assert!(begin.elapsed() < Duration::from_secs(20));
        let mut keys: Vec<_> = pages.iter().map(|effect| effect.key).collect();
        assert!(keys.len() > 100_000);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), pages.len());
    }
}
