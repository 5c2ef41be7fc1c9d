//! What systems of this kind have got wrong: state beside the pages, and pages beside the log.
//!
//! Each test does it on a server with hardly any buffers, sees its pages go and come back, lets the machine burn, and
//! looks again.

mod files;
mod free_space;
mod full_disk;
mod page_headers;
mod processes;
mod truncation;
mod wraparound;

use std::time::{Duration, Instant};

use pg_quorum_deployment::{Server, Settings, ShutdownMode};
use pg_quorum_tests::checks::{assert_same_dump, check_everything, dump};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::ports::free_ports;
use pg_quorum_tests::{eviction, is_full, sql, wait_for};

fn small_cluster(name: &str) -> Cluster {
    let settings = eviction::few_buffers()
        .with("autovacuum", "on")
        .with("max_prepared_transactions", 10);
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let cluster = Cluster::start_with(name, plan);
    eviction::prepare(&mut cluster.connect());
    cluster
}

/// The machine burns, and the volume is served from a new directory.
fn burn(cluster: &mut Cluster) {
    cluster.burn_compute();
    cluster.create_compute();
    cluster.start_server();
}

/// Pages that a dump reads at the least: those of the filler are among them.
const PAGES_OF_A_DUMP: u64 = 500;

/// What a dump shows survives the eviction of every page, and the machine; so do PostgreSQL's own consistency checks.
fn assert_survives_a_burnt_machine(cluster: &mut Cluster) {
    let before = eviction::assert_same_after_eviction(&mut cluster.connect(), PAGES_OF_A_DUMP, || {
        dump(&cluster.server)
    });
    burn(cluster);
    assert_same_dump(&before, &dump(&cluster.server));
    check_everything(&cluster.server);
}

#[test]
fn prepared_transactions_survive_burnt_machines() {
    let mut cluster = small_cluster("prepared");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int PRIMARY KEY)");
    sql::execute(
        &mut client,
        "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s; INSERT INTO t VALUES (2)",
    );
    sql::execute(&mut client, "PREPARE TRANSACTION 'kept'");
    sql::execute(
        &mut client,
        "BEGIN; INSERT INTO t VALUES (3); PREPARE TRANSACTION 'gone'",
    );
    sql::execute(
        &mut client,
        "BEGIN; INSERT INTO t VALUES (4); PREPARE TRANSACTION 'committed'",
    );
    sql::execute(&mut client, "COMMIT PREPARED 'committed'");
    for _ in 0..if is_full() { 10 } else { 3 } {
        burn(&mut cluster);
        let mut client = cluster.connect();
        assert_eq!(
            sql::value(
                &mut client,
                "SELECT string_agg(gid, ',' ORDER BY gid) FROM pg_prepared_xacts"
            ),
            "gone,kept"
        );
        assert_eq!(
            sql::value(&mut client, "SELECT string_agg(a::text, ',') FROM t"),
            "4"
        );
        let blocked = client.batch_execute("SET lock_timeout = '200ms'; INSERT INTO t VALUES (1)");
        assert!(blocked.is_err(), "the prepared transaction's key is not locked");
    }
    let mut client = cluster.connect();
    sql::execute(&mut client, "COMMIT PREPARED 'kept'");
    sql::execute(&mut client, "ROLLBACK PREPARED 'gone'");
    assert_survives_a_burnt_machine(&mut cluster);
    let kept = sql::value(
        &mut cluster.connect(),
        "SELECT string_agg(a::text, ',' ORDER BY a) FROM t",
    );
    assert_eq!(kept, "1,2,4");
}

#[test]
fn more_prepared_transactions_than_allowed_are_a_clear_refusal() {
    let mut cluster = small_cluster("too-many-prepared");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int)");
    for number in 1..=4 {
        let prepare = format!("BEGIN; INSERT INTO t VALUES ({number}); PREPARE TRANSACTION 'p{number}'");
        sql::execute(&mut client, &prepare);
    }
    drop(client);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let allow = |cluster: &Cluster, count: u32| {
        let settings = Settings::default().with("max_prepared_transactions", count);
        cluster
            .server
            .configure(&settings)
            .expect("write postgresql.conf");
    };
    // In the directory that they were prepared in, and in a new one.
    for _ in 0..2 {
        allow(&cluster, 3);
        let said = cluster.refused_start();
        assert!(
            said.contains("maximum number of prepared transactions reached")
                && said.contains("Increase max_prepared_transactions"),
            "{said}"
        );
        allow(&cluster, 4);
        cluster.start_server();
        let mut client = cluster.connect();
        assert_eq!(
            sql::value(&mut client, "SELECT count(*) FROM pg_prepared_xacts"),
            "4"
        );
        drop(client);
        cluster.burn_compute();
        cluster.create_compute();
    }
    allow(&cluster, 4);
    cluster.start_server();
    let mut client = cluster.connect();
    for number in 1..=4 {
        sql::execute(&mut client, &format!("COMMIT PREPARED 'p{number}'"));
    }
    assert_eq!(sql::value(&mut client, "SELECT sum(a) FROM t"), "10");
}

/// Values inside the logged range of 32 are handed out without a record.
#[test]
fn a_sequence_never_repeats_a_value_and_has_no_gap_without_a_crash() {
    let mut cluster = small_cluster("sequence");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE SEQUENCE s");
    for expected in 1..=40 {
        assert_eq!(
            sql::value(&mut client, "SELECT nextval('s')"),
            expected.to_string()
        );
        if expected % 10 == 0 {
            // The sequence's page is written and read again; it stays in the cache, others do not.
            assert!(eviction::evict(&mut client, None) > 100);
        }
    }
    assert!(eviction::cache(&mut client, "pages_refetched") > 500);
    drop(client);
    burn(&mut cluster);
    let next: i64 = sql::value(&mut cluster.connect(), "SELECT nextval('s')")
        .parse()
        .expect("a number");
    assert!((41..=41 + 64).contains(&next), "nextval after 40 is {next}");

    // A clean stop: no gap, in this directory or in another one; also where the page left the buffers long before.
    let take = |cluster: &Cluster, sequence: &str| -> i64 {
        let next = format!("SELECT nextval('{sequence}')");
        sql::value(&mut cluster.connect(), &next)
            .parse()
            .expect("a number")
    };
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE SEQUENCE evicted; SELECT nextval('evicted')");
    sql::execute(
        &mut client,
        "CREATE UNLOGGED SEQUENCE unlogged; SELECT nextval('unlogged')",
    );
    eviction::evict(&mut client, None);
    drop(client);
    for (round, mode) in (1..).zip([ShutdownMode::Fast, ShutdownMode::Smart]) {
        assert_eq!(take(&cluster, "s"), next + round * 2 - 1);
        cluster.server.stop(mode).expect("pg_ctl stop");
        cluster.start_server();
        assert_eq!(take(&cluster, "s"), next + round * 2);
        assert_eq!(take(&cluster, "evicted"), round * 2);
        assert_eq!(take(&cluster, "evicted"), round * 2 + 1);
        cluster.server.stop(mode).expect("pg_ctl stop");
        cluster.burn_compute();
        cluster.create_compute();
        cluster.start_server();
    }
    assert_eq!(take(&cluster, "s"), next + 5);
}

#[test]
fn unlogged_tables_and_their_indexes_are_empty_and_usable_afterwards() {
    let mut cluster = small_cluster("unlogged");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE UNLOGGED TABLE u (a int PRIMARY KEY, b text); \
         INSERT INTO u SELECT g, repeat('x', 300) FROM generate_series(1, 20000) g; CREATE INDEX ON u (b); \
         CREATE TABLE l (a int PRIMARY KEY); INSERT INTO l VALUES (1); \
         CREATE UNLOGGED TABLE becomes_logged AS SELECT g AS a FROM generate_series(1, 1000) g; \
         ALTER TABLE becomes_logged SET LOGGED",
    );
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM u"), "20000");
    sql::execute(
        &mut client,
        "CREATE TEMP TABLE temporary AS SELECT g FROM generate_series(1, 20000) g",
    );
    let look = |client: &mut postgres::Client| {
        let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM u), (SELECT count(*) FROM temporary), \
                      (SELECT count(*) FROM becomes_logged), (SELECT count(*) FROM filler))";
        sql::value(client, counts)
    };
    assert_eq!(look(&mut client), "20000 20000 1000 9000");
    let refetched = eviction::cache(&mut client, "pages_refetched");
    assert!(eviction::evict(&mut client, None) > 500);
    assert_eq!(look(&mut client), "20000 20000 1000 9000");
    assert!(eviction::cache(&mut client, "pages_refetched") > refetched + 500);
    drop(client);
    burn(&mut cluster);
    let mut client = cluster.connect();
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM u"), "0");
    sql::execute(
        &mut client,
        "INSERT INTO u SELECT g, 'y' FROM generate_series(1, 1000) g",
    );
    assert_eq!(
        sql::value(&mut client, "SELECT count(*) FROM u WHERE a = 500 AND b = 'y'"),
        "1"
    );
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM l"), "1");
    assert_eq!(
        sql::value(&mut client, "SELECT count(*) FROM becomes_logged"),
        "1000"
    );
    // What the session could not remove any more autovacuum removes, as after a crash of a stock server.
    sql::execute(&mut client, "ALTER SYSTEM SET autovacuum_naptime = '1s'");
    sql::execute(&mut client, "SELECT pg_reload_conf()");
    wait_for("no temporary table is left", Duration::from_secs(90), || {
        sql::value(
            &mut client,
            "SELECT count(*) FROM pg_class WHERE relpersistence = 't'",
        ) == "0"
    });
}

#[test]
fn row_locks_subtransactions_and_large_transactions_survive() {
    let mut cluster = small_cluster("transactions");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE t (a int PRIMARY KEY, b int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 2000)",
    );
    // Members of multixacts: two sessions lock the same rows, one of them updates.
    let mut other = cluster.connect();
    for round in 0..20 {
        sql::execute(
            &mut client,
            "BEGIN; SELECT count(*) FROM (SELECT FROM t WHERE a <= 200 FOR KEY SHARE) s",
        );
        sql::execute(
            &mut other,
            "BEGIN; SELECT count(*) FROM (SELECT FROM t WHERE a <= 200 FOR KEY SHARE) s",
        );
        sql::execute(
            &mut other,
            &format!("UPDATE t SET b = {round} WHERE a <= 100; COMMIT"),
        );
        sql::execute(&mut client, "COMMIT");
    }
    // More subtransactions than a backend keeps in shared memory; every third one is rolled back.
    sql::execute(
        &mut client,
        "DO $$ BEGIN FOR i IN 1..3000 LOOP BEGIN INSERT INTO t VALUES (10000 + i); \
         IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
    );
    sql::execute(&mut client, "BEGIN; DELETE FROM t WHERE a > 11000; ROLLBACK");
    drop((client, other));
    assert_survives_a_burnt_machine(&mut cluster);
    assert_eq!(
        sql::value(&mut cluster.connect(), "SELECT count(*) FROM t"),
        "4000"
    );
    // Numbers of transactions, multixacts and objects are not used again.
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE new_number (a int); INSERT INTO new_number VALUES (1)",
    );
    sql::execute(&mut client, "UPDATE t SET b = b + 1");
    assert_survives_a_burnt_machine(&mut cluster);
}

/// Heap records have no command ids: a page that was built from the log shows its own transaction the wrong rows.
#[test]
fn an_open_transaction_reads_its_own_evicted_pages_right() {
    let cluster = small_cluster("command-ids");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int, b text)");
    let mut transaction = client.transaction().expect("BEGIN");
    let mut run = |statement: &str| {
        transaction
            .batch_execute(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    };
    run("INSERT INTO t SELECT g, repeat('x', 400) FROM generate_series(1, 5000) g");
    run("DECLARE before CURSOR FOR SELECT count(*) FROM t");
    run("INSERT INTO t SELECT g, repeat('y', 400) FROM generate_series(5001, 9000) g");
    run("DELETE FROM t WHERE a <= 1000");
    run("UPDATE t SET b = 'z' WHERE a BETWEEN 2000 AND 3000");
    let seen = transaction.query_one("FETCH before", &[]).expect("FETCH");
    assert_eq!(seen.get::<_, i64>(0), 5000, "what the cursor's snapshot sees");
    let now = transaction
        .query_one("SELECT count(*), count(*) FILTER (WHERE b = 'z') FROM t", &[])
        .expect("SELECT");
    assert_eq!((now.get::<_, i64>(0), now.get::<_, i64>(1)), (8000, 1001));
    transaction.commit().expect("COMMIT");
    let now = eviction::assert_same_after_eviction(&mut cluster.connect(), 500, || {
        sql::value(
            &mut client,
            "SELECT count(*) || ' ' || count(*) FILTER (WHERE b = 'z') FROM t",
        )
    });
    assert_eq!(now, "8000 1001");
    check_everything(&cluster.server);
}

/// A wait for a page is an ordinary wait: it can be cancelled, and nothing is broken by it.
#[test]
fn a_wait_for_a_page_ends_at_the_statement_timeout() {
    let cluster = small_cluster("page-wait");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE t AS SELECT g AS a, repeat('x', 500) AS b FROM generate_series(1, 20000) g",
    );
    drop(client);
    cluster.restart_without_cache();
    let mut client = cluster.connect();
    // Plan and catalogs first, so that it is the table's pages that are missing.
    sql::value(&mut client, "SELECT count(*) FROM (SELECT a FROM t LIMIT 1) s");
    sql::execute(&mut client, "SET statement_timeout = '3s'");
    let pid = sql::value(&mut client, "SELECT pg_backend_pid()");
    let mut observer = cluster.connect();
    let shown =
        format!("SELECT concat(wait_event_type, '/', wait_event) FROM pg_stat_activity WHERE pid = {pid}");
    sql::value(&mut observer, &shown); // its catalogs
    (0..6).for_each(|index| cluster.pause_node(index));
    let began = Instant::now();
    let reader = std::thread::spawn(move || {
        let outcome = client.batch_execute("SELECT sum(a) FROM t");
        (client, outcome.expect_err("no node answers"))
    });
    wait_for("the wait to be shown", Duration::from_secs(3), || {
        sql::value(&mut observer, &shown) == "IO/DataFileRead"
    });
    let (mut client, error) = reader.join().expect("the reader");
    let waited = began.elapsed();
    (0..6).for_each(|index| cluster.resume_node(index));
    assert_eq!(
        error.code().map(postgres::error::SqlState::code),
        Some("57014"),
        "{error}"
    );
    assert!(waited < Duration::from_secs(10), "cancelled after {waited:?}");
    assert_eq!(sql::value(&mut observer, &shown), "Client/ClientRead");
    sql::execute(&mut client, "RESET statement_timeout");
    assert_every_page_is_counted_once(&mut client);
    assert_eq!(sql::value(&mut client, "SELECT sum(a) FROM t"), "200010000");
}

/// `EXPLAIN (ANALYZE, BUFFERS)` of a scan: a page that comes from storage is one that was read, whatever came with it.
fn assert_every_page_is_counted_once(client: &mut postgres::Client) {
    let explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT sum(a) FROM t";
    let explained: serde_json::Value = serde_json::from_str(&sql::value(client, explain)).expect("JSON");
    let count = |name: &str| explained[0]["Plan"][name].as_u64().expect("a number");
    let pages = sql::value(client, "SELECT pg_relation_size('t') / 8192");
    assert!(count("Shared Read Blocks") > 0);
    assert_eq!(
        (count("Shared Hit Blocks") + count("Shared Read Blocks")).to_string(),
        pages
    );
}

/// The window in which no cancel ends a session's wait opens with COMMIT PREPARED; the command fails inside of a
/// transaction block, which goes on.
#[test]
fn a_failed_commit_prepared_leaves_its_session_cancellable() {
    let cluster = small_cluster("failed-commit-prepared");
    let mut client = cluster.connect();
    sql::execute(&mut client, "BEGIN; SAVEPOINT a");
    client
        .batch_execute("COMMIT PREPARED 'x'")
        .expect_err("not in a transaction block");
    sql::execute(&mut client, "ROLLBACK TO a; SET statement_timeout = '1s'");
    let began = Instant::now();
    let error = client
        .batch_execute("SELECT pg_sleep(20)")
        .expect_err("the timeout ends it");
    assert_eq!(
        error.code().map(postgres::error::SqlState::code),
        Some("57014"),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// Writing WAL waits when it is too far ahead of the quorum, but a record becomes durable only when all of it is
/// written: the wait must not be for itself.
#[test]
fn a_record_larger_than_what_may_be_unshipped_goes_through() {
    let settings = Settings::default().with("pg_quorum.max_unshipped_wal", "64MB");
    let cluster = Cluster::start_with(
        "large-record",
        Plan {
            settings,
            ..Plan::default()
        },
    );
    let mut client = cluster.connect();
    let emit = "SELECT pg_logical_emit_message(true, 'large', repeat('x', 170000000)) > '0/0'";
    assert_eq!(sql::value(&mut client, emit), "t");
    sql::execute(&mut client, "CREATE TABLE t AS SELECT 1 AS a");
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    cluster.start_server();
    assert_eq!(sql::value(&mut cluster.connect(), "SELECT a FROM t"), "1");
}

/// A slot keeps WAL for its consumer, also over a restart: the data directory begins anew with one segment.
#[test]
fn a_logical_slot_is_readable_after_a_restart() {
    let settings = Settings::default().with("wal_level", "logical");
    let cluster = Cluster::start_with(
        "slot",
        Plan {
            settings,
            ..Plan::default()
        },
    );
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int)");
    sql::value(
        &mut client,
        "SELECT lsn FROM pg_create_logical_replication_slot('s', 'test_decoding')",
    );
    for value in 1..=3 {
        sql::execute(&mut client, &format!("INSERT INTO t VALUES ({value})"));
        sql::value(&mut client, "SELECT pg_switch_wal()");
    }
    drop(client);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    cluster.start_server();
    let changes =
        "SELECT count(*) FROM pg_logical_slot_get_changes('s', NULL, NULL) WHERE data LIKE '%INSERT%'";
    assert_eq!(sql::value(&mut cluster.connect(), changes), "3");
}

/// More sessions than there are places for requests of pages: each gets its turn.
#[test]
fn five_hundred_connections_read_and_commit_through_one_link() {
    const SESSIONS: usize = 500;
    let settings = Settings::default()
        .with("max_connections", SESSIONS + 20)
        .with("shared_buffers", "16MB")
        .with("pg_quorum.cache_size", "4MB");
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let cluster = Cluster::start_with("500-connections", plan);
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE EXTENSION pg_quorum; CREATE TABLE t (a int PRIMARY KEY, b text); \
         INSERT INTO t SELECT g, repeat(md5(g::text), 12) FROM generate_series(1, 100000) g; CREATE TABLE log (a int)",
    );
    let count = |client: &mut postgres::Client, column: &str| -> u64 {
        let query = format!("SELECT {column} FROM quorum.cache");
        sql::value(client, &query).parse().expect("a number")
    };
    let (dropped, refetched) = (
        count(&mut client, "pages_dropped"),
        count(&mut client, "pages_refetched"),
    );
    let uri = cluster.server.uri();
    let all_are_connected = std::sync::Barrier::new(SESSIONS);
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (uri, all_are_connected) = (&uri, &all_are_connected);
            scope.spawn(move || {
                let mut client = sql::connect(uri);
                all_are_connected.wait();
                for round in 0..4 {
                    let key = (session * 7919 + round * 25_013) % 100_000 + 1;
                    let right = format!("SELECT b = repeat(md5('{key}'), 12) FROM t WHERE a = {key}");
                    assert_eq!(sql::value(&mut client, &right), "t", "row {key}");
                    sql::execute(&mut client, &format!("INSERT INTO log VALUES ({key})"));
                }
            });
        }
    });
    let logged = sql::value(&mut client, "SELECT count(*) FROM log");
    assert_eq!(logged, (SESSIONS * 4).to_string());
    let (dropped, refetched) = (
        count(&mut client, "pages_dropped") - dropped,
        count(&mut client, "pages_refetched") - refetched,
    );
    assert!(
        dropped > 1000 && refetched > 1000,
        "{dropped} pages were dropped, {refetched} fetched again"
    );
    check_everything(&cluster.server);
}

/// A subscription's worker has `synchronous_commit = off`, and tells the publisher how far its commits are safe.
#[test]
fn a_subscriber_confirms_only_what_the_quorum_has() {
    let mut cluster = small_cluster("subscriber");
    let publisher = Server {
        pgdata: cluster.layout.compute("publisher"),
        port: free_ports(1),
        log: cluster.layout.compute_log("publisher"),
        ..cluster.server.clone()
    };
    publisher.initdb(&[]).expect("initdb");
    publisher.trust_loopback().expect("write pg_hba.conf");
    let settings = Settings::local(publisher.port, &cluster.layout.sockets()).with("wal_level", "logical");
    publisher.configure(&settings).expect("write postgresql.conf");
    publisher.start().expect("start the publisher");
    let mut source = sql::connect(&publisher.uri());
    sql::execute(
        &mut source,
        "CREATE TABLE t (a int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t",
    );
    sql::value(
        &mut source,
        "SELECT lsn FROM pg_create_logical_replication_slot('s', 'pgoutput')",
    );
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE TABLE t (a int PRIMARY KEY)");
    let subscribe = format!(
        "CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p WITH (create_slot = false, slot_name = 's')",
        publisher.uri()
    );
    sql::execute(&mut client, &subscribe);
    let rows = |client: &mut postgres::Client| sql::value(client, "SELECT count(*) FROM t");
    sql::execute(&mut source, "INSERT INTO t SELECT generate_series(1, 100)");
    wait_for("the rows have come", Duration::from_secs(60), || {
        rows(&mut client) == "100"
    });
    let behind = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's' AND confirmed_flush_lsn < ";
    let end = |source: &mut postgres::Client| {
        let lsn = sql::value(source, "SELECT pg_current_wal_lsn()");
        format!("{behind} '{lsn}'")
    };
    let is_behind = end(&mut source);
    wait_for("they are confirmed", Duration::from_secs(60), || {
        sql::value(&mut source, &is_behind) == "0"
    });

    for node in [0, 2, 4] {
        cluster.pause_node(node);
    }
    sql::execute(&mut source, "INSERT INTO t SELECT generate_series(101, 200)");
    let is_behind = end(&mut source);
    let waits = "SELECT count(*) FROM pg_stat_activity \
                 WHERE backend_type = 'logical replication worker' AND wait_event = 'SyncRep'";
    wait_for("the worker waits for the quorum", Duration::from_secs(60), || {
        sql::value(&mut client, waits) == "1"
    });
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(
            sql::value(&mut source, &is_behind),
            "1",
            "what no quorum has was confirmed"
        );
        assert_eq!(rows(&mut client), "100");
    }
    drop(client);
    cluster.burn_compute();
    for node in [0, 2, 4] {
        cluster.resume_node(node);
    }
    cluster.create_compute();
    cluster.start_server();
    let mut client = cluster.connect();
    sql::execute(&mut source, "INSERT INTO t SELECT generate_series(201, 300)");
    wait_for("all rows are there, each once", Duration::from_secs(60), || {
        rows(&mut client) == "300"
    });
    let is_behind = end(&mut source);
    wait_for("they are confirmed", Duration::from_secs(60), || {
        sql::value(&mut source, &is_behind) == "0"
    });
    check_everything(&cluster.server);
    publisher.kill_everything().expect("kill the publisher");
}
