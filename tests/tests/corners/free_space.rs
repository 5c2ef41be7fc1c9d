//! Free space that the map knew of, which is not in the volume.

use pg_quorum_deployment::ShutdownMode;
use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::sql;

use super::{burn, small_cluster};

/// Pages of `t`, half of each free, and then what as many rows as were deleted have added to them.
struct Grown {
    before: u64,
    by: u64,
}

/// Makes `t` with free space on pages that are visible to all, does something to the server, runs `find`, inserts again.
fn grow_after(cluster: &mut Cluster, happens: impl FnOnce(&mut Cluster), find: &str) -> Grown {
    let mut client = cluster.connect();
    for statement in [
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (a int, b text)",
        "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 14000) g",
        "DELETE FROM t WHERE a % 2 = 0",
        "VACUUM t",
    ] {
        sql::execute(&mut client, statement);
    }
    let pages = |cluster: &Cluster| -> u64 {
        let size = "SELECT pg_relation_size('t') / 8192";
        sql::value(&mut cluster.connect(), size).parse().expect("pages")
    };
    let before = pages(cluster);
    drop(client);
    happens(cluster);
    let mut client = cluster.connect();
    sql::execute(&mut client, find);
    sql::execute(
        &mut client,
        "INSERT INTO t SELECT g, repeat('y', 500) FROM generate_series(1, 7000) g",
    );
    Grown {
        before,
        by: pages(cluster) - before,
    }
}

/// A clean stop keeps the map. Without it a table grows by what it could have taken, and no more; a vacuum that skips no
/// page finds the space again.
#[test]
fn a_lost_free_space_map_costs_space_until_a_vacuum_that_skips_nothing() {
    const FIND: &str = "VACUUM (DISABLE_PAGE_SKIPPING) t";
    let mut cluster = small_cluster("free-space");
    let restart = |cluster: &mut Cluster| {
        cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
        cluster.start_server();
    };
    let kept = grow_after(&mut cluster, restart, "SELECT 1");
    assert!(
        kept.by < kept.before / 20,
        "{} pages grew by {}",
        kept.before,
        kept.by
    );
    let lost = grow_after(&mut cluster, burn, "SELECT 1");
    println!("without the map {} pages grow by {}", lost.before, lost.by);
    assert!(
        lost.by <= lost.before / 2 + 10,
        "{} pages grew by {}",
        lost.before,
        lost.by
    );
    let found = grow_after(&mut cluster, burn, FIND);
    assert!(
        found.by < found.before / 20,
        "{} pages grew by {}",
        found.before,
        found.by
    );
}
