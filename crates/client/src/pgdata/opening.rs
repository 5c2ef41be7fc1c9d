//! The checkpoint record that a directory opens behind, and the `pg_control` that names it.

use std::time::{SystemTime, UNIX_EPOCH};

use pg_quorum_types::{ClusterFacts, Lsn};
use pg_quorum_wal::{ControlFile, RawRecord, Record, WalError};

use super::failure::{Failure, Result};

/// What a server needs to start as after a clean shutdown.
#[derive(Debug)]
pub struct Opening {
    /// Says "shut down" at `record`.
    pub control: ControlFile,
    /// The shutdown checkpoint, which follows the log.
    pub record: RawRecord,
}

impl Opening {
    /// Behind a log that ends at `end` with the record that starts at `last_record_lsn`. `control_file` is the volume's
    /// as of there.
    ///
    /// # Errors
    /// The volume's `pg_control` cannot be used, or no record ends at `end`.
    pub fn behind(
        control_file: &[u8],
        facts: &ClusterFacts,
        end: Lsn,
        last_record_lsn: Lsn,
    ) -> Result<Opening> {
        let mut control = ControlFile::parse(control_file)
            .map_err(|error| Failure::new(format!("the volume's pg_control cannot be used: {error}")))?;
        let mut state = control.checkpoint_state();
        let record = state
            .epoch_start_record(facts, end, last_record_lsn, unix_time())
            .and_then(|record| {
                state.track(&Record::decode(&record)?)?;
                Ok(record)
            })
            .map_err(|error: WalError| Failure::new(format!("no server can begin at {end}: {error}")))?;
        control.set_shut_down_at(&state, record.start);
        Ok(Opening { control, record })
    }
}

#[expect(clippy::disallowed_methods, reason = "a checkpoint's time is for people")]
fn unix_time() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}
