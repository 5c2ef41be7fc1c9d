//! A volume becomes an ordinary cluster again, which a server without the extension starts.

use std::path::Path;

use pg_quorum_deployment::{Server, Settings, ShutdownMode, capture};
use pg_quorum_tests::checks::{assert_same_dump, check_amcheck, dump};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::sql;
use postgres::Client;

/// Something of every kind that a volume holds.
const CONTENT: &str = "\
    CREATE TABLE t (id int PRIMARY KEY, a text, p point, j int[]); \
    INSERT INTO t SELECT g, md5(g::text), point(g, -g), ARRAY[g, g % 7] FROM generate_series(1, 20000) g; \
    CREATE INDEX ON t USING hash (a); CREATE INDEX ON t USING gist (p); CREATE INDEX ON t USING spgist (p); \
    CREATE INDEX ON t USING gin (j); CREATE INDEX ON t USING brin (id); \
    DELETE FROM t WHERE id % 7 = 0; UPDATE t SET a = 'x' || a WHERE id % 11 = 0; VACUUM t; \
    CREATE TABLE wide (a text); ALTER TABLE wide ALTER a SET STORAGE EXTERNAL; \
    INSERT INTO wide SELECT repeat(md5(g::text), 1000) FROM generate_series(1, 100) g; \
    CREATE SEQUENCE s; SELECT nextval('s'); \
    CREATE UNLOGGED TABLE u (a int PRIMARY KEY); \
    CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t; \
    SELECT lo_from_bytea(0, 'large'::bytea)";

fn filled_cluster(name: &str) -> Cluster {
    let plan = Plan {
        initdb: vec!["--data-checksums"],
        settings: Settings::default()
            .with("max_prepared_transactions", "5")
            .with("allow_in_place_tablespaces", "on"),
        ..Plan::default()
    };
    let cluster = Cluster::start_with(name, plan);
    let mut client = cluster.connect();
    // One at a time: VACUUM and tablespaces allow no transaction around them.
    for statement in CONTENT.split("; ") {
        sql::execute(&mut client, statement);
    }
    sql::execute(&mut client, "CREATE TABLESPACE elsewhere LOCATION ''");
    sql::execute(
        &mut client,
        "CREATE TABLE e TABLESPACE elsewhere AS SELECT g FROM generate_series(1, 1000) g",
    );
    sql::execute(&mut client, "CREATE DATABASE other");
    sql::execute(
        &mut sql::connect(&cluster.server.database_uri("other")),
        "CREATE TABLE o AS SELECT 1 AS a",
    );
    sql::execute(
        &mut client,
        "BEGIN; INSERT INTO t VALUES (-1, 'prepared'); PREPARE TRANSACTION 'kept'",
    );
    cluster
}

/// Runs the tool, and gives the copy its port and a way in.
fn export(cluster: &Cluster, name: &str, port: u16, more: &[&str]) -> (Server, serde_json::Value) {
    let server = Server {
        pgdata: cluster.layout.compute(name),
        port,
        log: cluster.layout.compute_log(name),
        ..cluster.server.clone()
    };
    let mut command = cluster.quorumctl();
    command
        .args(["--json", "volume", "export", "-D"])
        .arg(&server.pgdata)
        .args(more);
    let printed = capture(&mut command).expect("quorumctl volume export");
    server.trust_loopback().expect("write pg_hba.conf");
    server
        .configure(&Settings::local(port, &cluster.layout.sockets()).with("allow_in_place_tablespaces", "on"))
        .expect("write postgresql.conf");
    let printed = serde_json::from_str(&printed).expect("JSON");
    (server, printed)
}

/// An ordinary server starts on it, finds everything right and writes.
fn check_copy(server: &Server, source_dump: &str) {
    for ours in ["backup_label", "pg_quorum"] {
        assert!(
            !server.pgdata.join(ours).exists(),
            "{ours} is in an ordinary cluster"
        );
    }
    check_checksums(server);
    server.start().unwrap_or_else(|error| panic!("{error:#}"));
    let mut client = sql::connect(&server.uri());
    assert_eq!(sql::value(&mut client, "SHOW shared_preload_libraries"), "");
    assert_same_dump(source_dump, &dump(server));
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM u"), "0");
    assert_eq!(
        sql::value(&mut client, "SELECT count(*) FROM t WHERE id = -2"),
        "0"
    );
    sql::execute(&mut client, "COMMIT PREPARED 'kept'");
    assert_eq!(
        sql::value(&mut client, "SELECT a FROM t WHERE id = -1"),
        "prepared"
    );
    write_and_check(&mut client, server);
    drop(client);
    // Also after a crash: its WAL is an ordinary one.
    server.kill_everything().expect("kill the server");
    server.start().unwrap_or_else(|error| panic!("{error:#}"));
    let mut client = sql::connect(&server.uri());
    assert_eq!(
        sql::value(&mut client, "SELECT count(*) FROM t WHERE id < -100"),
        "1000"
    );
    server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
}

/// `pg_checksums` reads every page of the stopped cluster.
fn check_checksums(server: &Server) {
    let mut command = server.account.command(server.binaries.postgres("pg_checksums"));
    command.args(["--check", "-D"]).arg(&server.pgdata);
    capture(&mut command).expect("pg_checksums --check");
}

fn write_and_check(client: &mut Client, server: &Server) {
    sql::execute(
        client,
        "INSERT INTO t SELECT -g, 'new' FROM generate_series(101, 1100) g",
    );
    sql::execute(client, "INSERT INTO u VALUES (1)");
    sql::execute(client, "CREATE TABLE after AS SELECT * FROM t");
    sql::execute(client, "CHECKPOINT");
    check_amcheck(server);
}

/// From a server that runs, with a transaction in progress; then from the same volume, stopped cleanly.
#[test]
fn an_exported_volume_starts_without_the_extension() {
    let cluster = filled_cluster("way-back");
    let mut in_progress = cluster.connect();
    sql::execute(
        &mut in_progress,
        "BEGIN; INSERT INTO t VALUES (-2, 'in progress')",
    );
    // Behind it in the log, so that the durable end is behind it, too.
    sql::execute(&mut cluster.connect(), "CREATE TABLE last AS SELECT 1 AS a");
    let source = dump(&cluster.server);
    let port = cluster.server.port + 20;
    let (copy, printed) = export(&cluster, "running", port, &[]);
    assert_eq!(printed["databases"], 5, "{printed}");
    assert_eq!(printed["prepared_transactions"], 1, "{printed}");
    // A sequence is logged 32 values ahead: a copy from a running server skips them, as after a crash.
    let ahead = source.replace("'public.s', 1, true", "'public.s', 33, true");
    check_copy(&copy, &ahead);

    // The volume has not noticed.
    sql::execute(&mut in_progress, "ROLLBACK");
    sql::execute(&mut cluster.connect(), "INSERT INTO e VALUES (0)");
    let source = dump(&cluster.server);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let tablespaces = cluster.layout.root.join("compute/tablespaces");
    let (copy, _) = export(&cluster, "stopped", port, &["--tablespaces", text(&tablespaces)]);
    check_copy_elsewhere(&copy, &source, &tablespaces);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Its tablespace is where it was told to be: a dump names that place, and nothing else differs.
fn check_copy_elsewhere(copy: &Server, source_dump: &str, tablespaces: &Path) {
    let oid = std::fs::read_dir(copy.pgdata.join("pg_tblspc"))
        .expect("read pg_tblspc")
        .next()
        .expect("a tablespace")
        .expect("an entry");
    assert!(oid.path().is_symlink());
    let place = tablespaces.join(oid.file_name());
    let relative = format!("pg_tblspc/{}", oid.file_name().to_string_lossy());
    let expected = source_dump.replace(&format!("'{relative}'"), &format!("'{}'", text(&place)));
    check_copy(copy, &expected);
}

#[test]
fn what_cannot_be_exported_leaves_nothing_behind() {
    let cluster = Cluster::start("no-way-back");
    let target = cluster.layout.compute("target");
    let refused = |more: &[&str]| {
        let mut command = cluster.quorumctl();
        command.args(["volume", "export", "-D"]).arg(&target).args(more);
        format!("{:#}", capture(&mut command).expect_err("exported"))
    };
    let said = refused(&["--lsn", "FFFF/0"]);
    assert!(said.contains("the volume ends at"), "{said}");
    assert!(!target.exists());
    cluster
        .server
        .account
        .create_dir(&target)
        .expect("make a directory");
    std::fs::write(target.join("precious"), "x").expect("write a file");
    let said = refused(&[]);
    assert!(said.contains("is not empty"), "{said}");
    assert!(target.join("precious").exists());
    assert_eq!(sql::value(&mut cluster.connect(), "SELECT 1"), "1");
}
