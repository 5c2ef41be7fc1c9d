//! Which log a new epoch goes on with.

use pg_quorum_types::{Base, ClusterFacts, Epoch, History, HistoryEntry, Lsn, SegmentId};

use crate::segment::Granted;

/// The log that a new epoch goes on with: everything that was ever acknowledged is in it, since a write
/// quorum acknowledged it and a write quorum answered, and two of those have a segment in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChosenLog {
    /// Whose log it is.
    pub source: SegmentId,
    /// Its history up to its SCL.
    pub history: History,
    /// Its SCL: where the new epoch starts.
    pub start_lsn: Lsn,
    pub base: Base,
    pub facts: ClusterFacts,
}

impl ChosenLog {
    /// The history to start `epoch` with.
    ///
    /// # Errors
    /// `epoch` is not above the log's last one.
    pub fn start_history(&self, epoch: Epoch) -> Result<History, ChooseError> {
        let mut history = self.history.clone();
        let entry = HistoryEntry {
            epoch,
            start_lsn: self.start_lsn,
        };
        history.push(entry).map_err(|_| ChooseError::EpochTooLow {
            epoch,
            last: history.last().map_or(Epoch::NONE, |last| last.epoch),
        })?;
        Ok(history)
    }
}

/// The promises contradict each other: a protocol error, never a matter of timing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChooseError {
    #[error("segment {segment} has a log but no base")]
    NoBase { segment: SegmentId },
    #[error("epoch {epoch} is not above the log's last epoch {last}")]
    EpochTooLow { epoch: Epoch, last: Epoch },
    #[error("the log that was chosen ends at {start_lsn}, but segment {segment} knows {vdl} to be durable")]
    DurableLost {
        segment: SegmentId,
        vdl: Lsn,
        start_lsn: Lsn,
    },
}

/// Chooses among the promises of a write quorum: the highest last epoch, then the highest SCL.
///
/// `None`: no segment has a log, the volume is still empty. (Then no Start can have reached a write quorum,
/// and nothing was ever acknowledged.)
///
/// # Errors
/// Promises that cannot all be true.
pub fn choose_log<'a>(
    promises: impl Iterator<Item = (SegmentId, &'a Granted)> + Clone,
) -> Result<Option<ChosenLog>, ChooseError> {
    let last_epoch = |granted: &Granted| granted.history.epoch_at(granted.scl).unwrap_or(Epoch::NONE);
    let best = promises
        .clone()
        .filter(|(_, granted)| !granted.history.is_empty())
        .max_by_key(|(segment, granted)| (last_epoch(granted), granted.scl, *segment));
    let Some((source, granted)) = best else {
        return Ok(None);
    };
    let (Some(base), Some(facts)) = (granted.base, granted.facts) else {
        return Err(ChooseError::NoBase { segment: source });
    };
    let reached = granted
        .history
        .entries()
        .partition_point(|entry| entry.start_lsn <= granted.scl);
    let chosen = ChosenLog {
        source,
        history: granted.history.prefix(reached),
        start_lsn: granted.scl,
        base,
        facts,
    };
    for (segment, granted) in promises {
        if granted.vdl > chosen.start_lsn {
            return Err(ChooseError::DurableLost {
                segment,
                vdl: granted.vdl,
                start_lsn: chosen.start_lsn,
            });
        }
    }
    Ok(Some(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_quorum_types::Membership;
    use uuid::Uuid;

    fn epoch(number: u64) -> Epoch {
        Epoch {
            number,
            writer: Uuid::from_u128(number.into()),
        }
    }

    fn granted(history: &[(u64, u64)], scl: u64) -> Granted {
        let entry = |&(number, start)| HistoryEntry {
            epoch: epoch(number),
            start_lsn: Lsn(start),
        };
        Granted {
            history: History::new(history.iter().map(entry).collect()).unwrap(),
            scl: Lsn(scl),
            base: Some(Base {
                id: Uuid::nil(),
                lsn: Lsn(100),
            }),
            vdl: Lsn(100),
            membership: Membership {
                version: 1,
                members: Vec::new(),
            },
            facts: Some(ClusterFacts {
                system_identifier: 1,
                timeline: 1,
                wal_segment_bytes: 16 << 20,
                data_checksums: false,
                pg_control_version: 1300,
                catalog_version: 1,
                pg_major: 15,
            }),
        }
    }

    fn choose(promises: &[Granted]) -> Result<Option<ChosenLog>, ChooseError> {
        let named = promises
            .iter()
            .enumerate()
            .map(|(index, granted)| (SegmentId(Uuid::from_u128(index as u128)), granted));
        choose_log(named)
    }

    #[test]
    fn the_highest_last_epoch_beats_a_longer_log() {
        let old_and_long = granted(&[(1, 100)], 900);
        let new_and_short = granted(&[(1, 100), (2, 300)], 300);
        let chosen = choose(&[old_and_long, new_and_short]).unwrap().unwrap();
        assert_eq!(chosen.source, SegmentId(Uuid::from_u128(1)));
        assert_eq!(chosen.start_lsn, Lsn(300));
    }

    #[test]
    fn of_one_epoch_the_longest_log_is_chosen() {
        let promises = [
            granted(&[(1, 100)], 200),
            granted(&[(1, 100)], 400),
            granted(&[(1, 100)], 300),
        ];
        let chosen = choose(&promises).unwrap().unwrap();
        assert_eq!(chosen.start_lsn, Lsn(400));
        let history = chosen.start_history(epoch(2)).unwrap();
        assert_eq!(history.last().unwrap().start_lsn, Lsn(400));
        assert!(chosen.start_history(epoch(1)).is_err());
    }

    #[test]
    fn without_any_log_the_volume_is_empty() {
        assert_eq!(choose(&[granted(&[], 100), granted(&[], 0)]), Ok(None));
    }

    #[test]
    fn a_log_that_misses_what_is_durable_is_never_chosen() {
        let mut witness = granted(&[(1, 100)], 200);
        witness.vdl = Lsn(500);
        assert!(matches!(
            choose(&[witness, granted(&[(1, 100)], 400)]),
            Err(ChooseError::DurableLost { .. })
        ));
    }
}
