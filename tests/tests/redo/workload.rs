//! What the primary does: all kinds of records, as far as SQL can make them.
//!
//! Each script and each function is a step; the table says which step makes a kind of record.

mod gin;

use pg_quorum_deployment::Settings;
use pg_quorum_tests::sql::execute;

use crate::servers::{Script, Servers};

macro_rules! script {
    ($name:literal) => {
        Script {
            name: $name,
            text: include_str!(concat!("workload/", $name)),
        }
    };
}

const HEAP: Script = script!("heap.sql");
const BTREE: Script = script!("btree.sql");
const HASH: Script = script!("hash.sql");
const GIN: Script = script!("gin.sql");
const GIST: Script = script!("gist.sql");
const SPGIST: Script = script!("spgist.sql");
const BRIN: Script = script!("brin.sql");
const COUNTERS: Script = script!("counters.sql");
const OTHER: Script = script!("other.sql");

/// What the scripts count on.
pub fn settings() -> Settings {
    Settings::default()
        .with("wal_level", "logical")
        .with("full_page_writes", "off")
        .with("autovacuum", "off")
        // VACUUM passes over a page that the background writer holds.
        .with("bgwriter_lru_maxpages", 0)
        .with("allow_in_place_tablespaces", "on")
        .with("vacuum_multixact_freeze_min_age", 0)
        .with("vacuum_freeze_min_age", 0)
}

/// Some of it, for many replays.
pub fn run_quick(servers: &Servers) {
    servers.script(&HEAP);
    servers.script(&BTREE);
    servers.begin_step("GiST splits");
    servers.psql(
        "CREATE TABLE corners (at point) WITH (autovacuum_enabled = off);
         CREATE INDEX corners_at ON corners USING gist (at);
         INSERT INTO corners SELECT point(i * 37 % 101, i * 53 % 103) FROM generate_series(1, 2000) i;",
    );
    servers.stop();
}

/// Runs everything, with a restart under other parameters, a promotion and a crash in between, and stops the server.
pub fn run(servers: &Servers) {
    servers.script(&HEAP);
    servers.script(&BTREE);
    servers.script(&HASH);
    servers.script(&GIN);
    servers.script(&GIST);
    servers.script(&SPGIST);
    servers.script(&BRIN);
    servers.begin_step("GIN from several sessions");
    gin::insert_together(servers);
    servers.begin_step("GIN leaves of an old server");
    gin::change_old_leaves(servers);
    servers.begin_step("GiST splits among checkpoints");
    split_pages_among_checkpoints(servers);
    lock_rows_together(servers);
    servers.script(&COUNTERS);
    servers.begin_step("vacuumdb --freeze");
    servers.client_tool("vacuumdb", &["--all", "--freeze", "--quiet"]);
    servers.client_tool("vacuumdb", &["--all", "--freeze", "--quiet"]);
    servers.begin_step("restart");
    servers.stop();
    let more = Settings::default().with("max_connections", 123);
    servers.primary.configure(&more).expect("write postgresql.conf");
    servers.primary.start().expect("start the primary");
    servers.script(&OTHER);
    bank(servers);
    servers.begin_step("promotion");
    servers.stop();
    servers.promote();
    after_a_break(servers, "promotion");
    servers.begin_step("crash");
    servers.crash_inside_a_record();
    after_a_break(servers, "crash");
    servers.stop();
}

/// GiST page splits with checkpoints in the midst of them: the record that ends a split then has an image of the left
/// page, which redo changes nevertheless. Keys are large, so that every other insertion splits a page.
fn split_pages_among_checkpoints(servers: &Servers) {
    const KEYS: &str = "INSERT INTO halves SELECT noise(i, 28) FROM generate_series(1, 3000) i";
    servers.psql(
        "CREATE TABLE halves (k text) WITH (autovacuum_enabled = off);
         ALTER TABLE halves ALTER k SET STORAGE PLAIN;
         CREATE INDEX halves_k ON halves USING gist (k);
         ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf(); SELECT pg_sleep(0.5);",
    );
    let mut writer = servers.connect();
    let writer = std::thread::spawn(move || execute(&mut writer, KEYS));
    let mut checkpointer = servers.connect();
    while !writer.is_finished() {
        execute(&mut checkpointer, "CHECKPOINT");
    }
    writer.join().expect("the insertions");
    servers.psql("ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf(); SELECT pg_sleep(0.5);");
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
    servers.begin_step("lock_rows_together");
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
    servers.begin_step("pgbench");
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
