//! Logs that end at different places, with tails that the next epoch throws away.
//!
//! Nodes are paused one after the other while a load runs, so that each has taken a different part of the log; then
//! the server dies, and the paused nodes die with what waited in their sockets. What fewer than four nodes hold may
//! have to be cut when the next compute attaches: the counters show that it happened. The nodes run with a disk that
//! loses on `kill -9` what was not synced, since the kernel would keep it.

use std::thread::JoinHandle;
use std::time::Duration;

use pg_quorum_tests::checks::check_everything;
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::ledger::Ledger;
use pg_quorum_tests::{is_full, sql};

/// A session that writes WAL without a commit to wait for, until its server dies: it is what makes tails grow where
/// commits do not.
fn write_without_committing(cluster: &Cluster) -> JoinHandle<()> {
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE IF NOT EXISTS never_committed (a int, b text)",
    );
    std::thread::spawn(move || {
        let endless = "DO $$ BEGIN LOOP INSERT INTO never_committed \
                       SELECT g, repeat('x', 200) FROM generate_series(1, 100) g; END LOOP; END $$";
        client
            .batch_execute(endless)
            .expect_err("the server dies before this ends");
    })
}

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
        let writer = write_without_committing(&cluster);
        std::thread::sleep(Duration::from_millis(300));
        // Pause all but one, at different moments; another one is ahead in each round. With three paused nothing
        // more is acknowledged, and the last one goes on getting what the others never had.
        let ahead = round % 6;
        let others: Vec<usize> = (1..6).map(|step| (ahead + step) % 6).collect();
        for other in &others {
            cluster.pause_node(*other);
            std::thread::sleep(Duration::from_millis(30));
        }
        std::thread::sleep(Duration::from_millis(500));
        cluster.burn_compute();
        writer.join().expect("the session that writes without committing");
        for other in &others {
            cluster.kill_node(*other);
        }
        // The new compute does not see the node that is ahead in every other round: its tail must be cut later.
        let hides_the_longest = round % 2 == 0;
        if hides_the_longest {
            cluster.pause_node(ahead);
        }
        for other in &others {
            cluster.start_node(*other);
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
        cuts >= rounds as u64 / 2,
        "a tail of a node that was hidden was not cut: the test did not make what it is for"
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
