//! Transaction numbers at 2 and at 4 billion, on an imported cluster.

use pg_quorum_deployment::{ShutdownMode, capture};
use pg_quorum_tests::checks::{assert_same_dump, check_everything, dump};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::{eviction, sql};
use postgres::Client;

use super::burn;

/// `CLOG_XACTS_PER_PAGE` times `SLRU_PAGES_PER_SEGMENT`, and the bytes of such a segment.
const XACTS_PER_SEGMENT: u64 = 8192 * 4 * 32;
const SEGMENT_BYTES: u64 = 32 * 8192;
/// The server refuses numbers more than 2^31 less three millions ahead of the oldest.
const STEP: u64 = 2_000_000_000;
/// Pages of a dump that go and come back, of the few that the cache holds.
const PAGES_OF_A_DUMP: u64 = 300;
/// Transactions that are left before the number under test.
const LEFT: u64 = 1500;

/// The next transaction's number, with its epoch.
fn next_xid(client: &mut Client) -> u64 {
    let next = sql::value(client, "SELECT pg_snapshot_xmax(pg_current_snapshot())");
    next.parse().expect("a number")
}

fn databases(cluster: &Cluster) -> Vec<Client> {
    ["postgres", "template1", "template0"]
        .map(|name| sql::connect(&cluster.server.database_uri(name)))
        .into()
}

/// A stock cluster, stopped, whose next transaction is `next` or a few later. All that is older is frozen; commit status
/// is there for the numbers from the last step's start on only, as after VACUUM.
fn age_to(cluster: &Cluster, next: u64) {
    let mut at = 0;
    while at < next {
        at = (at + STEP).min(next);
        cluster.start_server();
        sql::execute(
            &mut cluster.connect(),
            "ALTER DATABASE template0 ALLOW_CONNECTIONS true",
        );
        for mut client in databases(cluster) {
            sql::execute(&mut client, "VACUUM (FREEZE)");
        }
        cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
        let segment = format!("{:04X}", at / XACTS_PER_SEGMENT);
        let path = cluster.server.pgdata.join("pg_xact").join(segment);
        if !path.exists() {
            let file = std::fs::File::create(&path).expect("make a segment of pg_xact");
            file.set_len(SEGMENT_BYTES).expect("fill the segment");
            cluster.server.account.own(&path).expect("chown");
        }
        let mut command = cluster
            .server
            .account
            .command(cluster.server.binaries.postgres("pg_resetwal"));
        command
            .args(["--next-transaction-id", &at.to_string(), "--pgdata"])
            .arg(&cluster.server.pgdata);
        capture(&mut command).expect("pg_resetwal");
    }
}

/// An imported cluster on which transactions, subtransactions, row locks and a prepared transaction lie on both sides of
/// `edge`.
fn run_past(name: &str, edge: u64) {
    let settings = eviction::few_buffers()
        .with("pg_quorum.cache_size", "4MB")
        .with("max_prepared_transactions", 10);
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let mut cluster = Cluster::nodes_only(name, plan);
    cluster.make_stock_cluster(&[]);
    age_to(&cluster, edge - LEFT);
    cluster.start_server();
    for mut client in databases(&cluster) {
        sql::execute(&mut client, "VACUUM (FREEZE)");
    }
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE t (a int PRIMARY KEY, b int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 500)",
    );
    drop(client);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let settings = cluster.settings(cluster.server.port);
    cluster
        .server
        .configure(&settings)
        .expect("write postgresql.conf");
    cluster.start_server();

    let (mut client, mut other) = (cluster.connect(), cluster.connect());
    eviction::prepare(&mut client);
    let before = next_xid(&mut client);
    assert!(
        edge - LEFT <= before && before + 500 < edge,
        "{before} before {edge}"
    );
    sql::execute(
        &mut client,
        "BEGIN; INSERT INTO t VALUES (-1); PREPARE TRANSACTION 'older'",
    );
    for a in 501..=600 {
        sql::execute(&mut client, &format!("INSERT INTO t VALUES ({a})"));
    }
    // One transaction's subtransactions lie on both sides; every third one is rolled back. Others see none of it.
    sql::execute(
        &mut client,
        "BEGIN; INSERT INTO t VALUES (0); SELECT 1 FROM t WHERE a = 1 FOR KEY SHARE; \
         DO $$ BEGIN FOR i IN 1..3000 LOOP BEGIN INSERT INTO t VALUES (10000 + i); \
         IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
    );
    let count = "SELECT count(*) FROM t";
    sql::execute(&mut other, "UPDATE t SET b = 1 WHERE a = 1");
    let after = next_xid(&mut other);
    assert!(after > edge + 3, "{after} is past {edge}");
    assert_eq!(sql::value(&mut other, count), "600");
    assert!(eviction::evict(&mut other, None) > 100);
    assert_eq!(sql::value(&mut other, count), "600");
    assert_eq!(sql::value(&mut client, count), "2601");
    sql::execute(&mut client, "COMMIT");
    assert_eq!(sql::value(&mut other, count), "2601");
    sql::execute(&mut client, "BEGIN; DELETE FROM t; ROLLBACK");
    drop((client, other));
    for round in 0..2 {
        let look = || dump(&cluster.server);
        let before = eviction::assert_same_after_eviction(&mut cluster.connect(), PAGES_OF_A_DUMP, look);
        let next = next_xid(&mut cluster.connect());
        burn(&mut cluster);
        let mut client = cluster.connect();
        let now = next_xid(&mut client);
        assert!((next..next + 10_000).contains(&now), "{next} before, {now} after");
        assert_same_dump(&before, &dump(&cluster.server));
        assert_eq!(sql::value(&mut client, count), ["2601", "2602"][round]);
        if round == 0 {
            // What is older than the edge is frozen, and its commit status is gone.
            sql::execute(&mut client, "COMMIT PREPARED 'older'");
            sql::execute(&mut client, "UPDATE t SET b = b + 1");
            for mut client in databases(&cluster) {
                sql::execute(&mut client, "VACUUM (FREEZE)");
            }
            let oldest = sql::value(
                &mut client,
                "SELECT max(age(datfrozenxid)) < 1000 FROM pg_database",
            );
            assert_eq!(oldest, "t", "everything is younger than the edge");
            let segment = format!("{:04X}", (edge - 1) / XACTS_PER_SEGMENT);
            let left = format!("SELECT count(*) FROM pg_ls_dir('pg_xact') AS name WHERE name = '{segment}'");
            assert_eq!(
                sql::value(&mut client, &left),
                "0",
                "segment {segment} of pg_xact"
            );
        }
        // The checks lock tables: not while a prepared transaction has them.
        check_everything(&cluster.server);
    }
}

#[test]
fn transaction_numbers_pass_two_billion_on_an_imported_cluster() {
    run_past("two-billion", 1 << 31);
}

#[test]
fn transaction_numbers_wrap_around_on_an_imported_cluster() {
    run_past("wrap-around", 1 << 32);
}
