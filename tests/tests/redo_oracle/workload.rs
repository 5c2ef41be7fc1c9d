//! What the primary does: all records of the supported resource managers, as far as SQL can make them.

use pg_quorum_deployment::Settings;
use pg_quorum_tests::sql::execute;

use crate::servers::Servers;

const HEAP: &str = include_str!("workload/heap.sql");
const BTREE: &str = include_str!("workload/btree.sql");
const HASH: &str = include_str!("workload/hash.sql");
const BRIN: &str = include_str!("workload/brin.sql");
const GIST: &str = include_str!("workload/gist.sql");
const SPGIST: &str = include_str!("workload/spgist.sql");
const COUNTERS: &str = include_str!("workload/counters.sql");
const OTHER: &str = include_str!("workload/other.sql");

/// Runs everything, with a restart under other parameters, a promotion and a crash in between, and stops the server.
pub fn run(servers: &Servers) {
    servers.script(HEAP);
    servers.script(BTREE);
    servers.script(HASH);
    servers.script(BRIN);
    servers.script(GIST);
    servers.script(SPGIST);
    lock_rows_together(servers);
    servers.script(COUNTERS);
    servers.client_tool("vacuumdb", &["--all", "--freeze", "--quiet"]);
    servers.client_tool("vacuumdb", &["--all", "--freeze", "--quiet"]);
    servers.stop();
    let more = Settings::default().with("max_connections", 123);
    servers.primary.configure(&more).expect("write postgresql.conf");
    servers.primary.start().expect("start the primary");
    servers.script(OTHER);
    bank(servers);
    servers.stop();
    servers.promote();
    after_a_break(servers, "promotion");
    servers.crash_inside_a_record();
    after_a_break(servers, "crash");
    servers.stop();
}

/// Some work on new and on old pages, at the start of a segment, and a new segment behind it.
fn after_a_break(servers: &Servers, name: &str) {
    let mut client = servers.connect();
    for statement in [
        "SELECT pg_switch_wal()",
        &format!(
            "CREATE TABLE after_{name} AS SELECT g AS a, repeat('x', 100) AS b FROM generate_series(1, 500) g"
        ),
        &format!("CREATE INDEX ON after_{name} (a)"),
        "UPDATE pgbench_branches SET bbalance = bbalance + 1",
        &format!("DELETE FROM after_{name} WHERE a % 3 = 0"),
        &format!("VACUUM after_{name}"),
        "SELECT pg_switch_wal()",
    ] {
        execute(&mut client, statement);
    }
}

/// Multixacts: two sessions that lock the same rows, one in a new subtransaction for each; locks that follow an update
/// to newer versions.
fn lock_rows_together(servers: &Servers) {
    let mut one = servers.connect();
    let mut other = servers.connect();
    execute(
        &mut one,
        "CREATE TABLE locked (id int PRIMARY KEY, n int) WITH (autovacuum_enabled = off);
         INSERT INTO locked SELECT i, 0 FROM generate_series(1, 5000) i;",
    );
    execute(
        &mut one,
        "BEGIN; SELECT count(*) FROM (SELECT id FROM locked FOR KEY SHARE) q",
    );
    execute(
        &mut other,
        "DO $$ BEGIN FOR i IN 1..5000 LOOP
           BEGIN PERFORM 1 FROM locked WHERE id = i FOR KEY SHARE;
           EXCEPTION WHEN OTHERS THEN NULL; END;
         END LOOP; END $$",
    );
    execute(&mut other, "UPDATE locked SET n = n + 1 WHERE id % 3 = 0");
    execute(&mut one, "COMMIT");
    execute(&mut one, "BEGIN; UPDATE locked SET n = n + 1 WHERE id <= 100");
    execute(
        &mut other,
        "BEGIN; SELECT count(*) FROM (SELECT id FROM locked WHERE id <= 200 FOR KEY SHARE) q",
    );
    execute(&mut one, "COMMIT");
    execute(
        &mut one,
        "SELECT count(*) FROM (SELECT id FROM locked WHERE id <= 300 FOR KEY SHARE) q",
    );
    execute(&mut other, "COMMIT");
    execute(&mut one, "DELETE FROM locked WHERE id % 10 = 0");
    // Locks that follow the chain into frozen pages clear bits of the map.
    execute(&mut one, "VACUUM (FREEZE) locked");
    execute(
        &mut one,
        "BEGIN; UPDATE locked SET n = n + 1 WHERE id BETWEEN 401 AND 600",
    );
    execute(
        &mut other,
        "BEGIN; SELECT count(*) FROM (SELECT id FROM locked WHERE id BETWEEN 401 AND 700 FOR KEY SHARE) q",
    );
    execute(&mut other, "COMMIT");
    execute(&mut one, "ROLLBACK");
}

/// Concurrent small transactions.
fn bank(servers: &Servers) {
    servers.client_tool("pgbench", &["--initialize", "--quiet", "postgres"]);
    servers.client_tool(
        "pgbench",
        &[
            "--client=4",
            "--transactions=1000",
            "--random-seed=7",
            "--no-vacuum",
            "postgres",
        ],
    );
    servers.client_tool("vacuumdb", &["--quiet", "postgres"]);
}
