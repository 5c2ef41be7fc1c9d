//! The local page cache with a limit: what is dropped comes back as it was, what must stay stays.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pg_quorum_deployment::{Settings, ShutdownMode};
use pg_quorum_tests::checks::{assert_same_dump, check_everything, dump};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::eviction::{self, cache};
use pg_quorum_tests::{sql, wait_for};
use postgres::Client;

const CACHE_MB: u64 = 4;

/// Hardly any buffers, and a cache of a few megabytes.
fn tiny_cluster(name: &str) -> Cluster {
    let settings = eviction::few_buffers().with("pg_quorum.cache_size", format!("{CACHE_MB}MB"));
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let cluster = Cluster::start_with(name, plan);
    eviction::prepare(&mut cluster.connect());
    cluster
}

/// Disk space of a directory's files, in bytes.
fn disk_usage(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("read the directory");
    entries
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.blocks() * 512))
        .sum()
}

#[test]
fn the_cache_and_its_files_stay_within_the_limit() {
    let cluster = tiny_cluster("cache-limit");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE t (a int PRIMARY KEY, b text); \
         INSERT INTO t SELECT g, repeat(md5(g::text), 12) FROM generate_series(1, 100000) g",
    );
    // Until the load was committed its pages had to stay.
    let limit = CACHE_MB << 20;
    let within_limit = |client: &mut Client| {
        wait_for("the cache is within its limit", Duration::from_secs(30), || {
            cache(client, "cached") <= limit
        });
    };
    within_limit(&mut client);
    for _ in 0..2 {
        let sum = sql::value(
            &mut client,
            "SELECT count(*) || ' ' || sum(a) || ' ' || sum(length(b)) FROM t",
        );
        assert_eq!(sum, "100000 5000050000 38400000");
    }
    let one = sql::value(
        &mut client,
        "SELECT b = repeat(md5('77777'), 12) FROM t WHERE a = 77777",
    );
    assert_eq!(one, "t");
    within_limit(&mut client);
    assert!(cache(&mut client, "pages_dropped") > 5000 && cache(&mut client, "pages_refetched") > 5000);
    let table: u64 = sql::value(&mut client, "SELECT pg_table_size('t')")
        .parse()
        .expect("a number");
    assert!(table > 40 << 20, "stat() sees the whole length, {table} bytes");
    let oid = sql::value(
        &mut client,
        "SELECT oid FROM pg_database WHERE datname = current_database()",
    );
    let used = disk_usage(&cluster.server.pgdata.join("base").join(oid));
    assert!(used < limit + (6 << 20), "the files take {used} bytes of disk");
    check_everything(&cluster.server);
}

/// Command ids, combo ids and their like are in no record.
#[test]
fn command_ids_survive_a_drop_until_their_transaction_ends() {
    let cluster = tiny_cluster("cache-command-ids");
    let (mut client, mut other) = (cluster.connect(), cluster.connect());
    sql::execute(&mut client, "CREATE TABLE t (a int, b text)");
    sql::execute(
        &mut client,
        "BEGIN; INSERT INTO t SELECT g, repeat('x', 400) FROM generate_series(1, 5000) g; \
         DECLARE before CURSOR FOR SELECT count(*) FROM t; \
         INSERT INTO t SELECT g, repeat('y', 400) FROM generate_series(5001, 9000) g; \
         DELETE FROM t WHERE a <= 1000; UPDATE t SET b = 'z' WHERE a BETWEEN 2000 AND 3000",
    );
    eviction::evict(&mut other, None);
    let awaiting = cache(&mut other, "awaiting");
    assert!(awaiting > 1 << 20, "{awaiting} bytes stay");
    assert_eq!(sql::value(&mut client, "FETCH before"), "5000");
    let now = sql::value(
        &mut client,
        "SELECT count(*) || ' ' || count(*) FILTER (WHERE b = 'z') FROM t",
    );
    assert_eq!(now, "8000 1001");
    sql::execute(&mut client, "COMMIT");
    sql::value(&mut other, "SELECT count(*) FROM filler");
    // What has been dropped to make room for the filler is not there to be dropped.
    sql::value(&mut other, "SELECT quorum.drop_cache('t')");
    let refetched = cache(&mut other, "pages_refetched");
    let after = sql::value(
        &mut other,
        "SELECT count(*) || ' ' || count(*) FILTER (WHERE b = 'z') FROM t",
    );
    assert_eq!(after, "8000 1001");
    assert!(cache(&mut other, "pages_refetched") >= refetched + 300);
    check_everything(&cluster.server);
}

#[test]
fn a_transaction_larger_than_the_cache_completes_and_pins_nothing_afterwards() {
    let cluster = tiny_cluster("cache-large-transaction");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE t (a int, b text); BEGIN; SELECT 1; \
         DO $$ BEGIN FOR i IN 1..20 LOOP \
           INSERT INTO t SELECT i, repeat('x', 900) FROM generate_series(1, 1000); END LOOP; END $$",
    );
    let cached = cache(&mut client, "cached");
    assert!(
        cached > 12 << 20,
        "what may not be dropped stays beyond the limit: {cached} bytes"
    );
    assert_eq!(
        sql::value(&mut client, "SELECT count(*) FROM t WHERE a = 20"),
        "1000"
    );
    sql::execute(&mut client, "COMMIT");
    eviction::evict(&mut client, None);
    let cached = cache(&mut client, "cached");
    assert!(
        cached < CACHE_MB << 20,
        "{cached} bytes are cached after the commit"
    );
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM t"), "20000");
}

/// Pages of an index build have no LSN until it has ended; sequences are ahead of the log; visibility map bits are
/// cleared before there is a record.
#[test]
fn dropping_all_the_time_changes_nothing() {
    let mut cluster = tiny_cluster("cache-drops");
    let is_over = AtomicBool::new(false);
    let mut dropper = cluster.connect();
    let mut client = cluster.connect();
    let dropped = std::thread::scope(|scope| {
        let drops = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                sql::value(&mut dropper, "SELECT quorum.drop_cache()");
                std::thread::sleep(Duration::from_millis(20));
            }
            cache(&mut dropper, "pages_dropped")
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| load(&mut client)));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        drops.join().expect("the session that drops")
    });
    let refetched = cache(&mut client, "pages_refetched");
    println!("{dropped} pages dropped, {refetched} refetched");
    assert!(dropped > 1000 && refetched > 1000);
    // The machine that burns takes unlogged content with it.
    sql::execute(&mut client, "TRUNCATE u");
    drop((client, dropper));
    check_everything(&cluster.server);
    let before = dump(&cluster.server);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    cluster.burn_compute();
    cluster.create_compute();
    cluster.start_server();
    assert_same_dump(&before, &dump(&cluster.server));
    check_everything(&cluster.server);
}

/// All kinds of writes, with buffers for hardly any of them.
fn load(client: &mut Client) {
    sql::execute(
        client,
        "CREATE TABLE t (a int PRIMARY KEY, b text, p point, v int[]); CREATE SEQUENCE s; \
         CREATE UNLOGGED TABLE u (a int PRIMARY KEY)",
    );
    for round in 0..4 {
        let first = round * 3000;
        sql::execute(
            client,
            &format!(
                "INSERT INTO t SELECT g, repeat('x', 100 + g % 300), point(g, -g), ARRAY[g, g % 10] \
                 FROM generate_series({first}, {first} + 2999) g; \
                 INSERT INTO u SELECT generate_series({first}, {first} + 2999)"
            ),
        );
        sql::execute(
            client,
            "BEGIN; UPDATE t SET b = b || 'y' WHERE a % 5 = 0; SAVEPOINT s; DELETE FROM t WHERE a % 7 = 0; \
             ROLLBACK TO s; DELETE FROM t WHERE a % 11 = 0; COMMIT",
        );
        sql::execute(client, "VACUUM (FREEZE) t");
        let values: Vec<i64> = (0..40)
            .map(|_| {
                sql::value(client, "SELECT nextval('s')")
                    .parse()
                    .expect("a number")
            })
            .collect();
        let expected: Vec<i64> = (1..=40).map(|number| i64::from(round) * 40 + number).collect();
        assert_eq!(values, expected, "a sequence has no gap and no repetition");
        if round == 1 {
            for index in [
                "gist (p)",
                "spgist (p)",
                "gin (v)",
                "hash (a)",
                "brin (a)",
                "btree (b, a)",
            ] {
                sql::execute(client, &format!("CREATE INDEX ON t USING {index}"));
            }
        }
        if round == 3 {
            sql::execute(client, "CREATE INDEX CONCURRENTLY ON t (a, b) WHERE a % 2 = 0");
            sql::execute(client, "REINDEX TABLE t");
        }
    }
    let rows = |client: &mut Client, condition: &str, settings: &str| {
        sql::execute(client, settings);
        let query = format!("SELECT count(*) || ' ' || coalesce(sum(a), 0) FROM t WHERE {condition}");
        let rows = sql::value(client, &query);
        sql::execute(client, "RESET ALL");
        rows
    };
    for condition in [
        "p <@ box '(0,-9000),(5000,0)'",
        "v @> ARRAY[3]",
        "a = 1234",
        "a BETWEEN 100 AND 7000",
    ] {
        assert_eq!(
            rows(client, condition, "SET enable_seqscan = off"),
            rows(
                client,
                condition,
                "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off"
            ),
            "{condition}"
        );
    }
    assert_eq!(sql::value(client, "SELECT count(*) FROM u"), "12000");
}

#[test]
fn a_clean_stop_keeps_the_cache_unlogged_tables_and_statistics() {
    let settings = Settings::default().with("shared_buffers", "1MB");
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let mut cluster = Cluster::start_with("cache-warm", plan);
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE EXTENSION pg_quorum; CREATE TABLE t (a int PRIMARY KEY, b text); \
         INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 20000) g; \
         CREATE UNLOGGED TABLE u (a int PRIMARY KEY, p point); CREATE INDEX ON u USING gist (p); \
         INSERT INTO u SELECT g, point(g, g) FROM generate_series(1, 20000) g",
    );
    sql::execute(&mut client, "VACUUM ANALYZE t");
    drop(client);
    for mode in [ShutdownMode::Fast, ShutdownMode::Smart] {
        cluster.server.stop(mode).expect("pg_ctl stop");
        cluster.start_server();
        let mut client = cluster.connect();
        assert_eq!(sql::value(&mut client, "SELECT count(*) FROM t"), "20000");
        assert_eq!(sql::value(&mut client, "SELECT count(*) FROM u"), "20000");
        let inside = "SET enable_seqscan = off; SELECT count(*) FROM u WHERE p <@ box '(1,1),(100,100)'";
        assert_eq!(sql::value(&mut client, inside), "100");
        sql::execute(
            &mut client,
            "INSERT INTO u SELECT max(a) + 1 FROM u; DELETE FROM u WHERE a > 20000",
        );
        assert_eq!(cache(&mut client, "misses"), 0, "nothing is fetched again");
        let vacuums = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 't'";
        assert_eq!(sql::value(&mut client, vacuums), "1");
    }
    check_everything(&cluster.server);
    // Not clean: unlogged tables are empty, as on a stock server.
    cluster.server.stop(ShutdownMode::Immediate).expect("pg_ctl stop");
    cluster.start_server();
    let mut client = cluster.connect();
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM u"), "0");
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM t"), "20000");
    let old_files = cluster.server.pgdata.join("pg_quorum/set_aside");
    wait_for("the files of before are removed", Duration::from_secs(60), || {
        !old_files.exists()
    });
    // Clean, but somebody else has written since.
    drop(client);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let port = cluster.server.port;
    let other = cluster.another_compute(port);
    other.start().expect("start the other server");
    sql::execute(
        &mut sql::connect(&other.uri()),
        "UPDATE t SET b = 'newer' WHERE a = 1",
    );
    other.stop(ShutdownMode::Fast).expect("stop the other server");
    let refused = cluster.refused_start();
    assert!(
        refused.contains("another compute has taken the volume"),
        "{refused}"
    );
    cluster.take_back_by_force();
    cluster.start_server();
    assert_eq!(
        sql::value(&mut cluster.connect(), "SELECT b FROM t WHERE a = 1"),
        "newer"
    );
}

#[test]
fn prewarm_reads_what_is_absent_and_no_more() {
    let settings = Settings::default().with("shared_buffers", "1MB");
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let cluster = Cluster::start_with("cache-prewarm", plan);
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE EXTENSION pg_quorum; \
         CREATE TABLE t AS SELECT g AS a, repeat('x', 500) AS b FROM generate_series(1, 9000) g",
    );
    sql::execute(&mut client, "CHECKPOINT");
    let blocks = sql::value(&mut client, "SELECT pg_relation_size('t') / 8192");
    sql::value(&mut client, "SELECT quorum.drop_cache('t')");
    let warmed: u64 = sql::value(&mut client, "SELECT quorum.prewarm('t')")
        .parse()
        .expect("a number");
    assert!(warmed > 0, "{blocks} blocks");
    assert_eq!(sql::value(&mut client, "SELECT quorum.prewarm('t')"), "0");
    let misses = cache(&mut client, "misses");
    assert_eq!(sql::value(&mut client, "SELECT sum(a) FROM t"), "40504500");
    assert_eq!(cache(&mut client, "misses"), misses);
    // Who may not read the table may not have it read; only superusers drop.
    sql::execute(&mut client, "CREATE ROLE plain; SET ROLE plain");
    for statement in ["SELECT quorum.prewarm('t')", "SELECT quorum.drop_cache()"] {
        let error = client.batch_execute(statement).expect_err(statement);
        assert!(sql::message(&error).contains("permission denied"), "{error}");
    }
}
