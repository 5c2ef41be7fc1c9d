//! Logs that end at different places, with tails that the next epoch throws away.
//!
//! Nodes are paused one after the other while a load runs, so that each has taken a different part of the log; then
//! the server dies. What fewer than four nodes hold may have to be cut when the next compute attaches: the counters
//! show that it happened. The nodes run with a disk that loses on `kill -9` what was not synced, since the kernel
//! would keep it.

use std::time::Duration;

use pg_quorum_tests::checks::check_everything;
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::is_full;
use pg_quorum_tests::ledger::Ledger;

#[test]
fn tails_that_diverge_are_cut_and_nothing_acknowledged_is_in_them() {
    let plan = Plan {
        node_flags: vec!["--test-lossy-disk".to_owned()],
        ..Plan::default()
    };
    let mut cluster = Cluster::start_with("divergence", plan);
    let mut ledger = Ledger::prepare(&cluster.server, 2);
    let rounds = if is_full() { 20 } else { 4 };
    for round in 0..rounds {
        let load = ledger.start(&cluster.server, 8);
        load.wait_for_progress(300, Duration::from_secs(60));
        // Pause all but one, at different moments; another one is ahead in each round. With three paused nothing
        // more is acknowledged, and those that still run get what the others never had.
        let ahead = round % 6;
        for step in 1..6 {
            cluster.pause_node((ahead + step) % 6);
            std::thread::sleep(Duration::from_millis(if step < 3 { 30 } else { 5 }));
        }
        std::thread::sleep(Duration::from_millis(100));
        cluster.burn_compute();
        // Half of the nodes lose power as well.
        let dead: Vec<usize> = (0..3).map(|step| (ahead + 2 * step + 1) % 6).collect();
        for index in &dead {
            cluster.kill_node(*index);
        }
        for index in 0..6 {
            cluster.resume_node(index);
        }
        // The new compute does not see the node that is ahead in every other round: its tail must be cut later.
        let hides_the_longest = round % 2 == 0;
        if hides_the_longest {
            cluster.pause_node(ahead);
        }
        for index in dead {
            cluster.start_node(index);
        }
        cluster.create_compute();
        cluster.start_server();
        load.wait_for_progress(50, Duration::from_secs(60));
        cluster.resume_node(ahead);
        load.wait_for_progress(50, Duration::from_secs(60));
        ledger.finish(load);
        ledger.check(&mut cluster.connect());
        cluster.wait_until_caught_up();
    }
    check_everything(&cluster.server);
    let status = cluster.status();
    let cuts: u64 = status.iter().map(|node| node.tail_cuts).sum();
    let bytes: u64 = status.iter().map(|node| node.cut_bytes).sum();
    println!("{cuts} tails were cut in {rounds} rounds, {bytes} bytes of log in all");
    assert!(
        cuts > 0,
        "no tail was ever cut: the test did not make what it is for"
    );
}

/// Every node loses power at once: what was acknowledged had been synced on four.
#[test]
fn a_power_failure_of_all_nodes_and_the_server_loses_nothing() {
    let plan = Plan {
        node_flags: vec!["--test-lossy-disk".to_owned()],
        ..Plan::default()
    };
    let mut cluster = Cluster::start_with("power-failure", plan);
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let rounds = if is_full() { 10 } else { 2 };
    for _ in 0..rounds {
        let load = ledger.start(&cluster.server, 8);
        load.wait_for_progress(500, Duration::from_secs(60));
        for index in 0..6 {
            cluster.kill_node(index);
        }
        cluster.burn_compute();
        for index in 0..6 {
            cluster.start_node(index);
        }
        cluster.create_compute();
        cluster.start_server();
        load.wait_for_progress(1, Duration::from_secs(60));
        ledger.finish(load);
        ledger.check(&mut cluster.connect());
    }
    check_everything(&cluster.server);
}
