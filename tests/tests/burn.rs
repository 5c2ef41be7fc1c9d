//! The machine with PostgreSQL burns down, in the middle of a load: `kill -9` of every process, and its data
//! directory is gone. A new one is made from the nodes, and nothing that was acknowledged is missing.

use std::time::{Duration, Instant};

use pg_quorum_tests::checks::check_everything;
use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::is_full;
use pg_quorum_tests::ledger::{Ledger, Load};

const CLIENTS: u32 = 8;

fn scale() -> i32 {
    if is_full() { 20 } else { 2 }
}

/// Lets the load run: half of the minute that a full round takes, or until something is there to lose.
fn run_for_a_while(load: &Load) {
    if is_full() {
        std::thread::sleep(Duration::from_secs(30));
    }
    load.wait_for_progress(1000, Duration::from_secs(120));
}

/// Kills the server and deletes PGDATA under load, attaches a new compute and lets the same load go on there.
fn burn_and_return(cluster: &mut Cluster, ledger: &mut Ledger, load: Load) {
    let acknowledged = load.acknowledged();
    cluster.burn_compute();
    let began = Instant::now();
    cluster.create_compute();
    cluster.start_server();
    load.wait_for_progress(1, Duration::from_secs(60));
    let back = began.elapsed();
    if is_full() {
        load.wait_for_progress(1000, Duration::from_secs(120));
    }
    ledger.finish(load);
    let log = cluster.server_log();
    assert!(
        !log.contains("redo starts at"),
        "a new compute needs no redo pass:\n{log}"
    );
    println!("{acknowledged} transactions acknowledged, then burnt; committing again after {back:.1?}");
    ledger.check(&mut cluster.connect());
}

#[test]
fn nothing_acknowledged_is_lost_when_the_compute_burns_down() {
    let mut cluster = Cluster::start("burn");
    let mut ledger = Ledger::prepare(&cluster.server, scale());
    let rounds = if is_full() { 10 } else { 2 };
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        let load = ledger.start(&cluster.server, CLIENTS);
        run_for_a_while(&load);
        burn_and_return(&mut cluster, &mut ledger, load);
        check_everything(&cluster.server);
    }
}

/// Two of six stay away: whichever four are left hold everything.
#[test]
fn any_four_nodes_are_enough_to_return_from() {
    let mut cluster = Cluster::start("subsets");
    let mut ledger = Ledger::prepare(&cluster.server, scale());
    let mut pairs: Vec<(usize, usize)> = (0..6)
        .flat_map(|one| (one + 1..6).map(move |other| (one, other)))
        .collect();
    assert_eq!(pairs.len(), 15);
    if !is_full() {
        // A whole zone, one of each of two zones, and the last ones.
        pairs.retain(|pair| [(0, 1), (1, 2), (3, 5)].contains(pair));
    }
    for (one, other) in pairs {
        println!(
            "without {} and {}",
            cluster.nodes[one].name, cluster.nodes[other].name
        );
        let load = ledger.start(&cluster.server, CLIENTS);
        run_for_a_while(&load);
        cluster.kill_node(one);
        cluster.kill_node(other);
        burn_and_return(&mut cluster, &mut ledger, load);
        check_everything(&cluster.server);
        cluster.start_node(one);
        cluster.start_node(other);
        cluster.wait_until_caught_up();
    }
}
