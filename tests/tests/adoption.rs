//! An existing cluster moves to the nodes by two settings and a start.

use std::ffi::OsString;
use std::time::Duration;

use pg_quorum_deployment::{Node, Settings, ShutdownMode, as_root, run};
use pg_quorum_tests::checks::{assert_same_dump, check_everything, dump};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::{sql, wait_for};

/// A stock cluster, filled and stopped, in the place of the cluster's server.
fn stock_cluster(name: &str, initdb: &[&str], content: &str) -> Cluster {
    let cluster = Cluster::nodes_only(name, Plan::default());
    cluster.make_stock_cluster(initdb);
    cluster.start_server();
    sql::execute(&mut cluster.connect(), content);
    cluster
}

fn adopt(cluster: &Cluster) {
    cluster
        .server
        .configure(&cluster.quorum_settings())
        .expect("write postgresql.conf");
}

const CONTENT: &str = "\
    CREATE TABLE t (id int PRIMARY KEY, a text); \
    INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 20000) g; \
    DELETE FROM t WHERE id % 7 = 0; UPDATE t SET a = 'x' || a WHERE id % 11 = 0; \
    CREATE SEQUENCE s; SELECT nextval('s'); \
    CREATE UNLOGGED TABLE u (a int PRIMARY KEY)";

#[test]
fn a_stopped_cluster_is_adopted_by_two_settings() {
    let mut cluster = stock_cluster("adoption", &[], CONTENT);
    sql::execute(&mut cluster.connect(), "CREATE DATABASE other");
    sql::execute(
        &mut sql::connect(&cluster.server.database_uri("other")),
        "CREATE TABLE o AS SELECT 1 AS a",
    );
    // Unlogged content is the data directory's own: it stays with it after a clean stop.
    sql::execute(&mut cluster.connect(), "INSERT INTO u VALUES (1)");
    let before = dump(&cluster.server);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    adopt(&cluster);
    cluster.start_server();
    assert_same_dump(&before, &dump(&cluster.server));
    check_everything(&cluster.server);
    // From now on it lives at the nodes.
    sql::execute(
        &mut cluster.connect(),
        "DROP EXTENSION IF EXISTS pg_visibility CASCADE",
    );
    sql::execute(&mut cluster.connect(), "DELETE FROM u");
    let before = dump_without_tools(&cluster);
    cluster.burn_compute();
    cluster.create_compute();
    cluster.start_server();
    assert_same_dump(&before, &dump_without_tools(&cluster));
    check_everything(&cluster.server);
}

/// The checks install extensions; a dump from before them has none.
fn dump_without_tools(cluster: &Cluster) -> String {
    for database in ["postgres", "other", "template1"] {
        let mut client = sql::connect(&cluster.server.database_uri(database));
        sql::execute(
            &mut client,
            "DROP EXTENSION IF EXISTS pg_visibility; DROP EXTENSION IF EXISTS amcheck",
        );
    }
    dump(&cluster.server)
}

#[test]
fn a_cluster_with_data_checksums_is_adopted() {
    let mut cluster = stock_cluster("checksums", &["--data-checksums"], CONTENT);
    let mut client = cluster.connect();
    for statement in [
        "CREATE TABLE h AS SELECT g AS a, repeat('x', 500) AS b FROM generate_series(1, 7000) g",
        "DELETE FROM h WHERE a % 2 = 0",
        "VACUUM h",
    ] {
        sql::execute(&mut client, statement);
    }
    let size = "SELECT pg_relation_size('h')";
    let before = sql::value(&mut client, size);
    drop(client);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    adopt(&cluster);
    cluster.start_server();
    cluster.burn_compute();
    cluster.create_compute();
    cluster.start_server();
    let mut client = cluster.connect();
    assert_eq!(sql::value(&mut client, "SHOW data_checksums"), "on");
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM t"), "17143");
    // Its free space maps have come along.
    sql::execute(
        &mut client,
        "INSERT INTO h SELECT g, repeat('y', 500) FROM generate_series(1, 3000) g",
    );
    assert_eq!(sql::value(&mut client, size), before);
    assert!(!cluster.server_log().contains("invalid page"));
    check_everything(&cluster.server);
}

/// It was a standby once: its log has a history, and begins in the middle of a segment of an older timeline.
#[test]
fn a_cluster_on_a_later_timeline_is_adopted() {
    let mut cluster = stock_cluster("timeline", &[], CONTENT);
    for timeline in 2..=3 {
        cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
        std::fs::write(cluster.server.pgdata.join("standby.signal"), "").expect("write standby.signal");
        cluster.start_server();
        let mut client = cluster.connect();
        assert_eq!(sql::value(&mut client, "SELECT pg_promote()"), "t");
        sql::execute(
            &mut client,
            &format!("CREATE TABLE on_{timeline} AS SELECT {timeline} AS a"),
        );
    }
    let before = dump(&cluster.server);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    adopt(&cluster);
    cluster.start_server();
    let timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    for _ in 0..2 {
        let mut client = cluster.connect();
        assert_eq!(sql::value(&mut client, timeline), "00000003");
        assert_same_dump(&before, &dump(&cluster.server));
        for _ in 0..2 {
            sql::value(
                &mut client,
                "SELECT pg_logical_emit_message(true, 'some', repeat('x', 100000))",
            );
            sql::value(&mut client, "SELECT pg_switch_wal()");
        }
        let histories = "SELECT count(*) FROM pg_ls_waldir() WHERE name LIKE '%.history'";
        assert_eq!(sql::value(&mut client, histories), "2");
        drop(client);
        cluster.burn_compute();
        cluster.create_compute();
        cluster.start_server();
    }
    check_everything(&cluster.server);
}

#[test]
fn a_cluster_that_was_not_stopped_cleanly_is_refused() {
    let cluster = stock_cluster("unclean", &[], CONTENT);
    cluster.server.kill_everything().expect("kill the server");
    adopt(&cluster);
    let said = cluster.refused_start();
    assert!(
        said.contains("not shut down cleanly") || said.contains("not stopped cleanly"),
        "{said}"
    );
    assert!(said.contains("HINT"), "no hint:\n{said}");
    // Started and stopped without the library, it is welcome.
    cluster
        .server
        .configure(&Settings::default().with("shared_preload_libraries", ""))
        .expect("write postgresql.conf");
    cluster.start_server();
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    adopt(&cluster);
    cluster.start_server();
    assert_eq!(
        sql::value(&mut cluster.connect(), "SELECT count(*) FROM t"),
        "17143"
    );
}

/// A cluster whose import takes a while, stopped.
fn cluster_with_a_long_import(name: &str) -> Cluster {
    let cluster = stock_cluster(name, &[], CONTENT);
    sql::execute(
        &mut cluster.connect(),
        "CREATE TABLE large AS SELECT g, repeat(md5(g::text), 30) AS a FROM generate_series(1, 200000) g",
    );
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    adopt(&cluster);
    cluster
}

/// Starts the server, which begins to import, and calls `interrupt` meanwhile. What the start that fails says.
fn interrupted_start(cluster: &mut Cluster, interrupt: impl FnOnce(&mut Cluster)) -> String {
    let starting = std::thread::spawn({
        let server = cluster.server.clone();
        move || server.start()
    });
    // Of all nodes: before, the volume is still being made of them, and taken.
    wait_for("all nodes import", Duration::from_secs(60), || {
        cluster.nodes.iter().all(|node| !imported_stores(node).is_empty())
    });
    interrupt(cluster);
    match starting.join().expect("the starting thread") {
        Ok(()) => panic!("the import was over before it was interrupted"),
        Err(error) => format!("{error:#}"),
    }
}

/// The next start has sent everything again, and no node keeps anything of the import before.
fn assert_repeated_cleanly(cluster: &Cluster) {
    assert_eq!(
        sql::value(&mut cluster.connect(), "SELECT count(*) FROM large"),
        "200000"
    );
    check_everything(&cluster.server);
    // The first start may have been interrupted before it said that it imports.
    let imports = cluster.server_log().matches("pg_quorum: imported ").count();
    assert_eq!(imports, 1, "{}", cluster.server_log());
    for node in &cluster.nodes {
        let stores = imported_stores(node);
        assert_eq!(stores.len(), 1, "{}: {stores:?}", node.name);
    }
}

/// What a node has of imports: a directory for each, from its beginning on.
fn imported_stores(node: &Node) -> Vec<OsString> {
    let Ok(entries) = std::fs::read_dir(node.data().join("derived")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("store-"))
        .collect()
}

/// The import dies half way; the next start sends everything again.
#[test]
fn an_interrupted_import_is_replaced_by_the_next_start() {
    let mut cluster = cluster_with_a_long_import("interrupted-import");
    interrupted_start(&mut cluster, |cluster| {
        cluster.server.kill_everything().expect("kill the server");
    });
    cluster.start_server();
    assert_repeated_cleanly(&cluster);
}

/// Three nodes die half way: the start says so and leaves the cluster as it was. With them back the next one repeats it.
#[test]
fn an_import_that_loses_its_quorum_is_repeated_by_the_next_start() {
    const LOST: [usize; 3] = [0, 2, 4];
    let mut cluster = cluster_with_a_long_import("import-without-a-quorum");
    let said = interrupted_start(&mut cluster, |cluster| {
        LOST.into_iter().for_each(|index| cluster.kill_node(index));
    });
    assert!(
        said.contains("fewer than four segments got a complete base"),
        "{said}"
    );
    assert!(said.contains("Nothing of this directory was changed"), "{said}");
    LOST.into_iter().for_each(|index| cluster.start_node(index));
    cluster.start_server();
    assert_repeated_cleanly(&cluster);
}

/// A cluster as Debian makes them: its configuration is in /etc, outside of its data directory.
#[test]
fn a_debian_cluster_is_adopted_where_it_is() {
    let cluster = Cluster::nodes_only("debian", Plan::default());
    let name = format!("pgq{}", std::process::id());
    let debian = DebianCluster::create(&cluster, &name);
    debian.control("start");
    let mut client = sql::connect(&cluster.server.uri());
    sql::execute(&mut client, CONTENT);
    drop(client);
    let before = dump(&cluster.server);
    debian.control("stop");
    let settings = cluster.quorum_settings().to_conf();
    let draft = cluster.layout.root.join("quorum.conf");
    std::fs::write(&draft, settings).expect("write the settings");
    let target = debian.added_settings();
    run(as_root("install")
        .expect("root")
        .args(["-m", "644"])
        .arg(&draft)
        .arg(target))
    .expect("install the settings");
    debian.control("start");
    assert_same_dump(&before, &dump(&cluster.server));
    check_everything(&cluster.server);
    let shown = sql::value(&mut cluster.connect(), "SHOW shared_preload_libraries");
    assert_eq!(shown, "pg_quorum");
}

/// Dropped, with everything that it has in /etc, when the test ends.
struct DebianCluster {
    name: String,
}

impl DebianCluster {
    /// Where settings are put that Debian does not know of.
    fn added_settings(&self) -> String {
        format!("/etc/postgresql/15/{}/conf.d/quorum.conf", self.name)
    }

    fn create(cluster: &Cluster, name: &str) -> DebianCluster {
        let server = &cluster.server;
        let mut command = as_root("pg_createcluster").expect("root");
        command
            .args([
                "15",
                name,
                "--start-conf",
                "manual",
                "--port",
                &server.port.to_string(),
                "--datadir",
            ])
            .arg(&server.pgdata)
            .arg("--logfile")
            .arg(&server.log)
            .arg("--user")
            .arg(&server.account.name)
            .args(["--locale", "C.UTF-8", "--", "--auth=trust", "--username=postgres"]);
        pg_quorum_deployment::capture(&mut command).expect("pg_createcluster");
        DebianCluster {
            name: name.to_owned(),
        }
    }

    fn control(&self, action: &str) {
        let mut command = as_root("pg_ctlcluster").expect("root");
        // Systemd, where it runs, would start it as a service of its own.
        command.args(["--skip-systemctl-redirect", "15", &self.name, action]);
        pg_quorum_deployment::capture(&mut command).expect("pg_ctlcluster");
    }
}

impl Drop for DebianCluster {
    fn drop(&mut self) {
        // The cluster's directory stays where something is in it that Debian did not make.
        let added = self.added_settings();
        let steps: [(&str, &[&str]); 2] = [
            ("rm", &["-f", &added]),
            ("pg_dropcluster", &["--stop", "15", &self.name]),
        ];
        for (program, arguments) in steps {
            let done = as_root(program)
                .and_then(|mut command| pg_quorum_deployment::capture(command.args(arguments)));
            if let Err(error) = done {
                eprintln!("{error:#}");
            }
        }
    }
}
