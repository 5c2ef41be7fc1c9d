//! One volume, two servers: the second one is refused while the first one lives, unless it is told to take over.

use std::time::Duration;

use pg_quorum_deployment::ShutdownMode;
use pg_quorum_tests::cluster::{Cluster, refused_start};
use pg_quorum_tests::ports::free_ports;
use pg_quorum_tests::{sql, wait_for};

#[test]
fn a_second_server_is_refused_while_the_first_one_lives() {
    let mut cluster = Cluster::start("second-server");
    sql::execute(
        &mut cluster.connect(),
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1)",
    );
    let second = cluster.another_compute(free_ports(1));
    let said = refused_start(&second);
    let first = cluster.server.pgdata.display().to_string();
    assert!(
        said.contains(&first),
        "the refusal does not name the owner {first}:\n{said}"
    );
    // The first one has not noticed.
    let mut client = cluster.connect();
    sql::execute(&mut client, "INSERT INTO t VALUES (2)");
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM t"), "2");
}

/// The second server takes a dead owner's volume by itself: the lease is a few seconds long.
#[test]
fn a_dead_owners_volume_is_taken_without_force() {
    let mut cluster = Cluster::start("dead-owner");
    sql::execute(
        &mut cluster.connect(),
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1)",
    );
    cluster.server.kill_everything().expect("kill the server");
    let second = cluster.another_compute(free_ports(1));
    second.start().expect("the volume's owner is dead");
    assert_eq!(
        sql::value(&mut sql::connect(&second.uri()), "SELECT a FROM t"),
        "1"
    );
}

#[test]
fn a_forced_take_over_fences_the_first_server_for_good() {
    let mut cluster = Cluster::start("force");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let first = cluster.server.clone();
    let second = cluster.another_compute(free_ports(1));
    let mut command = cluster.quorumctl();
    command.args(["failover", "--force", "-D"]).arg(&second.pgdata);
    pg_quorum_deployment::capture(&mut command).expect("quorumctl failover");
    second.start().expect("a forced take-over");

    wait_for("the first server stops", Duration::from_secs(30), || {
        first.postmaster().is_none()
    });
    let log = cluster.server_log();
    let taker = second.pgdata.display().to_string();
    assert!(
        log.contains(&taker),
        "the first server does not say that {taker} took over:\n{log}"
    );
    assert!(
        client.batch_execute("INSERT INTO t VALUES (2)").is_err(),
        "a fenced server acknowledged"
    );

    // Its machine comes back, and its unit file starts PostgreSQL: it must not take the volume back, neither from
    // the living owner nor once that one has stopped.
    refused_start(&first);
    let mut client = sql::connect(&second.uri());
    assert_eq!(
        sql::value(&mut client, "SELECT string_agg(a::text, ',') FROM t"),
        "1"
    );
    drop(client);
    second.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let said = refused_start(&first);
    assert!(
        said.contains("--force"),
        "the refusal does not say what to do:\n{said}"
    );
    second.start().expect("the owner starts again at once");
}

/// `postgres -C` runs the library's start-up code as far as the settings, beside the living server.
#[test]
fn asking_for_a_setting_fences_nobody() {
    let cluster = Cluster::start("postgres-c");
    let server = &cluster.server;
    let mut command = server.account.command(server.binaries.postgres("postgres"));
    command.args(["-C", "wal_level", "-D"]).arg(&server.pgdata);
    let answer = pg_quorum_deployment::capture(&mut command).expect("postgres -C");
    assert!(!answer.trim().is_empty());
    sql::execute(&mut cluster.connect(), "CREATE TABLE still_writable (a int)");
}

#[test]
fn a_clean_restart_is_not_a_take_over() {
    let cluster = Cluster::start("restart");
    for round in 1..=3 {
        sql::execute(&mut cluster.connect(), &format!("CREATE TABLE t{round} (a int)"));
        cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
        cluster.start_server();
    }
    let tables = sql::value(
        &mut cluster.connect(),
        "SELECT count(*) FROM pg_tables WHERE tablename ~ '^t[123]$'",
    );
    assert_eq!(tables, "3");
}
