//! Bad input: each is one clear message, and nothing is lost by it.

use std::fs;
use std::net::TcpListener;

use pg_quorum_deployment::{Settings, ShutdownMode};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::sql;

/// The message must contain each of the words: what is wrong, and with what.
#[track_caller]
fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "no {word:?} in:\n{said}"
        );
    }
}

fn configure(cluster: &Cluster, name: &str, value: &str) {
    cluster
        .server
        .configure(&Settings::default().with(name, value))
        .expect("write postgresql.conf");
}

#[test]
fn fewer_than_four_nodes_are_named_and_the_start_is_refused() {
    let mut cluster = Cluster::start("three-nodes");
    sql::execute(&mut cluster.connect(), "CREATE TABLE t AS SELECT 1 AS a");
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    for index in [0, 1, 2] {
        cluster.kill_node(index);
    }
    // A short patience, so that the test does not wait for the usual one.
    configure(&cluster, "pg_quorum.attach_timeout", "3s");
    let said = cluster.refused_start();
    assert_says(&said, &["FATAL", &cluster.nodes[0].address(), "4"]);
    cluster.start_node(1);
    cluster.start_server();
    assert_eq!(sql::value(&mut cluster.connect(), "SELECT a FROM t"), "1");
}

#[test]
fn an_address_that_is_no_node_is_named() {
    let cluster = Cluster::nodes_only("no-node", Plan::default());
    cluster.make_cluster();
    let other = TcpListener::bind("127.0.0.1:0").expect("a listener that is no node");
    let stranger = other.local_addr().expect("its address").to_string();
    let mut addresses = cluster.addresses();
    addresses[2].clone_from(&stranger);
    configure(&cluster, "pg_quorum.nodes", &addresses.join(","));
    configure(&cluster, "pg_quorum.attach_timeout", "3s");
    let said = cluster.refused_start();
    // A first import needs all six.
    assert_says(&said, &["FATAL", &stranger]);
    configure(&cluster, "pg_quorum.nodes", &cluster.addresses().join(","));
    cluster.start_server();
}

#[test]
fn addresses_that_cannot_be_ones_are_refused() {
    let cluster = Cluster::nodes_only("bad-addresses", Plan::default());
    cluster.make_cluster();
    for nodes in ["", "127.0.0.1:1,127.0.0.1:2", "not an address,b,c,d,e,f"] {
        configure(&cluster, "pg_quorum.nodes", nodes);
        assert_says(&cluster.refused_start(), &["pg_quorum.nodes"]);
    }
}

#[test]
fn a_volume_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start("another-cluster");
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let first = cluster.server.clone();
    cluster.server.pgdata = cluster.layout.compute("stranger");
    cluster.server.log = cluster.layout.compute_log("stranger");
    cluster.make_cluster();
    assert_says(&cluster.refused_start(), &["FATAL", "system identifier"]);
    cluster.server = first;
    cluster.start_server();
}

/// The md files of a compute are a cache: what is not in it reads as zeros. A server without the library would take
/// the holes for empty pages.
#[test]
fn a_compute_directory_does_not_start_without_the_library() {
    let cluster = Cluster::start("no-library");
    sql::execute(&mut cluster.connect(), "CREATE TABLE t AS SELECT 1 AS a");
    for mode in [ShutdownMode::Fast, ShutdownMode::Immediate] {
        cluster.server.stop(mode).expect("pg_ctl stop");
        configure(&cluster, "shared_preload_libraries", "");
        assert_says(&cluster.refused_start(), &["FATAL"]);
        configure(&cluster, "shared_preload_libraries", "pg_quorum");
        cluster.start_server();
        assert_eq!(sql::value(&mut cluster.connect(), "SELECT a FROM t"), "1");
    }
}

#[test]
fn single_user_mode_is_refused() {
    let cluster = Cluster::start("single-user");
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let server = &cluster.server;
    let mut command = server.account.command(server.binaries.postgres("postgres"));
    command
        .arg("--single")
        .arg("-D")
        .arg(&server.pgdata)
        .arg("postgres");
    let output = command.output().expect("run postgres --single");
    assert!(!output.status.success(), "single-user mode started");
    assert_says(
        &String::from_utf8_lossy(&output.stderr),
        &["FATAL", "single-user"],
    );
    cluster.start_server();
}

#[test]
fn settings_that_would_lose_data_are_refused_by_name() {
    let cluster = Cluster::start("settings");
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let conf = cluster.server.pgdata.join("postgresql.conf");
    let good = fs::read_to_string(&conf).expect("read postgresql.conf");
    for (name, value) in [
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        ("archive_mode", "on"),
        ("fsync", "off"),
        ("synchronous_standby_names", "somebody"),
    ] {
        configure(&cluster, name, value);
        if name == "wal_level" {
            // Otherwise the server itself refuses the two together, before it loads a library.
            configure(&cluster, "max_wal_senders", "0");
        }
        let said = cluster.refused_start();
        assert_says(&said, &["FATAL", name, "HINT"]);
        fs::write(&conf, &good).expect("write postgresql.conf");
    }
    cluster.start_server();
}

/// Emptying `synchronous_standby_names` would switch the wait for the quorum off.
#[test]
fn a_reload_cannot_switch_the_commit_wait_off() {
    let cluster = Cluster::start("reload");
    configure(&cluster, "synchronous_standby_names", "");
    let mut client = cluster.connect();
    sql::execute(&mut client, "SELECT pg_reload_conf()");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let names = sql::value(&mut client, "SHOW synchronous_standby_names");
    assert!(
        names.contains("pg_quorum"),
        "synchronous_standby_names = {names:?} after a reload"
    );
    let refused = client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = ''");
    if refused.is_ok() {
        sql::execute(&mut client, "SELECT pg_reload_conf()");
        std::thread::sleep(std::time::Duration::from_secs(1));
        let names = sql::value(&mut client, "SHOW synchronous_standby_names");
        assert!(
            names.contains("pg_quorum"),
            "synchronous_standby_names = {names:?} after ALTER SYSTEM"
        );
    }
}

#[test]
fn a_data_directory_of_another_major_version_is_refused() {
    let cluster = Cluster::nodes_only("other-major", Plan::default());
    cluster.make_cluster();
    fs::write(cluster.server.pgdata.join("PG_VERSION"), "14\n").expect("write PG_VERSION");
    assert_says(&cluster.refused_start(), &["FATAL", "14"]);
    fs::write(cluster.server.pgdata.join("PG_VERSION"), "15\n").expect("write PG_VERSION");
    cluster.start_server();
}

/// The files of a compute's directory have holes: a copy of them would be silently broken.
#[test]
fn a_base_backup_is_refused_with_the_command_to_use() {
    let cluster = Cluster::start("base-backup");
    let server = &cluster.server;
    let output = server
        .account
        .command(server.binaries.postgres("pg_basebackup"))
        .args([
            "--host=127.0.0.1",
            "--username=postgres",
            "--checkpoint=fast",
            "--port",
        ])
        .arg(server.port.to_string())
        .arg("--pgdata")
        .arg(cluster.layout.root.join("backup"))
        .output()
        .expect("run pg_basebackup");
    assert!(!output.status.success(), "a base backup was made");
    assert_says(
        &String::from_utf8_lossy(&output.stderr),
        &["base backup", "quorumctl compute create"],
    );
}
