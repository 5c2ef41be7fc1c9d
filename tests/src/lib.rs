//! Support for the whole-system tests in `tests/tests`: a cluster in a scratch directory, a client that records what
//! was acknowledged to it, and the checks that follow a disaster.
//!
//! Each test starts its own nodes and server. `PG_QUORUM_TEST_FULL=1` (`cargo xtask test SUITE --full`) makes them
//! run every round; `PG_QUORUM_TEST_PORT_BASE` moves the ports; `PG_QUORUM_TEST_DIR` moves the scratch directories;
//! `PG_QUORUM_TEST_SEED` repeats the decisions of a suite that prints its seed.

pub mod checks;
pub mod cluster;
pub mod eviction;
pub mod fork;
pub mod ledger;
pub mod lone_node;
pub mod ports;
pub mod postgres_tests;
pub mod scratch;
pub mod sql;
pub mod status;
pub mod volume;
pub mod wal_files;

use std::time::{Duration, Instant};

/// Whether the tests run at full length.
pub fn is_full() -> bool {
    std::env::var_os("PG_QUORUM_TEST_FULL").is_some_and(|value| value != "0" && !value.is_empty())
}

/// Polls until the condition holds.
///
/// # Panics
/// It does not hold in time; `what` says what was waited for.
pub fn wait_for(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
