//! The worker that takes free space maps into the log while the server runs.
//!
//! What it has logged is what a start in a new directory finds: the maps as they were when checkpoints, or the want of
//! buffers, wrote them last. The rest is logged at a clean stop.

use std::time::Duration;

use crate::pg::{free_space, server, wal, worker};
use crate::settings;
use crate::shared::{self, SharedState};

/// A look at the presence table takes a few milliseconds for a terabyte of cache.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So that not much is written at once: at most 8 MB, with images that cannot be compressed.
const PAGES_PER_TURN: usize = 1000;
const TURN_PAUSE: Duration = Duration::from_millis(200);

/// The worker's life: until the server stops.
pub fn run() {
    let state = shared::state();
    while worker::pause(LOOK_EVERY) {
        if !log_written(state) {
            return;
        }
        shared::add(&state.counters.free_space_rounds, 1);
    }
}

/// Logs all that has been written of free space maps. False if the server stops meanwhile.
fn log_written(state: &SharedState) -> bool {
    let pages: Vec<_> = free_space::written().collect();
    for turn in pages.chunks(PAGES_PER_TURN) {
        while is_log_behind(state) {
            if !worker::pause(LOOK_EVERY) {
                return false;
            }
        }
        for (fork, block) in turn {
            if worker::stop_requested() {
                return false;
            }
            if let Err(error) = free_space::log_as_it_is(*fork, *block) {
                pgrx::log!("pg_quorum: could not log block {block} of the free space map {fork}: {error}");
            }
        }
        wal::flush_inserted();
        if turn.len() == PAGES_PER_TURN && !worker::pause(TURN_PAUSE) {
            return false;
        }
    }
    true
}

/// Whether whoever writes WAL waits, or is about to: hints come last.
fn is_log_behind(state: &SharedState) -> bool {
    let unshipped = server::written_lsn().0.saturating_sub(state.vdl().0);
    state.quorum_lost()
        || unshipped > settings::max_unshipped_bytes()
        || state.unindexed_bytes() > settings::max_unindexed_bytes()
}
