//! What the log says as a whole at some of its positions.
//!
//! The running checkpoint state changes with every record. It is kept at marks, a bounded number of
//! record ends; the state anywhere else is that of the mark before, brought forward over the records
//! between. Derived state is persisted at marks only.

use std::collections::VecDeque;

use bytes::Bytes;
use pg_quorum_types::Lsn;
use pg_quorum_wal::{CheckpointState, RedoContext};
use smallvec::{SmallVec, smallvec};

/// The state behind one record.
#[derive(Clone, PartialEq, Debug)]
pub struct Mark {
    /// End of the record.
    pub lsn: Lsn,
    /// Its first byte: the back link of what follows.
    pub last_record_start: Lsn,
    pub checkpoint: CheckpointState,
}

impl Mark {
    /// ```text
    /// lsn LE u64 | last_record_start LE u64 | CheckpointState::to_bytes
    /// ```
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.lsn.0.to_le_bytes());
        bytes.extend_from_slice(&self.last_record_start.0.to_le_bytes());
        bytes.extend_from_slice(&self.checkpoint.to_bytes());
        bytes.into()
    }

    /// The inverse of [`Mark::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Mark> {
        let long = |at: usize| Some(Lsn(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
        Some(Mark {
            lsn: long(0)?,
            last_record_start: long(8)?,
            checkpoint: CheckpointState::from_bytes(bytes.get(16..)?).ok()?,
        })
    }
}

/// Marks in LSN order. The first one is that of the persisted state.
pub struct Marks {
    marks: VecDeque<Mark>,
}

/// Above this number every second mark is dropped.
const MAX_MARKS: usize = 1024;

impl Marks {
    pub fn new(applied: Mark) -> Marks {
        Marks {
            marks: VecDeque::from([applied]),
        }
    }

    /// The mark of the persisted state.
    pub fn applied(&self) -> &Mark {
        &self.marks[0]
    }

    pub fn last(&self) -> &Mark {
        &self.marks[self.marks.len() - 1]
    }

    /// Adds a mark. When there are too many, every second one goes, but never the one at `needed`.
    pub fn push(&mut self, mark: Mark, needed: Option<Lsn>) {
        assert!(mark.lsn > self.last().lsn, "marks rise");
        if self.marks.len() >= MAX_MARKS {
            let last = self.marks.len() - 1;
            let mut index = 0;
            self.marks.retain(|mark| {
                let keeps = index == 0 || index == last || index % 2 == 0 || Some(mark.lsn) == needed;
                index += 1;
                keeps
            });
        }
        self.marks.push_back(mark);
    }

    /// The last mark at or below `at`; `None` below the persisted state.
    pub fn at_or_below(&self, at: Lsn) -> Option<&Mark> {
        let after = self.marks.partition_point(|mark| mark.lsn <= at);
        after.checked_sub(1).map(|index| &self.marks[index])
    }

    /// Forgets marks below the one at `applied`.
    pub fn forget_below(&mut self, applied: Lsn) {
        while self.marks.len() > 1 && self.marks[0].lsn < applied {
            self.marks.pop_front();
        }
    }

    /// Forgets marks above `to`.
    pub fn cut(&mut self, to: Lsn) {
        while self.marks.len() > 1 && self.last().lsn > to {
            self.marks.pop_back();
        }
    }
}

/// What redo must know beside a record, by the record's start.
#[derive(Clone, Debug)]
pub struct Contexts {
    /// From this LSN (inclusive) on. Never empty, and hardly ever more than one.
    from: SmallVec<[(Lsn, RedoContext); 1]>,
}

impl Contexts {
    pub fn new(from: Lsn, context: RedoContext) -> Contexts {
        Contexts {
            from: smallvec![(from, context)],
        }
    }

    /// Records that start at or behind `end` have `context`.
    pub fn push(&mut self, end: Lsn, context: RedoContext) {
        self.from.push((end, context));
    }

    /// The context of a record that starts at `start`.
    pub fn at(&self, start: Lsn) -> RedoContext {
        let after = self.from.partition_point(|(from, _)| *from <= start);
        self.from[after.saturating_sub(1)].1
    }

    /// Forgets what only records below `applied` need.
    pub fn forget_below(&mut self, applied: Lsn) {
        let after = self.from.partition_point(|(from, _)| *from <= applied);
        self.from.drain(..after.saturating_sub(1));
    }

    /// Forgets changes above `to`.
    pub fn cut(&mut self, to: Lsn) {
        let keep = self.from.partition_point(|(from, _)| *from <= to).max(1);
        self.from.truncate(keep);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A round of coalescing goes to a mark and takes seconds. Thinning out that came in between once took the mark
    /// away, and the round ended nowhere.
    #[test]
    fn thinning_out_leaves_the_mark_that_a_round_goes_to() {
        let mark = |lsn: u64| Mark {
            lsn: Lsn(lsn),
            last_record_start: Lsn(lsn - 1),
            checkpoint: CheckpointState::default(),
        };
        let mut marks = Marks::new(mark(8));
        for lsn in 2..400 {
            marks.push(mark(lsn * 8), None);
        }
        let target = Lsn(333 * 8);
        for lsn in 400..9000 {
            marks.push(mark(lsn * 8), Some(target));
        }
        assert!(marks.marks.len() <= MAX_MARKS + 1);
        assert_eq!(marks.at_or_below(target).map(|mark| mark.lsn), Some(target));
        marks.forget_below(target);
        assert_eq!(marks.applied().lsn, target);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let whole = Mark {
                lsn: Lsn(8),
                last_record_start: Lsn(0),
                checkpoint: CheckpointState::default(),
            }
            .to_bytes();
            let _ = Mark::from_bytes(&bytes);
            bytes.resize(whole.len(), 1);
            bytes[16] = whole[16]; // the format's version
            let mark = Mark::from_bytes(&bytes).expect("every value of a number is one");
            prop_assert_eq!(Mark::from_bytes(&mark.to_bytes()), Some(mark));
        }
    }
}
