//! Records of the XLOG resource manager that are more than counters.

use pg_quorum_types::SlruKind;

use crate::slru::{SlruRange, SlruTruncation};
use crate::v15::kind::xlog;
use crate::v15::settings::Parameters;
use crate::{Record, RedoContext, WalError};

use super::{Effects, MetaChange};

/// `xlog_redo`, 15.18. Counters and checkpoints are the business of [`crate::CheckpointState`].
pub(super) fn add(record: &Record<'_>, ctx: &RedoContext, effects: &mut Effects) -> Result<(), WalError> {
    if record.kind() == xlog::PARAMETER_CHANGE {
        let new = Parameters::parse(&mut record.main_reader())?;
        // CommitTsParameterChange, DeactivateCommitTs.
        if ctx.track_commit_timestamp && !new.track_commit_timestamp {
            effects.meta.push(MetaChange::SlruTruncated(SlruTruncation {
                kind: SlruKind::CommitTs,
                range: SlruRange::All,
            }));
        }
    }
    Ok(())
}
