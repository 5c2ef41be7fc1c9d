//! Rounds over all backends: when everything that ran at one moment has ended.
//!
//! A page that is written while a round is under way may have been changed by something that began behind the round's
//! beginning. The next round begins after the write: what the page awaits has ended when that one is complete.

use crate::pg::transactions::{LocalTransaction, is_running, local_transactions};
use crate::shared::SharedState;

#[derive(Debug, Default)]
pub struct BackendsRounds {
    /// What ran at the beginning of the round under way, and runs still. `None`: none has begun.
    waiting_for: Option<Vec<LocalTransaction>>,
}

impl BackendsRounds {
    /// Looks what has ended; begins the next round when nothing is left. Now and then, in one process.
    pub fn look(&mut self, state: &SharedState) {
        if let Some(waiting_for) = &mut self.waiting_for {
            waiting_for.retain(|transaction| is_running(*transaction));
            if !waiting_for.is_empty() {
                return;
            }
            state.complete_backends_round();
        }
        self.waiting_for = Some(local_transactions());
    }
}
