//! A full disk under the local page cache.

use std::path::{Path, PathBuf};

use pg_quorum_deployment::{as_root, capture};
use pg_quorum_tests::checks::{assert_same_dump, check_everything, dump};
use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::{eviction, sql};
use postgres::error::SqlState;

use super::small_cluster;

/// A file system of its own, in memory. Unmounted on drop.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    const MEGABYTES: u64 = 24;

    /// Mounts it on a directory of the servers' account.
    fn mount(cluster: &Cluster, path: &Path) -> SmallDisk {
        let account = &cluster.server.account;
        account.create_dir(path).expect("make the disk's directory");
        let mut command = as_root("mount").expect("root");
        command
            .args(["-t", "tmpfs", "-o", &format!("size={}m", SmallDisk::MEGABYTES)])
            .arg("tmpfs")
            .arg(path);
        capture(&mut command).expect("mount");
        let disk = SmallDisk {
            path: path.to_owned(),
        };
        account.own(path).expect("chown");
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Files may still be open.
        let outcome =
            as_root("umount").and_then(|mut command| capture(command.arg("--lazy").arg(&self.path)));
        if let Err(error) = outcome {
            eprintln!("{error:#}");
        }
    }
}

/// The cache knows no limit but the disk, which fills up: what is cold makes room for what is read and written, also
/// for what has no place in storage. What finds no room gets an error, and nothing is lost.
#[test]
fn a_full_disk_under_the_cache_makes_it_smaller_and_loses_nothing() {
    let mut cluster = small_cluster("full-disk");
    let place = cluster.layout.root.join("small");
    let disk = SmallDisk::mount(&cluster, &place);
    let (mut client, mut other) = (cluster.connect(), cluster.connect());
    sql::execute(
        &mut client,
        &format!("CREATE TABLESPACE small LOCATION '{}'", place.display()),
    );
    sql::execute(
        &mut client,
        "CREATE TABLE t (a int PRIMARY KEY USING INDEX TABLESPACE small, b text) TABLESPACE small; CHECKPOINT",
    );
    assert_eq!(eviction::cache(&mut client, "pages_dropped"), 0);
    for first in (1..=60_000).step_by(5000) {
        sql::execute(
            &mut client,
            &format!(
                "INSERT INTO t SELECT g, repeat(md5(g::text), 28) FROM generate_series({first}, {first} + 4999) g"
            ),
        );
    }
    let size: u64 = sql::value(&mut client, "SELECT pg_total_relation_size('t') >> 20")
        .parse()
        .expect("a number");
    assert!(size > 2 * SmallDisk::MEGABYTES, "{size} MB on the small disk");
    let look = "SELECT count(*) || ' ' || sum(a) || ' ' || count(*) FILTER (WHERE b = repeat(md5(a::text), 28)) FROM t";
    for _ in 0..2 {
        assert_eq!(sql::value(&mut client, look), "60000 1800030000 60000");
    }
    let dropped = eviction::cache(&mut client, "pages_dropped");
    let refetched = eviction::cache(&mut client, "pages_refetched");
    println!(
        "{size} MB on {} MB: {dropped} pages dropped, {refetched} refetched",
        SmallDisk::MEGABYTES
    );
    assert!(dropped > 4000 && refetched > 4000);

    // Temporary tables are nowhere else; the disk is full of what is.
    sql::execute(
        &mut client,
        "SET temp_tablespaces = small; SET temp_buffers = 100; \
         CREATE TEMP TABLE temporary AS SELECT g, repeat('x', 900) FROM generate_series(1, 8000) g",
    );
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM temporary"), "8000");
    assert!(eviction::cache(&mut client, "pages_dropped") > dropped);

    // With more of them than the disk has room for, there is nothing left to drop.
    let error = client
        .batch_execute(
            "CREATE TEMP TABLE larger AS SELECT g, repeat('x', 900) FROM generate_series(1, 40000) g",
        )
        .expect_err("no room");
    assert_eq!(error.code(), Some(&SqlState::DISK_FULL), "{error}");
    println!("{}", sql::message(&error));
    // The error is told before its transaction has removed the table's file: the session answers again after that.
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM temporary"), "8000");
    // The disk is not the log's: others read and write.
    assert_eq!(sql::value(&mut other, look), "60000 1800030000 60000");
    for statement in [
        "UPDATE t SET b = '' WHERE a <= 1000",
        "UPDATE t SET b = repeat(md5(a::text), 28) WHERE b = ''",
    ] {
        sql::execute(&mut other, statement);
    }
    sql::execute(&mut other, "CHECKPOINT");
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM temporary"), "8000");
    drop(client);

    check_everything(&cluster.server);
    let before = dump(&cluster.server);
    drop(other);
    cluster.burn_compute();
    drop(disk);
    let _disk = SmallDisk::mount(&cluster, &place);
    cluster.create_compute();
    cluster.start_server();
    assert_same_dump(&before, &dump(&cluster.server));
    check_everything(&cluster.server);
}
