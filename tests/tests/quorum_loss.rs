//! Nodes die under load: two of six change nothing, a third makes commits wait, and none of it loses anything.

use std::time::{Duration, Instant};

use pg_quorum_deployment::{Settings, Signal, kill};
use pg_quorum_tests::checks::check_everything;
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::ledger::Ledger;
use pg_quorum_tests::{is_full, sql, wait_for};
use postgres::Client;

fn busy() -> Duration {
    Duration::from_secs(if is_full() { 15 } else { 2 })
}

#[test]
fn two_dead_nodes_fail_no_commit_and_a_third_only_delays_them() {
    let mut cluster = Cluster::start("quorum-loss");
    let mut ledger = Ledger::prepare(&cluster.server, 2);
    sql::execute(
        &mut cluster.connect(),
        "CREATE TABLE elsewhere AS SELECT g AS a, repeat('x', 500) AS b FROM generate_series(1, 20000) g",
    );
    cluster.restart_without_cache();
    let mut reader = cluster.connect();
    let load = ledger.start(&cluster.server, 8);
    std::thread::sleep(busy());

    cluster.kill_node(0);
    cluster.kill_node(3);
    load.wait_for_progress(500, Duration::from_secs(60));
    std::thread::sleep(busy());

    cluster.kill_node(5);
    // Commits in flight may still have been durable. Then nothing moves any more.
    let mut before = load.acknowledged();
    wait_for("commits stall", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, load.acknowledged()) == load.acknowledged()
    });
    assert_eq!(
        sql::value(&mut reader, "SELECT count(*) FROM pgbench_branches"),
        "2",
        "cached pages"
    );
    assert_eq!(
        sql::value(&mut reader, "SELECT sum(length(b)) FROM elsewhere"),
        "10000000",
        "pages at the nodes"
    );

    cluster.start_node(5);
    load.wait_for_progress(500, Duration::from_secs(60));
    cluster.start_node(0);
    cluster.start_node(3);
    std::thread::sleep(busy());
    ledger.finish(load);
    assert!(
        ledger.failed.is_empty(),
        "commits failed: {:?}",
        &ledger.failed[..ledger.failed.len().min(3)]
    );
    assert!(
        ledger.unknown.is_empty(),
        "connections broke: {:?}",
        ledger.unknown
    );
    cluster.wait_until_caught_up();
    ledger.check(&mut cluster.connect());
    check_everything(&cluster.server);
}

/// Pruning writes records, and evicting a dirty page wants them flushed: neither waits for the quorum.
#[test]
fn reads_that_prune_and_evict_never_stop_without_a_quorum() {
    let settings = Settings::default()
        .with("shared_buffers", "1MB")
        .with("pg_quorum.cache_size", "4MB")
        .with("autovacuum", "off");
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let mut cluster = Cluster::start_with("lost-quorum-reads", plan);
    let mut reader = cluster.connect();
    sql::execute(
        &mut reader,
        "CREATE EXTENSION pg_quorum; CREATE TABLE t (value int); CREATE TABLE p (a int, b text) WITH (fillfactor = 50); \
         INSERT INTO p SELECT g, repeat('x', 300) FROM generate_series(1, 40000) g; UPDATE p SET b = b || 'y'",
    );
    [0, 2, 4].into_iter().for_each(|index| cluster.kill_node(index));
    let waiting = Waiting::begin(&cluster, &mut reader, 1);
    let until = Instant::now()
        + if is_full() {
            Duration::from_mins(5)
        } else {
            Duration::from_secs(10)
        };
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    while Instant::now() < until || rounds < 3 {
        let began = Instant::now();
        let seen = sql::value(&mut reader, "SELECT count(*) || ' ' || sum(length(b)) FROM p");
        assert_eq!(seen, "40000 12040000");
        slowest = slowest.max(began.elapsed());
        rounds += 1;
    }
    println!("{rounds} scans without a quorum, the slowest took {slowest:?}");
    assert!(slowest < Duration::from_secs(60));
    assert!(!waiting.has_ended(), "a commit was acknowledged without a quorum");
    let refetched: u64 = sql::value(&mut reader, "SELECT pages_refetched FROM quorum.cache")
        .parse()
        .expect("a number");
    assert!(refetched > 2000, "{refetched} pages were fetched again");
    let undurable: u64 = sql::value(&mut reader, "SELECT undurable_bytes FROM quorum.volume")
        .parse()
        .expect("a number");
    assert!(undurable > 0, "pruning has written records");
    [0, 2, 4].into_iter().for_each(|index| cluster.start_node(index));
    wait_for("the commit goes on", Duration::from_secs(60), || {
        waiting.has_ended()
    });
    assert_eq!(sql::value(&mut reader, "SELECT value FROM t"), "1");
    check_everything(&cluster.server);
}

/// Somebody else may own the volume by then, and this server would be the last to know.
#[test]
fn reads_end_some_time_after_the_quorum_and_come_back_with_it() {
    let plan = Plan {
        settings: Settings::default().with("pg_quorum.stale_reads_timeout", "6s"),
        ..Plan::default()
    };
    let mut cluster = Cluster::start_with("stale-reads", plan);
    let mut reader = cluster.connect();
    sql::execute(&mut reader, "CREATE TABLE t AS SELECT 7 AS a");
    let mut in_transaction = cluster.connect();
    sql::execute(&mut in_transaction, "BEGIN; DECLARE c CURSOR FOR SELECT a FROM t");
    [0, 2, 4].into_iter().for_each(|index| cluster.kill_node(index));
    let refusal = |client: &mut Client, statement: &str| {
        let error = client.batch_execute(statement).err()?;
        let error = error.as_db_error().expect("the server answers");
        Some((error.code().code().to_owned(), error.message().to_owned()))
    };
    let since = Instant::now();
    wait_for("reads end", Duration::from_secs(30), || {
        refusal(&mut reader, "SELECT a FROM t").is_some()
    });
    assert!(
        since.elapsed() > Duration::from_secs(5),
        "the answers ended early"
    );
    for statement in ["SELECT a FROM t", "COPY t TO STDOUT", "TABLE pg_class"] {
        let (code, message) = refusal(&mut reader, statement).expect("a refusal");
        assert_eq!(code, "58000", "{message}");
        assert!(message.contains("no write quorum of storage nodes"), "{message}");
    }
    assert!(refusal(&mut in_transaction, "FETCH c").is_some());
    sql::execute(&mut reader, "SET pg_quorum.stale_reads_timeout = 0");
    assert_eq!(sql::value(&mut reader, "SELECT a FROM t"), "7", "told otherwise");
    sql::execute(&mut reader, "RESET pg_quorum.stale_reads_timeout");
    [0, 2, 4].into_iter().for_each(|index| cluster.start_node(index));
    wait_for("reads come back", Duration::from_secs(60), || {
        refusal(&mut reader, "SELECT a FROM t").is_none()
    });
}

/// Stock PostgreSQL ends the wait for a synchronous standby at a cancel, warns, and the transaction is visible. Here
/// that would show, and acknowledge, what a failover may take back.
#[test]
fn ending_a_session_whose_commit_waits_acknowledges_nothing_and_shows_nothing() {
    let mut cluster = Cluster::start("waiting-commit");
    sql::execute(&mut cluster.connect(), "CREATE TABLE t (a int)");
    let mut observer = cluster.connect();
    for index in [1, 2, 4] {
        cluster.kill_node(index);
    }
    let cancelled = Waiting::begin(&cluster, &mut observer, 1);
    let terminated = Waiting::begin(&cluster, &mut observer, 2);
    sql::execute(
        &mut observer,
        &format!("SELECT pg_cancel_backend({})", cancelled.pid),
    );
    sql::execute(
        &mut observer,
        &format!("SELECT pg_terminate_backend({})", terminated.pid),
    );
    kill(cancelled.pid, Signal::INT);
    let watched_since = Instant::now();
    while watched_since.elapsed() < Duration::from_secs(3) {
        assert_eq!(
            sql::value(&mut observer, "SELECT count(*) FROM t"),
            "0",
            "not durable, and visible"
        );
        assert!(!cancelled.has_ended(), "the cancelled COMMIT returned");
        assert!(!terminated.has_ended(), "the terminated COMMIT returned");
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.start_node(1);
    // Once durable, a COMMIT has happened: saying so, or ending the connection, are both true.
    cancelled.thread.join().expect("the cancelled client");
    terminated.thread.join().expect("the terminated client");
    wait_for(
        "both rows are visible when they are durable",
        Duration::from_secs(30),
        || sql::value(&mut observer, "SELECT count(*) FROM t") == "2",
    );
}

/// A client whose COMMIT waits for the quorum.
struct Waiting {
    pid: u32,
    thread: std::thread::JoinHandle<()>,
}

impl Waiting {
    fn begin(cluster: &Cluster, observer: &mut Client, value: i32) -> Waiting {
        let mut client = cluster.connect();
        let pid: u32 = sql::value(&mut client, "SELECT pg_backend_pid()")
            .parse()
            .expect("a pid");
        let thread = std::thread::spawn(move || {
            // Either outcome is right; when it comes is what the test looks at.
            let _ = client.batch_execute(&format!("INSERT INTO t VALUES ({value})"));
        });
        wait_for("the COMMIT waits for the quorum", Duration::from_secs(30), || {
            let wait = format!("SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = {pid}");
            sql::value(observer, &wait) == "SyncRep"
        });
        Waiting { pid, thread }
    }

    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The same wait guards COMMIT PREPARED and PREPARE TRANSACTION, and `synchronous_commit = local` is no way round it;
/// `off` is none for two-phase commit, which stock PostgreSQL flushes in any case.
#[test]
fn no_kind_of_commit_is_acknowledged_without_a_quorum() {
    let mut cluster = Cluster::start_with(
        "commit-kinds",
        pg_quorum_tests::cluster::Plan {
            settings: pg_quorum_deployment::Settings::default().with("max_prepared_transactions", 10),
            ..Default::default()
        },
    );
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int)");
    for name in ["one", "three"] {
        sql::execute(
            &mut client,
            &format!("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '{name}'"),
        );
    }
    for index in [0, 2, 5] {
        cluster.kill_node(index);
    }
    let statements = [
        ("on", "COMMIT PREPARED 'one'"),
        ("on", "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'two'"),
        ("local", "INSERT INTO t VALUES (3)"),
        ("off", "COMMIT PREPARED 'three'"),
        (
            "off",
            "BEGIN; INSERT INTO t VALUES (4); PREPARE TRANSACTION 'four'",
        ),
        ("off", "CREATE DATABASE d"),
    ];
    let threads: Vec<_> = statements
        .map(|(level, statement)| {
            let mut client = cluster.connect();
            sql::execute(&mut client, &format!("SET synchronous_commit = {level}"));
            (
                statement,
                std::thread::spawn(move || sql::execute(&mut client, statement)),
            )
        })
        .into();
    std::thread::sleep(Duration::from_secs(2));
    for (statement, thread) in &threads {
        assert!(
            !thread.is_finished(),
            "acknowledged without a quorum: {statement}"
        );
    }
    cluster.start_node(2);
    for (_, thread) in threads {
        thread
            .join()
            .expect("the statement succeeds once there is a quorum");
    }
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM t"), "3");
}
