//! Pages that a crash has left in the md files: which of them are good is asked for when one of their chunk is read.

use std::time::Instant;

use pg_quorum_types::RelFork;

use super::interrupts;
use super::presence_file::table;
use super::wait_event::WaitEvent;
use crate::cache::{BLOCKS_PER_CHUNK, Held};
use crate::link;
use crate::shared::{self, FetchError, Ticket};

const _: () = assert!(BLOCKS_PER_CHUNK == u128::BITS, "one question is about one chunk");

/// Makes those of a chunk's kept blocks present that the log has not changed, and the others absent. Ends the hold. The
/// chunk may have changed when it returns: the caller looks again.
pub fn settle(held: Held) -> Result<(), FetchError> {
    let (key, since) = (held.key(), held.kept_since());
    let seen = held.leave();
    let unchanged = match since {
        None => 0,
        Some(since) => {
            let _waiting = WaitEvent::DataFileRead.begin();
            ask(key.fork, key.chunk * BLOCKS_PER_CHUNK, since)?
        }
    };
    if let Some(held) = table().hold_for_install(seen) {
        let settled = held.settle_kept(unchanged);
        let counters = &shared::state().counters;
        shared::add(&counters.kept_good, u64::from(settled.good));
        shared::add(&counters.kept_gone, u64::from(settled.gone));
    }
    Ok(())
}

/// In a log that reaches the end of what the crash has left: every read is at or above the floor, where this server's
/// epoch begins.
fn ask(fork: RelFork, first_block: u32, since: pg_quorum_types::Lsn) -> Result<u128, FetchError> {
    let counters = &shared::state().counters;
    let lsn = shared::state().read_floor();
    let started = Instant::now();
    let asked = match Ticket::ask_unchanged(fork, first_block, since, lsn, &interrupts::may_leave) {
        Err(FetchError::LinkGone) => link::ask_unchanged_by_myself(fork, first_block, since, lsn),
        outcome => outcome,
    };
    if asked.is_err() {
        shared::add(&counters.page_errors, 1);
    } else {
        counters.page_wait.record(started.elapsed());
    }
    asked
}
