//! The checks are checked: a stock server passes them, and each of them notices what it is for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use pg_quorum_deployment::ShutdownMode;
use pg_quorum_tests::checks::{assert_same_dump, check_amcheck, check_everything, check_index_scans, dump};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::ledger::Ledger;
use pg_quorum_tests::sql;

fn stock(name: &str) -> Cluster {
    let cluster = Cluster::stopped(name, Plan::default());
    cluster.make_stock_cluster(&[]);
    cluster.start_server();
    cluster
}

#[track_caller]
fn assert_notices(what: &str, check: impl FnOnce()) {
    let noticed = catch_unwind(AssertUnwindSafe(check)).is_err();
    assert!(noticed, "the check does not notice {what}");
}

#[test]
fn a_stock_server_passes_every_check_and_loses_nothing_in_a_crash() {
    let cluster = stock("stock");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let load = ledger.start(&cluster.server, 4);
    load.wait_for_progress(300, Duration::from_secs(60));
    cluster.server.kill_everything().expect("kill the server");
    cluster.start_server();
    load.wait_for_progress(300, Duration::from_secs(60));
    ledger.finish(load);
    assert!(ledger.acknowledged.len() >= 600);
    ledger.check(&mut cluster.connect());
    check_everything(&cluster.server);
    assert_same_dump(&dump(&cluster.server), &dump(&cluster.server));
}

#[test]
fn the_ledger_notices_what_is_lost_made_up_or_out_of_balance() {
    let cluster = stock("mutants");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let load = ledger.start(&cluster.server, 2);
    load.wait_for_progress(50, Duration::from_secs(60));
    ledger.finish(load);
    for (what, damage) in [
        ("a lost transaction", "DELETE FROM ledger WHERE seq = 3"),
        ("a made-up transaction", "INSERT INTO ledger VALUES (99, 1, 0)"),
        (
            "a lost balance",
            "UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1",
        ),
        (
            "a lost history row",
            "DELETE FROM pgbench_history WHERE ctid IN (SELECT min(ctid) FROM pgbench_history)",
        ),
    ] {
        let mut client = cluster.connect();
        sql::execute(&mut client, "BEGIN");
        sql::execute(&mut client, damage);
        assert_notices(what, || ledger.check(&mut client));
        sql::execute(&mut client, "ROLLBACK");
    }
    ledger.check(&mut cluster.connect());
}

#[test]
fn the_checks_notice_an_index_that_is_older_than_its_table() {
    let cluster = stock("old-page");
    sql::execute(
        &mut cluster.connect(),
        "CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g; CHECKPOINT",
    );
    let path = sql::value(&mut cluster.connect(), "SELECT pg_relation_filepath('t_pkey')");
    let file = cluster.server.pgdata.join(path);
    let old = std::fs::read(&file).expect("read the index");
    sql::execute(
        &mut cluster.connect(),
        "INSERT INTO t SELECT g, 'x' FROM generate_series(1001, 1100) g",
    );
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    std::fs::write(&file, old).expect("write the index");
    cluster.start_server();
    assert_notices("index entries that are gone", || check_amcheck(&cluster.server));
    let mut client = cluster.connect();
    assert_notices("rows that an index scan does not find", || {
        check_index_scans(&mut client)
    });
}
