//! Databases, tablespaces and relations that come, move and go.

use pg_quorum_tests::checks::{assert_same_dump, check_everything, dump};
use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::{eviction, sql};

use super::{PAGES_OF_A_DUMP, assert_survives_a_burnt_machine, small_cluster};

#[test]
fn databases_made_by_either_strategy_survive_and_dropped_ones_stay_away() {
    let mut cluster = small_cluster("databases");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE DATABASE source");
    sql::execute(
        &mut sql::connect(&cluster.server.database_uri("source")),
        "CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 5000) g",
    );
    for statement in [
        "CREATE DATABASE by_log TEMPLATE source STRATEGY wal_log",
        "CREATE DATABASE by_files TEMPLATE source STRATEGY file_copy",
        "CREATE DATABASE dropped TEMPLATE source",
        "DROP DATABASE dropped",
        "ALTER DATABASE by_log RENAME TO renamed",
    ] {
        sql::execute(&mut client, statement);
    }
    for database in ["renamed", "by_files"] {
        let mut client = sql::connect(&cluster.server.database_uri(database));
        sql::execute(&mut client, "DELETE FROM t WHERE a > 4000");
        assert_eq!(sql::value(&mut client, "SELECT count(*) FROM t"), "4000");
    }
    drop(client);
    assert_survives_a_burnt_machine(&mut cluster);
    let dropped = sql::value(
        &mut cluster.connect(),
        "SELECT count(*) FROM pg_database WHERE datname = 'dropped'",
    );
    assert_eq!(dropped, "0");
}

#[test]
fn tablespaces_and_what_is_in_them_are_rebuilt() {
    let mut cluster = small_cluster("tablespaces");
    let place = cluster.layout.root.join("tablespace");
    cluster
        .server
        .account
        .create_dir(&place)
        .expect("make the tablespace's directory");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        &format!("CREATE TABLESPACE space LOCATION '{}'", place.display()),
    );
    sql::execute(
        &mut client,
        "CREATE TABLE t (a int PRIMARY KEY USING INDEX TABLESPACE space) TABLESPACE space",
    );
    sql::execute(&mut client, "INSERT INTO t SELECT generate_series(1, 10000)");
    sql::execute(&mut client, "CREATE DATABASE moved");
    sql::execute(
        &mut sql::connect(&cluster.server.database_uri("moved")),
        "CREATE TABLE m AS SELECT g AS a FROM generate_series(1, 10000) g",
    );
    sql::execute(&mut client, "ALTER DATABASE moved SET TABLESPACE space");
    sql::execute(&mut client, "ALTER TABLE t SET TABLESPACE pg_default");
    let there = |cluster: &Cluster| {
        let mut client = sql::connect(&cluster.server.database_uri("moved"));
        sql::value(&mut client, "SELECT count(*) || ' ' || sum(a) FROM m")
    };
    assert_eq!(there(&cluster), "10000 50005000");
    let look = || dump(&cluster.server);
    let before = eviction::assert_same_after_eviction(&mut client, PAGES_OF_A_DUMP, look);
    drop(client);
    cluster.burn_compute();
    // The other disk burns as well.
    std::fs::remove_dir_all(&place).expect("remove the tablespace's directory");
    cluster
        .server
        .account
        .create_dir(&place)
        .expect("make the tablespace's directory");
    cluster.create_compute();
    cluster.start_server();
    assert_same_dump(&before, &dump(&cluster.server));
    assert_eq!(there(&cluster), "10000 50005000");
    sql::execute(
        &mut cluster.connect(),
        "ALTER DATABASE moved SET TABLESPACE pg_default",
    );
    assert_eq!(there(&cluster), "10000 50005000");
    check_everything(&cluster.server);
}

#[test]
fn rewritten_truncated_and_rebuilt_relations_survive() {
    let mut cluster = small_cluster("rewrites");
    let mut client = cluster.connect();
    for statement in [
        "CREATE TABLE t (a int PRIMARY KEY, b text)",
        "INSERT INTO t SELECT g, repeat('x', g % 500) FROM generate_series(1, 20000) g",
        "CREATE INDEX t_b ON t (b)",
        "DELETE FROM t WHERE a > 15000",
        // The tail is empty: the heap and its maps become shorter.
        "VACUUM t",
        "CLUSTER t USING t_pkey",
        "ALTER TABLE t ALTER a TYPE bigint",
        "VACUUM FULL t",
        "REINDEX TABLE CONCURRENTLY t",
        "CREATE INDEX CONCURRENTLY t_c ON t ((a % 10))",
        "DROP INDEX t_b",
        "CREATE TABLE gone AS SELECT * FROM t",
        "TRUNCATE gone",
        "INSERT INTO gone SELECT * FROM t WHERE a <= 10",
        "CREATE TABLE dropped AS SELECT * FROM t",
        "DROP TABLE dropped",
        "CREATE TABLE frozen (a int)",
        "BEGIN; TRUNCATE frozen; COPY frozen FROM PROGRAM 'seq 1 5000' WITH (FREEZE); COMMIT",
        "VACUUM FULL pg_class",
        "VACUUM FULL pg_type",
        "VACUUM FULL pg_database",
        "REINDEX SYSTEM postgres",
        "CREATE MATERIALIZED VIEW m AS SELECT a FROM t",
        "REFRESH MATERIALIZED VIEW m",
        "CREATE TABLE toasted AS SELECT g, (SELECT string_agg(md5(g::text || h::text), '') FROM generate_series(1, 300) h) AS big \
         FROM generate_series(1, 200) g",
        "UPDATE toasted SET big = big || 'x' WHERE g % 2 = 0",
        "DELETE FROM toasted WHERE g % 3 = 0",
        "VACUUM (FREEZE, ANALYZE)",
        "UPDATE t SET b = 'after the freeze' WHERE a % 100 = 0",
    ] {
        sql::execute(&mut client, statement);
    }
    let size = "SELECT string_agg(c.relname || ' ' || pg_relation_size(c.oid), ', ' ORDER BY c.relname) \
                FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i', 'm')";
    let before = sql::value(&mut client, size);
    drop(client);
    assert_survives_a_burnt_machine(&mut cluster);
    assert_eq!(
        sql::value(&mut cluster.connect(), size),
        before,
        "sizes of relations"
    );
}
