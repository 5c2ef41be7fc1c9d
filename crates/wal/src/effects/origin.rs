//! How far replication from elsewhere has come.

use pg_quorum_types::Lsn;

use crate::v15::kind::replication_origin as kind;
use crate::{Record, WalError};

use super::{Effects, MetaChange, unknown};

/// `DoNotReplicateId`: an origin that is not tracked.
const DO_NOT_REPLICATE: u16 = u16::MAX;

/// `replorigin_redo`, 15.18.
pub(super) fn add(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    let mut reader = record.main_reader();
    match record.kind() {
        kind::SET => {
            // xl_replorigin_set: remote_lsn u64 | node_id u16 | force bool
            let remote_lsn = reader.lsn()?;
            let origin = reader.u16()?;
            let backwards = reader.bool()?;
            advance(origin, remote_lsn, record.end, backwards, effects);
        }
        kind::DROP => effects.meta.push(MetaChange::ReplicationOriginDropped {
            origin: reader.u16()?,
        }),
        _ => return Err(unknown(record)),
    }
    Ok(())
}

/// The record's own origin, if it has one, was replayed up to `remote_lsn`.
pub(super) fn add_advance(record: &Record<'_>, remote_lsn: Lsn, backwards: bool, effects: &mut Effects) {
    if let Some(origin) = record.origin {
        advance(origin, remote_lsn, record.end, backwards, effects);
    }
}

/// `replorigin_advance`.
fn advance(origin: u16, remote_lsn: Lsn, local_lsn: Lsn, backwards: bool, effects: &mut Effects) {
    if origin != DO_NOT_REPLICATE {
        effects.meta.push(MetaChange::ReplicationOriginAdvanced {
            origin,
            remote_lsn,
            local_lsn,
            backwards,
        });
    }
}
