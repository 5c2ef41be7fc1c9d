//! The extension's own pg_regress suite, in pg_quorum/tests/regress.

use std::fs;
use std::process::Command;

use pg_quorum_deployment::workspace_root;
use pg_quorum_tests::cluster::Cluster;

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
    let pgxs = server.binaries.pg_config("--pgxs").expect("pg_config --pgxs");
    let program = pgxs
        .parent()
        .expect("a directory")
        .join("../test/regress/pg_regress");
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
