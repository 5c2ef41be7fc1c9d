//! The insert position behind the header of a WAL page.
//!
//! Where a record ends on a page's edge, `GetXLogInsertRecPtr` (xlog.c, 15.18) names the position of the next record,
//! behind the header of a page that does not exist yet: no record reaches it, so nothing may wait for it.

use pg_quorum_deployment::ShutdownMode;
use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::{eviction, sql};
use postgres::Client;

use super::{assert_survives_a_burnt_machine, burn, small_cluster};

const POSITION: &str = "pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')";
/// `SizeOfXLogShortPHD`; the first page of a segment has a longer one, and is left out here.
const HEADER_BYTES: u32 = 24;
/// Bytes of the record of a logical message beside the message: `SizeOfXLogRecord`, `SizeOfXLogRecordDataHeaderLong`,
/// `SizeOfLogicalMessage`, and the prefix `p` with its end.
const MESSAGE_OVERHEAD: u32 = 24 + 5 + 24 + 2;

/// Ends the log on a page's edge, with everything below it durable. Somebody else may write in between: it is tried
/// until it has succeeded.
fn end_on_an_edge(client: &mut Client) {
    // A message too short for the long form of its header goes on to the edge after the next.
    let emit = format!(
        "SELECT pg_logical_emit_message(false, 'p', repeat('x', (CASE WHEN rest < {MESSAGE_OVERHEAD} + 256 \
         THEN rest + 8192 - {HEADER_BYTES} ELSE rest END)::int - {MESSAGE_OVERHEAD})) \
         FROM (SELECT 8192 - mod({POSITION}, 8192) AS rest) AS s"
    );
    for _ in 0..100 {
        sql::value(client, &emit);
        if is_behind_a_header(client) {
            // The edge is durable; the position behind the header of a page without a record is so with it.
            let durable = "SELECT quorum.wait_for_lsn(pg_current_wal_insert_lsn(), '20s')";
            assert_eq!(sql::value(client, durable), "t");
            if is_behind_a_header(client) {
                return;
            }
        }
    }
    panic!("somebody writes all the time");
}

fn is_behind_a_header(client: &mut Client) -> bool {
    sql::value(client, &format!("SELECT mod({POSITION}, 8192)::int")) == HEADER_BYTES.to_string()
}

const LOOK: &str = "SELECT count(*) || ' ' || sum(length(b)) FROM t";

/// Drops the table where the log ends on an edge, and reads it again: pages are asked for as of the insert position.
/// False if somebody wrote before the last page had come.
fn read_behind_an_edge(client: &mut Client) -> bool {
    end_on_an_edge(client);
    let refetched = eviction::cache(client, "pages_refetched");
    let dropped = eviction::evict(client, Some("t"));
    assert_eq!(sql::value(client, LOOK), "9000 4500000");
    let refetched = eviction::cache(client, "pages_refetched") - refetched;
    assert!(
        dropped > 500 && refetched > 500,
        "{dropped} pages dropped, {refetched} refetched"
    );
    is_behind_a_header(client)
}

/// A session in which catalogs and plans are there: what it reads then is the table.
fn session(cluster: &Cluster) -> Client {
    let mut client = cluster.connect();
    sql::execute(&mut client, "SET statement_timeout = '60s'");
    assert_eq!(sql::value(&mut client, LOOK), "9000 4500000");
    client
}

#[test]
fn the_insert_position_behind_a_page_header_is_waited_for_by_nobody() {
    let mut cluster = small_cluster("page-header");
    sql::execute(
        &mut cluster.connect(),
        "CREATE TABLE t (a int PRIMARY KEY, b text); \
         INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 9000) g",
    );
    for edge in 0..3 {
        let mut client = session(&cluster);
        sql::execute(&mut client, "VACUUM (FREEZE)");
        sql::execute(&mut client, "CHECKPOINT");
        assert!(
            (0..10).any(|_| read_behind_an_edge(&mut client)),
            "somebody writes all the time"
        );
        // The first record behind the edge is a commit's, a shutdown checkpoint, one of the next server.
        match edge {
            0 => sql::execute(&mut client, "INSERT INTO t VALUES (10001, '')"),
            1 => {
                cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
                cluster.start_server();
            }
            _ => burn(&mut cluster),
        }
        sql::execute(&mut cluster.connect(), "DELETE FROM t WHERE a > 10000");
    }
    assert_survives_a_burnt_machine(&mut cluster);
}
