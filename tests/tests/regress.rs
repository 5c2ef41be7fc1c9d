//! PostgreSQL's own tests on a server with the extension, and the extension's own pg_regress suite in
//! pg_quorum/tests/regress.

use std::fs;
use std::process::Command;

use pg_quorum_deployment::{Settings, pg_regress, workspace_root};
use pg_quorum_tests::checks::check_everything;
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::postgres_tests::PostgresTests;
use pg_quorum_tests::sql;

#[test]
fn the_extensions_regression_tests_pass() {
    let suite = workspace_root().join("pg_quorum/tests/regress");
    let mut names: Vec<String> = fs::read_dir(suite.join("sql"))
        .expect("read the suite")
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "the suite is empty");
    let cluster = Cluster::start("regress");
    let server = &cluster.server;
    let output_directory = cluster.layout.root.join("regress");
    fs::create_dir_all(&output_directory).expect("make the output directory");
    let program = pg_regress(&server.binaries).expect("find pg_regress");
    let output = Command::new(program)
        .arg(format!("--inputdir={}", suite.display()))
        .arg(format!("--outputdir={}", output_directory.display()))
        .arg(format!("--bindir={}", server.binaries.postgres.display()))
        .args([
            "--host=127.0.0.1",
            &format!("--port={}", server.port),
            "--user=postgres",
            "--dbname=regression",
            "--load-extension=pg_quorum",
        ])
        .args(&names)
        .output()
        .expect("run pg_regress");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let differences = fs::read_to_string(output_directory.join("regression.diffs")).unwrap_or_default();
    assert!(
        output.status.success(),
        "{}\n{differences}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Unchanged scripts, unchanged expected output. What they leave behind is whole, also on a machine that has none of it.
#[test]
fn postgresqls_own_tests_pass() {
    let mut cluster = Cluster::start("core-regression");
    for tests in [PostgresTests::CoreRegression, PostgresTests::Isolation] {
        let directory = cluster.layout.root.join(format!("{tests:?}"));
        println!("{tests:?}: {} scripts", tests.pass(&cluster.server, &directory));
    }
    cluster.burn_compute();
    cluster.create_compute();
    cluster.start_server();
    check_everything(&cluster.server);
}

/// The same with hardly any buffers and a cache of a few megabytes: pages are dropped and fetched again all the time.
#[test]
fn postgresqls_own_tests_pass_with_a_tiny_cache() {
    let settings = Settings::default()
        .with("shared_buffers", "2MB")
        .with("pg_quorum.cache_size", "4MB");
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let cluster = Cluster::start_with("tiny-regression", plan);
    let directory = cluster.layout.root.join("tiny");
    let passed = PostgresTests::CoreRegression.pass(&cluster.server, &directory);
    println!("core regression with a tiny cache: {passed} scripts");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE EXTENSION pg_quorum");
    for counter in ["pages_dropped", "pages_refetched"] {
        let count: u64 = sql::value(&mut client, &format!("SELECT {counter} FROM quorum.cache"))
            .parse()
            .expect("a number");
        println!("{counter}: {count}");
        assert!(count > 1000, "{counter} is {count}");
    }
    check_everything(&cluster.server);
}
