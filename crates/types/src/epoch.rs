//! The writer's generations and the history that they leave in a log.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Lsn;

/// One generation of the volume's writer: a number, and the writer that took it.
///
/// Two writers can never own the same epoch: the UUID is drawn anew for each attempt to take a
/// volume, and the order compares the number first. The default (number 0, nil) is below every real one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch {
    pub number: u64,
    pub writer: Uuid,
}

impl Epoch {
    /// Below every epoch that a writer can take.
    pub const NONE: Epoch = Epoch {
        number: 0,
        writer: Uuid::nil(),
    };

    /// Whether this is an epoch that a writer took.
    pub fn is_some(self) -> bool {
        self.number != 0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.number, &self.writer.simple().to_string()[..8])
    }
}

/// From `start_lsn` (inclusive) on, the log's bytes are `epoch`'s, until the next entry's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub epoch: Epoch,
    pub start_lsn: Lsn,
}

/// Which epoch wrote which part of the log: strictly rising epochs, starts that never fall.
///
/// ```text
///   base            S2                 S3
///    |--- epoch 1 ---|---- epoch 2 -----|---- epoch 3 ---->
/// ```
///
/// Every epoch's start is kept, also of one that wrote nothing (then two starts are equal). The
/// part of an older epoch behind the next entry's start was cut and is not in the log.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    entries: Vec<HistoryEntry>,
}

/// The entries are not a history.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("history entry {index} ({entry:?}) does not follow the one before it ({previous:?})")]
pub struct HistoryError {
    pub index: usize,
    pub entry: HistoryEntry,
    pub previous: HistoryEntry,
}

impl History {
    /// Checks the order of the entries.
    ///
    /// # Errors
    /// An epoch that does not rise, or a start that falls.
    pub fn new(entries: Vec<HistoryEntry>) -> Result<History, HistoryError> {
        for (index, pair) in entries.windows(2).enumerate() {
            if pair[1].epoch <= pair[0].epoch || pair[1].start_lsn < pair[0].start_lsn {
                return Err(HistoryError {
                    index: index + 1,
                    entry: pair[1],
                    previous: pair[0],
                });
            }
        }
        Ok(History { entries })
    }

    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn last(&self) -> Option<HistoryEntry> {
        self.entries.last().copied()
    }

    /// The epoch whose bytes stand at `lsn`, `None` below the first entry.
    pub fn epoch_at(&self, lsn: Lsn) -> Option<Epoch> {
        let after = self.entries.partition_point(|entry| entry.start_lsn <= lsn);
        after.checked_sub(1).map(|index| self.entries[index].epoch)
    }

    /// Exclusive end of `epoch`'s part: the next entry's start, [`Lsn::MAX`] for the last one,
    /// `None` if the epoch is not in this history.
    pub fn end_of(&self, epoch: Epoch) -> Option<Lsn> {
        let index = self.entries.iter().position(|entry| entry.epoch == epoch)?;
        Some(
            self.entries
                .get(index + 1)
                .map_or(Lsn::MAX, |next| next.start_lsn),
        )
    }

    /// How many leading entries both histories share.
    pub fn common_entries(&self, other: &History) -> usize {
        self.entries
            .iter()
            .zip(&other.entries)
            .take_while(|(ours, theirs)| ours == theirs)
            .count()
    }

    /// Exclusive end of what two logs with these histories have in common, if both reached that far:
    /// the smaller of the two starts that follow the shared entries.
    pub fn common_end(&self, other: &History) -> Lsn {
        let shared = self.common_entries(other);
        if shared == 0 {
            return Lsn::INVALID;
        }
        let next_start = |history: &History| {
            history
                .entries
                .get(shared)
                .map_or(Lsn::MAX, |next| next.start_lsn)
        };
        next_start(self).min(next_start(other))
    }

    /// The first `count` entries.
    #[must_use]
    pub fn prefix(&self, count: usize) -> History {
        History {
            entries: self.entries[..count].to_vec(),
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// As [`History::new`].
    pub fn push(&mut self, entry: HistoryEntry) -> Result<(), HistoryError> {
        if let Some(previous) = self.last()
            && (entry.epoch <= previous.epoch || entry.start_lsn < previous.start_lsn)
        {
            return Err(HistoryError {
                index: self.entries.len(),
                entry,
                previous,
            });
        }
        self.entries.push(entry);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch {
            number,
            writer: Uuid::from_u128(u128::from(number)),
        }
    }

    fn history(entries: &[(u64, u64)]) -> History {
        let entry = |&(number, start)| HistoryEntry {
            epoch: epoch(number),
            start_lsn: Lsn(start),
        };
        History::new(entries.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn epoch_at_takes_the_later_of_two_equal_starts() {
        let history = history(&[(1, 100), (2, 200), (3, 200)]);
        assert_eq!(history.epoch_at(Lsn(99)), None);
        assert_eq!(history.epoch_at(Lsn(199)), Some(epoch(1)));
        assert_eq!(history.epoch_at(Lsn(200)), Some(epoch(3)));
    }

    #[test]
    fn logs_agree_up_to_the_first_start_that_differs() {
        let ours = history(&[(1, 0), (2, 50)]);
        assert_eq!(ours.common_end(&history(&[(1, 0), (3, 80)])), Lsn(50));
        assert_eq!(ours.common_end(&history(&[(1, 0), (2, 50), (4, 90)])), Lsn(90));
        assert_eq!(ours.common_end(&ours), Lsn::MAX);
        assert_eq!(ours.common_end(&history(&[(7, 0)])), Lsn::INVALID);
    }

    #[test]
    fn a_history_never_falls() {
        let entry = |number, start| HistoryEntry {
            epoch: epoch(number),
            start_lsn: Lsn(start),
        };
        assert!(History::new(vec![entry(2, 0), entry(1, 10)]).is_err());
        assert!(History::new(vec![entry(1, 10), entry(2, 0)]).is_err());
    }
}
