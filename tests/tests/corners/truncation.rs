//! A barrier that arrives inside of a truncation.

use std::thread::JoinHandle;
use std::time::Duration;

use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::{eviction, sql, wait_for};
use postgres::Client;

use super::{assert_survives_a_burnt_machine, small_cluster};

/// Pages of `t` before and after the truncation; one page of the visibility map is enough for them.
const PAGES: u64 = 500;
const PAGES_KEPT: u64 = 100;
/// Of the free space map, which may go once they have been logged.
const PAGES_OF_FREE_SPACE: u64 = 3;

/// What a session waits for, as `pg_stat_activity` shows it.
fn waits_for(observer: &mut Client, application: &str) -> String {
    let shown = format!(
        "SELECT coalesce(max(concat(wait_event_type, '/', wait_event)), '') FROM pg_stat_activity \
         WHERE application_name = '{application}'"
    );
    sql::value(observer, &shown)
}

fn session(cluster: &Cluster, application: &str) -> Client {
    let mut client = cluster.connect();
    sql::execute(&mut client, &format!("SET application_name = '{application}'"));
    client
}

const PHASE: &str = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE phase = 'truncating heap'";

/// Drops all of `t` from the buffers and the cache, the page of its map included, and brings the table itself back: the
/// next who needs the map asks a node.
fn leave_the_map_to_storage(client: &mut Client) -> bool {
    let dropped = eviction::evict(client, Some("t"));
    let is_all_dropped = dropped == PAGES + 1 || dropped == PAGES + 1 + PAGES_OF_FREE_SPACE;
    sql::value(client, "SELECT quorum.prewarm('t')");
    is_all_dropped
}

/// A vacuum that has begun to truncate `t`, and waits at paused nodes for the page of the map. `None`, with nothing
/// truncated, if it would not wait for the table for so long.
fn begin_truncation(cluster: &Cluster, client: &mut Client) -> Option<JoinHandle<()>> {
    // The map's page stays until what ran when it was written has ended.
    wait_for("the page of the map may go", Duration::from_secs(60), || {
        leave_the_map_to_storage(client)
    });
    // Vacuum tries to lock the table for five seconds, and has read the map before.
    let mut holder = cluster.connect();
    sql::execute(&mut holder, "BEGIN; LOCK TABLE t IN ACCESS SHARE MODE");
    let mut vacuums = session(cluster, "vacuums");
    let vacuum = std::thread::spawn(move || sql::execute(&mut vacuums, "VACUUM t"));
    wait_for("vacuum wants to truncate", Duration::from_secs(60), || {
        sql::value(client, PHASE) == "1" || vacuum.is_finished()
    });
    let is_absent = leave_the_map_to_storage(client);
    if !is_absent || vacuum.is_finished() {
        vacuum.join().expect("VACUUM gives up");
        return None;
    }
    (0..6).for_each(|index| cluster.pause_node(index));
    let misses = eviction::cache(client, "misses");
    sql::execute(&mut holder, "COMMIT");
    let mut is_inside = false;
    wait_for("vacuum waits or ends", Duration::from_secs(30), || {
        is_inside =
            eviction::cache(client, "misses") > misses && waits_for(client, "vacuums") == "IO/DataFileRead";
        is_inside || vacuum.is_finished()
    });
    if is_inside {
        return Some(vacuum);
    }
    (0..6).for_each(|index| cluster.resume_node(index));
    vacuum.join().expect("VACUUM gives up");
    None
}

/// `RelationTruncate` (storage.c, 15.18) reads a page of the visibility map between the look at the relation's length
/// and the truncation of its files. The barrier of DROP DATABASE closes every file of every process.
#[test]
fn a_barrier_inside_a_truncation_leaves_the_file_truncated() {
    let mut cluster = small_cluster("truncation-barrier");
    let mut client = cluster.connect();
    sql::execute(&mut client, "CREATE DATABASE dropped");
    for statement in [
        "CREATE TABLE t (a int, b text)",
        "INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, 4000) g",
        "DELETE FROM t WHERE a > 800",
        "VACUUM (FREEZE, TRUNCATE off) t",
        "VACUUM (FREEZE, TRUNCATE off) t",
    ] {
        sql::execute(&mut client, statement);
    }
    // Asking for the table's size would wait for the truncation's lock.
    let path = sql::value(&mut client, "SELECT pg_relation_filepath('t')");
    let path = cluster.server.pgdata.join(path);
    let pages_of_file = || std::fs::metadata(&path).expect("the table's file").len() / 8192;
    assert_eq!(pages_of_file(), PAGES);
    // Catalogs and plans are there when no node answers.
    sql::value(&mut client, PHASE);
    waits_for(&mut client, "vacuums");
    let mut drops = session(&cluster, "drops");
    let vacuum = (0..5)
        .find_map(|_| begin_truncation(&cluster, &mut client))
        .expect("a vacuum waits inside of its truncation");
    let drop_database = std::thread::spawn(move || sql::execute(&mut drops, "DROP DATABASE dropped"));
    wait_for(
        "the barrier waits for the truncation",
        Duration::from_secs(30),
        || waits_for(&mut client, "drops") == "IPC/ProcSignalBarrier",
    );
    assert_eq!(waits_for(&mut client, "vacuums"), "IO/DataFileRead");
    assert_eq!(pages_of_file(), PAGES, "not truncated yet");
    (0..6).for_each(|index| cluster.resume_node(index));
    vacuum.join().expect("VACUUM");
    drop_database.join().expect("DROP DATABASE");
    assert_eq!(pages_of_file(), PAGES_KEPT);
    let size = sql::value(&mut client, "SELECT pg_relation_size('t') / 8192");
    assert_eq!(size, PAGES_KEPT.to_string());
    // What the table grows by now is new, and what it was before does not come back.
    sql::execute(
        &mut client,
        "INSERT INTO t SELECT g, repeat('y', 900) FROM generate_series(801, 2000) g",
    );
    let look = "SELECT count(*) || ' ' || sum(a) FROM t";
    assert_eq!(sql::value(&mut client, look), "2000 2001000");
    drop(client);
    assert_survives_a_burnt_machine(&mut cluster);
    assert_eq!(sql::value(&mut cluster.connect(), look), "2000 2001000");
}
