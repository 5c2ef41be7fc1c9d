//! A server and nodes that speak mutual TLS and want tokens, with certificates and tokens by `quorumctl pki`.

use std::thread;
use std::time::Duration;

use pg_quorum_deployment::{ShutdownMode, capture};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::{sql, wait_for};

#[test]
fn a_server_with_a_certificate_commits_and_reads_and_one_without_is_refused() {
    // Certificates by hand, one after the other.
    let plain = Plan {
        plain: true,
        ..Plan::default()
    };
    let mut cluster = Cluster::stopped("tls", plain);
    let pki = cluster.layout.root.join("pki");
    cluster.server.account.create_dir(&pki).expect("make pki/");
    for arguments in [
        &["pki", "init"][..],
        &["pki", "node", "--host", "127.0.0.1"],
        &["pki", "compute"],
    ] {
        let account = &cluster.server.account;
        let mut command = account.command(cluster.server.binaries.quorumctl());
        capture(command.args(arguments).arg("--dir").arg(&pki)).expect("quorumctl pki");
    }
    let file = |name: &str| pki.join(name).display().to_string();
    let flags = [
        ("--tls-ca", "ca.pem"),
        ("--tls-cert", "node.pem"),
        ("--tls-key", "node.key"),
    ];
    let flags: Vec<String> = flags
        .iter()
        .flat_map(|(flag, name)| [(*flag).to_owned(), file(name)])
        .collect();
    for index in 0..cluster.nodes.len() {
        cluster.start_node_with(index, &flags);
    }

    cluster.server.initdb(&[]).expect("initdb");
    cluster.server.trust_loopback().expect("write pg_hba.conf");
    let settings = cluster
        .settings(cluster.server.port)
        .with("pg_quorum.attach_timeout", "3s");
    cluster
        .server
        .configure(&settings)
        .expect("write postgresql.conf");
    let said = cluster.refused_start();
    assert!(said.contains("fewer than four"), "{said}");

    let half = settings.with("pg_quorum.tls_ca_file", file("ca.pem"));
    cluster.server.configure(&half).expect("write postgresql.conf");
    let said = cluster.refused_start();
    assert!(said.contains("not given: certificate, key"), "{said}");

    let whole = half
        .with("pg_quorum.tls_cert_file", file("compute.pem"))
        .with("pg_quorum.tls_key_file", file("compute.key"))
        .with("pg_quorum.attach_timeout", "60s");
    cluster.server.configure(&whole).expect("write postgresql.conf");
    cluster.start_server();
    sql::execute(
        &mut cluster.connect(),
        "CREATE TABLE t AS SELECT g AS a, repeat('x', 500) AS b FROM generate_series(1, 20000) g",
    );
    // The last record goes to the nodes without the link worker; after a crash the pages come from them.
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    cluster.start_server();
    cluster.server.kill_everything().expect("kill the server");
    cluster.start_server();
    let sum = sql::value(&mut cluster.connect(), "SELECT sum(length(b)) FROM t");
    assert_eq!(sum, "10000000");
}

/// A token runs out over a weekend: the link's streams end, commits wait, the log says why. Whoever then puts a new file into
/// the old one's place restarts nothing, and nothing is lost.
#[test]
fn commits_wait_when_the_servers_token_has_expired_and_go_on_with_a_new_one() {
    let mut cluster = Cluster::start("tokens");
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE t AS SELECT generate_series(1, 1000) AS a",
    );
    let volume = cluster.status()[0].volume.clone().expect("a volume");

    // Streams that stand were opened with the first token, which lasts; a node that comes back is shown the new one.
    cluster.renew_token(&volume, "5s");
    for index in 0..cluster.nodes.len() {
        cluster.stop_node(index);
        cluster.start_node(index);
    }
    wait_for(
        "the server says why commits wait",
        Duration::from_secs(60),
        || {
            let log = cluster.server_log();
            log.contains("commits wait") && log.contains("the token of \"compute\" has expired")
        },
    );
    let refused = "was refused: the token of \"compute\" has expired";
    wait_for("each node says whom it refuses", Duration::from_secs(60), || {
        let has_said =
            |log: std::path::PathBuf| std::fs::read_to_string(log).is_ok_and(|log| log.contains(refused));
        cluster.nodes.iter().all(|node| has_said(node.log()))
    });

    let waiting = thread::spawn(move || sql::execute(&mut client, "INSERT INTO t VALUES (1001)"));
    thread::sleep(Duration::from_secs(2));
    assert!(
        !waiting.is_finished(),
        "a commit was acknowledged without a quorum"
    );
    assert_eq!(
        sql::value(&mut cluster.connect(), "SELECT count(*) FROM t"),
        "1000"
    );

    cluster.renew_token(&volume, "1h");
    wait_for("the commit goes on", Duration::from_secs(60), || {
        waiting.is_finished()
    });
    waiting.join().expect("the commit");
    cluster.server.kill_everything().expect("kill the server");
    cluster.start_server();
    assert_eq!(
        sql::value(&mut cluster.connect(), "SELECT count(*) FROM t"),
        "1001"
    );

    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    let settings = cluster
        .settings(cluster.server.port)
        .with("pg_quorum.attach_timeout", "3s")
        .with("pg_quorum.token_file", "nowhere.token");
    cluster
        .server
        .configure(&settings)
        .expect("write postgresql.conf");
    let said = cluster.refused_start();
    assert!(said.contains("the token cannot be used: nowhere.token"), "{said}");
}
