//! What a clean stop adds to the log, so that the next start, wherever it is, has it: what pages know and no record says.

use std::collections::BTreeSet;

use pg_quorum_types::{RelFileNode, RelFork};

use crate::pg::{free_space, sequences, wal};

/// Pages that are looked at before what was written is shipped.
const PAGES_PER_TURN: usize = 1000;

/// What is still to be looked at.
#[derive(Debug)]
pub struct LastRecords {
    sequences: BTreeSet<RelFileNode>,
    free_space: BTreeSet<(RelFork, u32)>,
}

impl LastRecords {
    /// When the last ordinary backend has gone: nobody changes these pages any more.
    pub fn gather() -> LastRecords {
        LastRecords {
            sequences: sequences::candidates(),
            free_space: free_space::written_and_dirty().collect(),
        }
    }

    /// Writes some records, so that what is not shipped stays little. False when there is nothing left to do.
    pub fn write_some(&mut self) -> bool {
        if self.sequences.is_empty() && self.free_space.is_empty() {
            return false;
        }
        for _ in 0..PAGES_PER_TURN {
            if !(self.log_sequence() || self.log_free_space()) {
                break;
            }
        }
        wal::flush_inserted();
        true
    }

    fn log_sequence(&mut self) -> bool {
        let Some(rel) = self.sequences.pop_first() else {
            return false;
        };
        if let Err(error) = sequences::log_as_it_is(rel) {
            pgrx::warning!("pg_quorum: could not log where the sequence in relation {rel} stands: {error}");
        }
        true
    }

    fn log_free_space(&mut self) -> bool {
        let Some((fork, block)) = self.free_space.pop_first() else {
            return false;
        };
        if let Err(error) = free_space::log_as_it_is(fork, block) {
            pgrx::log!("pg_quorum: could not log block {block} of the free space map {fork}: {error}");
        }
        true
    }
}
