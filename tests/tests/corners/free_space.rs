//! Free space that a map knew of, after every end of a server.

use std::path::Path;
use std::time::Duration;

use pg_quorum_deployment::ShutdownMode;
use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::{eviction, sql, wait_for};
use postgres::Client;

use super::{burn, small_cluster};

/// A table in which half of each page is free, all of them visible to all: VACUUM will not look at them again.
const HALF_EMPTY_TABLE: [&str; 5] = [
    "DROP TABLE IF EXISTS t",
    "CREATE TABLE t (a int, b text)",
    "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 14000) g",
    "DELETE FROM t WHERE a % 2 = 0",
    "VACUUM t",
];
const AS_MUCH_AS_WAS_DELETED: &str =
    "INSERT INTO t SELECT g, repeat('y', 500) FROM generate_series(1, 7000) g";

fn make_half_empty_table(client: &mut Client) {
    for statement in HALF_EMPTY_TABLE {
        sql::execute(client, statement);
    }
}

fn pages(client: &mut Client) -> u64 {
    let size = sql::value(client, "SELECT pg_relation_size('t') / 8192");
    size.parse().expect("pages")
}

/// A checkpoint writes the maps; then a whole look of the worker at what is written.
fn log_free_space(client: &mut Client) {
    sql::execute(client, "CHECKPOINT");
    let looks = |client: &mut Client| -> u64 {
        let looks = sql::value(client, "SELECT free_space_rounds FROM quorum.stat");
        looks.parse().expect("a number")
    };
    let before = looks(client);
    wait_for("maps are logged", Duration::from_secs(60), || {
        looks(client) >= before + 2
    });
}

fn stop(cluster: &Cluster) {
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
}

fn stop_and_start(cluster: &mut Cluster) {
    stop(cluster);
    cluster.start_server();
}

fn stop_and_move(cluster: &mut Cluster) {
    stop(cluster);
    burn(cluster);
}

fn crash(cluster: &mut Cluster) {
    log_free_space(&mut cluster.connect());
    cluster.server.kill_everything().expect("kill the server");
    cluster.start_server();
}

fn crash_and_move(cluster: &mut Cluster) {
    log_free_space(&mut cluster.connect());
    burn(cluster);
}

/// Files of maps in a data directory: none without the relation's own file.
fn count_maps(pgdata: &Path) -> usize {
    let entries = |directory: &Path| std::fs::read_dir(directory).expect("read a directory").flatten();
    let databases = entries(&pgdata.join("base")).map(|entry| entry.path());
    let files = databases.flat_map(|directory| entries(&directory).map(|entry| entry.path()));
    let maps = files.filter_map(|path| Some(path.to_str()?.strip_suffix("_fsm")?.to_owned()));
    maps.inspect(|main| assert!(Path::new(main).exists(), "{main} is gone, its map is there"))
        .count()
}

/// What ends a server, and starts it or another one.
type End = fn(&mut Cluster);

/// Without its map the table grows by half.
#[test]
fn what_was_free_is_found_after_every_end_of_a_server() {
    let mut cluster = small_cluster("free-space");
    let ends: [(&str, End); 4] = [
        ("a clean stop", stop_and_start),
        ("a clean stop, another directory", stop_and_move),
        ("a crash", crash),
        ("a crash, another directory", crash_and_move),
    ];
    for (end, happen) in ends {
        let mut client = cluster.connect();
        make_half_empty_table(&mut client);
        let before = pages(&mut client);
        drop(client);
        happen(&mut cluster);
        assert!(count_maps(&cluster.server.pgdata) > 10, "after {end}");
        let mut client = cluster.connect();
        sql::execute(&mut client, AS_MUCH_AS_WAS_DELETED);
        let by = pages(&mut client) - before;
        println!("after {end} {before} pages grow by {by}");
        assert!(by < before / 20, "after {end} {before} pages grew by {by}");
    }
}

/// A database that is copied from another one, and one that is moved, have maps of their own.
#[test]
fn maps_are_copied_and_moved_with_their_database() {
    let mut cluster = small_cluster("free-space-databases");
    let mut client = cluster.connect();
    make_half_empty_table(&mut client);
    let before = pages(&mut client);
    sql::execute(&mut client, "SET allow_in_place_tablespaces = on");
    sql::execute(&mut client, "CREATE TABLESPACE elsewhere LOCATION ''");
    drop(client);
    let mut other = sql::connect(&cluster.server.database_uri("template1"));
    sql::execute(&mut other, "CREATE DATABASE copy TEMPLATE postgres");
    sql::execute(&mut other, "CREATE DATABASE moved TEMPLATE postgres");
    sql::execute(&mut other, "ALTER DATABASE moved SET TABLESPACE elsewhere");
    drop(other);
    crash_and_move(&mut cluster);
    for database in ["copy", "moved"] {
        let mut client = sql::connect(&cluster.server.database_uri(database));
        assert_eq!(pages(&mut client), before);
        sql::execute(&mut client, AS_MUCH_AS_WAS_DELETED);
        let by = pages(&mut client) - before;
        println!("in {database} {before} pages grow by {by}");
        assert!(by < before / 20, "in {database} {before} pages grew by {by}");
    }
}

/// It is a hint: what needs one of its pages goes on without it.
#[test]
fn a_map_that_no_node_gives_is_taken_for_an_empty_one() {
    let cluster = small_cluster("free-space-away");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE EXTENSION pg_freespacemap");
    make_half_empty_table(&mut client);
    log_free_space(&mut client);
    let knows = "SELECT sum(avail) > 1000000 FROM pg_freespace('t')";
    assert_eq!(sql::value(&mut client, knows), "t");
    eviction::evict(&mut client, Some("t"));
    (0..6).for_each(|index| cluster.pause_node(index));
    assert_eq!(sql::value(&mut client, knows), "f");
    (0..6).for_each(|index| cluster.resume_node(index));
    // What was taken for the page has not come to stay.
    eviction::evict(&mut client, Some("t"));
    assert_eq!(sql::value(&mut client, knows), "t");
}
