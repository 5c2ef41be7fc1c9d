//! Every way in which a server can end, and the start after it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pg_quorum_deployment::{Settings, ShutdownMode, Signal, descendants, kill, wait_until_reaped};
use pg_quorum_tests::checks::{assert_same_dump, check_everything, dump};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::ledger::Ledger;
use pg_quorum_tests::{sql, wait_for};

#[test]
fn data_is_intact_after_every_shutdown_mode() {
    let cluster = Cluster::start("shutdown-modes");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    for mode in [ShutdownMode::Fast, ShutdownMode::Smart, ShutdownMode::Immediate] {
        let load = ledger.start(&cluster.server, 4);
        load.wait_for_progress(200, Duration::from_secs(60));
        if mode == ShutdownMode::Smart {
            // A smart shutdown waits for the clients to leave by themselves.
            ledger.finish(load);
            cluster.server.stop(mode).expect("pg_ctl stop");
        } else {
            cluster.server.stop(mode).expect("pg_ctl stop");
            ledger.finish(load);
        }
        cluster.start_server();
        ledger.check(&mut cluster.connect());
    }
    check_everything(&cluster.server);
}

/// The last record of a shutdown is its checkpoint, written when the link worker has gone. If it stayed local, the
/// next attach would go back behind what the server said it had finished with.
#[test]
fn no_wal_is_missing_at_the_nodes_after_a_clean_stop() {
    let cluster = Cluster::start("shutdown-wal");
    for mode in [ShutdownMode::Fast, ShutdownMode::Smart] {
        sql::execute(
            &mut cluster.connect(),
            "CREATE TABLE IF NOT EXISTS t (a int); INSERT INTO t VALUES (1)",
        );
        cluster.server.stop(mode).expect("pg_ctl stop");
        let end = cluster.end_of_local_wal();
        wait_for(
            "four nodes hold the shutdown checkpoint",
            Duration::from_secs(10),
            || cluster.status().iter().filter(|node| node.scl >= end).count() >= 4,
        );
        cluster.start_server();
    }
}

#[test]
fn killing_one_backend_ends_in_an_attach_with_the_data_intact() {
    let cluster = Cluster::start("backend-crash");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let load = ledger.start(&cluster.server, 4);
    load.wait_for_progress(200, Duration::from_secs(60));
    let mut victim = cluster.connect();
    let pid: u32 = sql::value(&mut victim, "SELECT pg_backend_pid()")
        .parse()
        .expect("a pid");
    kill(pid, Signal::KILL);
    load.wait_for_progress(200, Duration::from_secs(60));
    ledger.finish(load);
    ledger.check(&mut cluster.connect());
    check_everything(&cluster.server);
}

#[test]
fn killing_the_link_worker_ends_in_an_attach_with_the_data_intact() {
    let cluster = Cluster::start("link-crash");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let load = ledger.start(&cluster.server, 4);
    load.wait_for_progress(200, Duration::from_secs(60));
    kill(cluster.link_worker(), Signal::KILL);
    load.wait_for_progress(200, Duration::from_secs(60));
    ledger.finish(load);
    ledger.check(&mut cluster.connect());
    check_everything(&cluster.server);
}

/// A fast stop must not wait for ever for a quorum that is away. What waits then is not acknowledged: it is there
/// afterwards or it is not, and the client was told neither.
#[test]
fn a_fast_stop_without_a_quorum_ends_and_acknowledges_nothing() {
    let settings = Settings::default().with("pg_quorum.shutdown_timeout", "3s");
    let mut cluster = Cluster::start_with(
        "stop-without-quorum",
        Plan {
            settings,
            ..Plan::default()
        },
    );
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let load = ledger.start(&cluster.server, 4);
    load.wait_for_progress(200, Duration::from_secs(60));
    for index in [0, 2, 4] {
        cluster.kill_node(index);
    }
    let mut before = load.acknowledged();
    wait_for("commits stall", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, load.acknowledged()) == load.acknowledged()
    });
    let began = Instant::now();
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "the stop took {took:?}");
    ledger.finish(load);
    assert_eq!(
        before,
        ledger.acknowledged.len() as u64,
        "acknowledged without a quorum"
    );
    for index in [0, 2, 4] {
        cluster.start_node(index);
    }
    cluster.start_server();
    ledger.check(&mut cluster.connect());
    check_everything(&cluster.server);
}

/// Walsenders wait until what they send has arrived, and send the shutdown checkpoint as well: they end, too.
#[test]
fn a_fast_stop_with_replication_clients_and_without_a_quorum_ends() {
    let settings = Settings::default()
        .with("wal_level", "logical")
        .with("pg_quorum.shutdown_timeout", "3s");
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let mut cluster = Cluster::start_with("stop-with-walsenders", plan);
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let mut client = cluster.connect();
    sql::value(
        &mut client,
        "SELECT lsn FROM pg_create_logical_replication_slot('s', 'test_decoding')",
    );
    let received = tempfile::tempdir().expect("make a directory");
    let replication_client = |program: &str, arguments: &[&str]| {
        Command::new(cluster.server.binaries.postgres(program))
            .args(["--no-loop", "--dbname", &cluster.server.uri()])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a client of PostgreSQL")
    };
    let directory = received.path().display().to_string();
    let mut clients = [
        replication_client(
            "pg_recvlogical",
            &["--slot", "s", "--start", "--file", "/dev/null"],
        ),
        replication_client("pg_receivewal", &["--directory", &directory]),
    ];
    wait_for("both stream", Duration::from_secs(60), || {
        sql::value(
            &mut client,
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'",
        ) == "2"
    });
    drop(client);
    let load = ledger.start(&cluster.server, 4);
    load.wait_for_progress(200, Duration::from_secs(60));
    (0..3).for_each(|index| cluster.kill_node(index));
    let began = Instant::now();
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "the stop took {took:?}");
    ledger.finish(load);
    for client in &mut clients {
        wait_for("a receiver ends with its server", Duration::from_secs(10), || {
            client.try_wait().expect("look after a child").is_some()
        });
    }
    (0..3).for_each(|index| cluster.start_node(index));
    cluster.start_server();
    ledger.check(&mut cluster.connect());
    check_everything(&cluster.server);
}

/// Sessions that wait for the log's copies with locks, and others that wait for those locks: no process is left that keeps a
/// new server from its start.
#[test]
fn nobody_outlives_a_killed_postmaster() {
    let plan = Plan {
        settings: Settings::default().with("pg_quorum.max_unshipped_wal", "64MB"),
        ..Plan::default()
    };
    let cluster = Cluster::start_with("postmaster-killed", plan);
    let mut client = cluster.connect();
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'LWLock' AND query LIKE '%emit%'";
    assert_eq!(sql::value(&mut client, waits), "0");
    for node in 0..cluster.nodes.len() {
        cluster.pause_node(node);
    }
    let uri = cluster.server.uri();
    let sessions: Vec<_> = (0..6)
        .map(|_| {
            let mut session = sql::connect(&uri);
            std::thread::spawn(move || {
                let much = "SELECT pg_logical_emit_message(true, 'x', repeat('x', 1 << 20)) FROM generate_series(1, 200)";
                session.simple_query(much).expect_err("nothing is acknowledged")
            })
        })
        .collect();
    wait_for("sessions wait for a lock", Duration::from_secs(60), || {
        sql::value(&mut client, waits) != "0"
    });
    let postmaster = cluster.server.postmaster().expect("the server runs");
    let children = descendants(postmaster);
    assert!(children.len() > 10, "{children:?}");
    kill(postmaster, Signal::KILL);
    for child in children {
        assert!(
            wait_until_reaped(child, Duration::from_secs(10)),
            "{child} is left"
        );
    }
    for session in sessions {
        session.join().expect("a session");
    }
    for node in 0..cluster.nodes.len() {
        cluster.resume_node(node);
    }
    cluster.start_server();
    check_everything(&cluster.server);
}

/// Sequences in the middle of their logged range included: a clean stop logs where they stand. After that the machine
/// may burn without a stop; only values taken since then could be skipped.
#[test]
fn a_dump_is_the_same_after_pgdata_is_deleted() {
    let mut cluster = Cluster::start("dump");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE ROLE somebody; CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text, b bytea); \
         INSERT INTO t (a, b) SELECT md5(g::text), decode(repeat(md5(g::text), 200), 'hex') FROM generate_series(1, 2000) g; \
         CREATE INDEX ON t (a); CREATE SEQUENCE s; SELECT nextval('s') FROM generate_series(1, 100); \
         CREATE MATERIALIZED VIEW m AS SELECT a FROM t WHERE id % 7 = 0; \
         SELECT lo_from_bytea(0, 'a large object'); COMMENT ON TABLE t IS 'kept'; \
         DELETE FROM t WHERE id % 5 = 0; UPDATE t SET a = a || 'x' WHERE id % 3 = 0",
    );
    sql::execute(&mut client, "CREATE DATABASE other");
    sql::execute(&mut client, "VACUUM");
    drop(client);
    let before = dump(&cluster.server);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    for _ in 0..2 {
        cluster.burn_compute();
        cluster.create_compute();
        cluster.start_server();
        assert_same_dump(&before, &dump(&cluster.server));
    }
}
