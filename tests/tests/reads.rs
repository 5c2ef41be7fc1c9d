//! Pages that are not local: scans ask for them ahead, and what is on its way never shows an old page.

use std::time::{Duration, Instant};

use pg_quorum_deployment::Settings;
use pg_quorum_tests::checks::check_everything;
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::sql;
use postgres::{Client, NoTls};

/// Some 1500 pages of `t`, with an index on a column whose every value is on every few pages.
fn cluster(name: &str) -> Cluster {
    let settings = Settings::default()
        .with("shared_buffers", "1MB")
        .with("autovacuum", "off");
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let cluster = Cluster::start_with(name, plan);
    sql::execute(
        &mut cluster.connect(),
        "CREATE EXTENSION pg_quorum; \
         CREATE TABLE filler AS SELECT g, repeat('x', 500) AS x FROM generate_series(1, 5000) g; \
         CREATE INDEX ON filler (g); \
         CREATE TABLE t AS SELECT g AS a, g % 50 AS b, repeat('x', 500) AS x FROM generate_series(1, 20000) g; \
         CREATE INDEX t_b ON t (b)",
    );
    sql::execute(&mut cluster.connect(), "VACUUM ANALYZE t");
    cluster
}

/// Pushes everything out of the buffers (a sequential scan would not leave its ring of them), then out of the cache.
fn evict(client: &mut Client) {
    sql::execute(
        client,
        "SET enable_seqscan = off; SELECT count(x) FROM filler WHERE g > 0; RESET enable_seqscan",
    );
    sql::value(client, "SELECT quorum.drop_cache()");
}

/// A column of `quorum.stat`.
fn stat(client: &mut Client, column: &str) -> u64 {
    let query = format!("SELECT {column} FROM quorum.stat");
    sql::value(client, &query).parse().expect("a number")
}

const WHOLE: &str = "SELECT count(*) || ' ' || sum(a) || ' ' || sum(length(x)) FROM t";
const WHOLE_IS: &str = "20000 200010000 10000000";

#[test]
fn scans_ask_ahead_and_read_what_is_there() {
    let cluster = cluster("reads-ahead");
    let mut client = cluster.connect();
    evict(&mut client);
    let (ahead, in_flight) = (
        stat(&mut client, "pages_read_ahead"),
        stat(&mut client, "misses_in_flight"),
    );
    assert_eq!(sql::value(&mut client, WHOLE), WHOLE_IS);
    let ahead = stat(&mut client, "pages_read_ahead") - ahead;
    let in_flight = stat(&mut client, "misses_in_flight") - in_flight;
    assert!(
        ahead > 1000 && in_flight > 60,
        "{ahead} pages ahead, {in_flight} waits"
    );

    evict(&mut client);
    sql::execute(
        &mut client,
        "SET enable_seqscan = off; SET enable_indexscan = off; SET effective_io_concurrency = 32",
    );
    let prefetched = stat(&mut client, "pages_prefetched");
    let some = sql::value(&mut client, "SELECT count(*) || ' ' || sum(a) FROM t WHERE b = 7");
    assert_eq!(some, "400 3992800");
    let prefetched = stat(&mut client, "pages_prefetched") - prefetched;
    assert!(prefetched > 200, "{prefetched} pages prefetched");

    evict(&mut client);
    sql::execute(
        &mut client,
        "RESET enable_seqscan; SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; \
         SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
    );
    let ahead = stat(&mut client, "pages_read_ahead");
    assert_eq!(sql::value(&mut client, WHOLE), WHOLE_IS);
    assert!(stat(&mut client, "pages_read_ahead") > ahead);
    check_everything(&cluster.server);
}

#[test]
fn a_wait_for_pages_that_never_come_is_cancelled_at_once() {
    let cluster = cluster("reads-cancel");
    let mut client = cluster.connect();
    evict(&mut client);
    // The catalogs and the plan are local again.
    sql::value(&mut client, "SELECT count(*) FROM t WHERE a < 0 AND b < 0");
    sql::value(&mut client, "SELECT quorum.drop_cache('t')");
    for node in 0..cluster.nodes.len() {
        cluster.pause_node(node);
    }
    let token = client.cancel_token();
    let (error, took) = std::thread::scope(|scope| {
        let query = scope.spawn(|| client.simple_query(WHOLE).expect_err("cancelled"));
        std::thread::sleep(Duration::from_millis(500));
        let since = Instant::now();
        token.cancel_query(NoTls).expect("ask for the cancel");
        (query.join().expect("the session"), since.elapsed())
    });
    for node in 0..cluster.nodes.len() {
        cluster.resume_node(node);
    }
    assert!(sql::message(&error).contains("canceling statement"), "{error:?}");
    assert!(took < Duration::from_secs(3), "cancelled after {took:?}");
    assert_eq!(sql::value(&mut client, WHOLE), WHOLE_IS);
}

/// A session whose subtransaction has rolled back holds no lock on what it has asked for: others may change the file
/// under the answer.
#[test]
fn what_is_on_its_way_is_not_installed_over_a_truncated_file() {
    let cluster = cluster("reads-truncated");
    let (mut client, mut other) = (cluster.connect(), cluster.connect());
    let ask_ahead = |client: &mut Client, other: &mut Client| {
        evict(other);
        let before = stat(other, "pages_read_ahead");
        sql::execute(
            client,
            "BEGIN; SAVEPOINT s; DECLARE c CURSOR FOR SELECT a FROM t; FETCH 60 FROM c; ROLLBACK TO s",
        );
        assert!(stat(other, "pages_read_ahead") > before);
    };
    sql::execute(&mut other, "DELETE FROM t WHERE a > 150");
    ask_ahead(&mut client, &mut other);
    sql::execute(&mut other, "VACUUM t");
    let size: u64 = sql::value(&mut other, "SELECT pg_relation_size('t')")
        .parse()
        .expect("a number");
    assert!(size < 20 * 8192, "truncated to {size} bytes");
    sql::execute(
        &mut other,
        "INSERT INTO t SELECT g, 1, repeat('y', 400) FROM generate_series(10001, 12000) g",
    );
    evict(&mut other);
    let now = "SELECT count(*) || ' ' || sum(a) || ' ' || sum(length(x)) FROM t";
    assert_eq!(sql::value(&mut client, now), "2150 22012325 875000");
    sql::execute(&mut client, "COMMIT");

    ask_ahead(&mut client, &mut other);
    sql::execute(
        &mut other,
        "TRUNCATE t; INSERT INTO t SELECT g, 1, repeat('z', 500) FROM generate_series(1, 3000) g",
    );
    assert_eq!(sql::value(&mut client, now), "3000 4501500 1500000");
    sql::execute(&mut client, "COMMIT");

    ask_ahead(&mut client, &mut other);
    sql::execute(
        &mut other,
        "DROP TABLE t; CREATE TABLE t AS SELECT 1 AS a, 'new' AS x",
    );
    assert_eq!(sql::value(&mut client, now), "1 1 3");
    sql::execute(&mut client, "COMMIT");
    check_everything(&cluster.server);
}

/// What transactions and sessions have asked for and do not need when they end is nobody's any more: there are 64
/// places, and a scan that comes later gets its share of them.
#[test]
fn requests_that_nobody_waits_for_give_their_places_back() {
    const SCAN_BEGINS: &str = "BEGIN; DECLARE c CURSOR FOR SELECT a FROM t; FETCH 600 FROM c";
    const ROUNDS: u64 = 25;
    let cluster = cluster("reads-given-up");
    let mut client = cluster.connect();
    let before = stat(&mut client, "pages_read_ahead");
    for round in 0..ROUNDS {
        evict(&mut client);
        let mut session = cluster.connect();
        sql::execute(&mut session, SCAN_BEGINS);
        if round % 2 == 0 {
            sql::execute(&mut session, "ROLLBACK");
        } else {
            sql::value(
                &mut client,
                "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                 WHERE state = 'idle in transaction'",
            );
        }
    }
    let asked = stat(&mut client, "pages_read_ahead") - before;
    assert!(asked > ROUNDS * 64, "{asked} pages in {ROUNDS} rounds");
    evict(&mut client);
    let before = stat(&mut client, "pages_read_ahead");
    assert_eq!(sql::value(&mut client, WHOLE), WHOLE_IS);
    let ahead = stat(&mut client, "pages_read_ahead") - before;
    assert!(ahead > 1000, "{ahead} pages ahead");
}

/// Pages of temporary and unlogged relations are nowhere but here: storage would answer with zeros.
#[test]
fn storage_is_not_asked_ahead_for_what_only_this_server_has() {
    let cluster = cluster("reads-local");
    let mut client = cluster.connect();
    let fill = "AS SELECT g AS a, g % 50 AS b, repeat('x', 500) AS x FROM generate_series(1, 10000) g";
    sql::execute(
        &mut client,
        &format!(
            "SET temp_buffers = '800kB'; CREATE UNLOGGED TABLE u {fill}; CREATE INDEX u_b ON u (b); \
             CREATE TEMP TABLE m {fill}; CREATE INDEX m_b ON m (b)"
        ),
    );
    sql::execute(
        &mut client,
        "SET enable_seqscan = off; SET enable_indexscan = off; SET effective_io_concurrency = 32",
    );
    let evicted = |client: &mut Client, query: &str| {
        evict(client);
        sql::execute(client, "SET enable_seqscan = off"); // `evict` has reset it
        let before = stat(client, "pages_prefetched");
        let value = sql::value(client, query);
        (value, stat(client, "pages_prefetched") - before)
    };
    let some = |table: &str| format!("SELECT count(*) || ' ' || sum(a) FROM {table} WHERE b = 7");
    for table in ["u", "m"] {
        assert_eq!(
            evicted(&mut client, &some(table)),
            ("200 996400".to_owned(), 0),
            "{table}"
        );
    }
    let (value, prefetched) = evicted(&mut client, &some("t"));
    assert_eq!(value, "400 3992800");
    assert!(prefetched > 100, "{prefetched} pages of a logged table");
}
