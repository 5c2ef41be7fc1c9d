//! Processes that must not do what others do, and what a data directory brings along from before.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use pg_quorum_deployment::{Settings, ShutdownMode, Signal, kill};
use pg_quorum_tests::checks::check_everything;
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::{eviction, sql};

use super::small_cluster;

/// What makes and unmakes relations, and reads pages that have to be fetched.
const CHANGES: &str = "CREATE TABLE changes AS SELECT g, repeat('x', 200) AS x FROM generate_series(1, 3000) g; \
                       CREATE INDEX ON changes (g); VACUUM FULL changes; DROP TABLE changes";

fn threads_of(process: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    threads.expect("a number of threads").trim().to_owned()
}

/// It would wait for itself: for pages of the catalog, or for somebody who waits for it. And what is forked from a process
/// with threads may find their locks held for ever.
#[test]
fn the_link_worker_takes_no_lock_and_the_postmaster_has_no_thread() {
    let cluster = small_cluster("link-worker");
    let mut observer = cluster.connect();
    let postmaster = cluster.server.postmaster().expect("the server runs");
    let worker = cluster.link_worker();
    let locks = format!("SELECT count(*) FROM pg_locks WHERE pid = {worker}");
    let in_databases = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE pid = {worker} AND (datid IS NOT NULL OR backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)"
    );
    let mut client = cluster.connect();
    let load = std::thread::spawn(move || {
        for _ in 0..10 {
            // One by one: VACUUM is no part of a transaction.
            CHANGES
                .split(';')
                .for_each(|statement| sql::execute(&mut client, statement));
            eviction::evict(&mut client, None);
        }
    });
    let mut looks = 0;
    while !load.is_finished() {
        assert_eq!(sql::value(&mut observer, &locks), "0");
        assert_eq!(sql::value(&mut observer, &in_databases), "0");
        assert_eq!(threads_of(postmaster), "1");
        looks += 1;
    }
    load.join().expect("the load");
    assert!(looks > 20, "{looks} looks only");

    // Nor does it end for a signal that is no shutdown.
    kill(worker, Signal::TERM);
    CHANGES
        .split(';')
        .for_each(|statement| sql::execute(&mut observer, statement));
    assert_eq!(cluster.server.postmaster(), Some(postmaster));
    assert_eq!(cluster.link_worker(), worker);
}

/// Files of a server that was killed: an exported snapshot, WAL half made, statistics of some earlier time.
const LEFT_BEHIND: [&str; 3] = [
    "pg_snapshots/00000003-0000001B-1",
    "pg_wal/xlogtemp.4711",
    "pg_stat/pgstat.stat",
];

fn leave_files_behind(cluster: &Cluster) {
    for file in LEFT_BEHIND {
        fs::write(cluster.server.pgdata.join(file), "of before").expect("write into the data directory");
    }
}

fn assert_nothing_is_left_behind(cluster: &Cluster) {
    for file in LEFT_BEHIND {
        assert!(!cluster.server.pgdata.join(file).exists(), "{file}");
    }
}

/// A slot outlives a crash, as with stock PostgreSQL. Once another compute has written, its positions mean nothing.
#[test]
fn slots_and_leftovers_of_before_another_epoch_are_gone() {
    let settings = eviction::few_buffers().with("wal_level", "logical");
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let mut cluster = Cluster::start_with("slots-of-before", plan);
    let slots = "SELECT count(*) FROM pg_replication_slots";
    let make_slot = "SELECT slot_name FROM pg_create_logical_replication_slot('s', 'test_decoding')";
    let changes =
        "SELECT count(*) FROM pg_logical_slot_get_changes('s', NULL, NULL) WHERE data LIKE '%INSERT%'";
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int)");
    sql::value(&mut client, make_slot);
    sql::execute(&mut client, "INSERT INTO t VALUES (1)");
    drop(client);

    cluster.server.kill_everything().expect("kill the server");
    leave_files_behind(&cluster);
    cluster.start_server();
    assert_nothing_is_left_behind(&cluster);
    let mut client = cluster.connect();
    assert_eq!(sql::value(&mut client, slots), "1");
    assert_eq!(sql::value(&mut client, changes), "1");
    drop(client);

    cluster.server.kill_everything().expect("kill the server");
    leave_files_behind(&cluster);
    cluster.lend_to_another_compute("INSERT INTO t VALUES (2)");
    cluster.start_server();
    assert_nothing_is_left_behind(&cluster);
    let mut client = cluster.connect();
    assert_eq!(sql::value(&mut client, slots), "0");
    sql::value(&mut client, make_slot);
    sql::execute(&mut client, "INSERT INTO t VALUES (3)");
    assert_eq!(sql::value(&mut client, changes), "1");
    assert_eq!(sql::value(&mut client, "SELECT sum(a) FROM t"), "6");
    drop(client);
    check_everything(&cluster.server);
}

/// Settings that redo depends on are in the log (`XLogReportParameters`), and nodes keep what they mean: times of commits.
#[test]
fn settings_that_the_log_carries_are_followed_by_the_nodes() {
    let mut cluster = small_cluster("parameters");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int); INSERT INTO t VALUES (0)");
    drop(client);
    let more = Settings::default()
        .with("track_commit_timestamp", "on")
        .with("wal_log_hints", "on")
        .with("max_prepared_transactions", 20);
    let configure = |cluster: &Cluster| {
        let configured = cluster.server.configure(&more);
        configured.expect("write postgresql.conf");
    };
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    configure(&cluster);
    cluster.start_server();
    let mut client = cluster.connect();
    sql::execute(&mut client, "INSERT INTO t VALUES (1)");
    for number in 0..15 {
        let prepare = format!("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'p{number}'");
        sql::execute(&mut client, &prepare);
    }
    let time = "SELECT pg_xact_commit_timestamp(xmin) FROM t WHERE a = 1";
    let committed = sql::value(&mut client, time);
    assert_ne!(committed, "");
    drop(client);
    for _ in 0..2 {
        cluster.burn_compute();
        cluster.create_compute();
        configure(&cluster);
        cluster.start_server();
        let mut client = cluster.connect();
        assert_eq!(sql::value(&mut client, time), committed);
        let prepared = sql::value(&mut client, "SELECT count(*) FROM pg_prepared_xacts");
        assert_eq!(prepared, "15");
    }
    check_everything(&cluster.server);
}

/// `pg_prewarm` in its modes `read` and `prefetch` asks the storage manager beside the buffers, which may hold, and write
/// out, a newer page meanwhile.
#[test]
fn what_is_read_beside_the_buffers_is_never_installed_over_a_newer_page() {
    const ROWS: u64 = 4000;
    const ROUNDS: u64 = 20;
    let cluster = small_cluster("read-beside");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        &format!(
            "CREATE TABLE t (a int PRIMARY KEY, n int, x text) WITH (fillfactor = 50); \
             INSERT INTO t SELECT g, 0, repeat('x', 500) FROM generate_series(1, {ROWS}) g"
        ),
    );
    let refetched = eviction::cache(&mut client, "pages_refetched");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = cluster.connect();
            while !is_done.load(Ordering::Relaxed) {
                eviction::evict(&mut reader, Some("t"));
                sql::value(
                    &mut reader,
                    "SELECT pg_prewarm('t', 'prefetch') + pg_prewarm('t', 'read')",
                );
            }
        });
        for round in 1..=ROUNDS {
            sql::execute(&mut client, "UPDATE t SET n = n + 1");
            let right = format!("SELECT count(*) FROM t WHERE n = {round}");
            assert_eq!(sql::value(&mut client, &right), ROWS.to_string());
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let refetched = eviction::cache(&mut client, "pages_refetched") - refetched;
    assert!(refetched > 1000, "{refetched} pages were fetched again");
    drop(client);
    check_everything(&cluster.server);
}
