//! What a crash leaves of the local page cache: pages that are good come from the local files, pages that the log has
//! changed, or that bear witness to what was cut, do not.

use std::time::Duration;

use pg_quorum_deployment::{Settings, ShutdownMode, Signal, kill};
use pg_quorum_tests::checks::{assert_same_dump, check_everything, dump};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::eviction::{self, cache};
use pg_quorum_tests::{sql, wait_for};
use postgres::Client;

/// Hardly any buffers: what is read comes from the files.
fn cluster(name: &str, initdb: Vec<&'static str>) -> Cluster {
    let settings = eviction::few_buffers()
        .with("checkpoint_timeout", "1h")
        .with("max_wal_size", "4GB");
    cluster_with(name, initdb, settings)
}

fn cluster_with(name: &str, initdb: Vec<&'static str>, settings: Settings) -> Cluster {
    let plan = Plan {
        settings,
        initdb,
        ..Plan::default()
    };
    let cluster = Cluster::start_with(name, plan);
    eviction::prepare(&mut cluster.connect());
    cluster
}

/// SIGKILL for the postmaster and all its children, and a start.
fn crash(cluster: &Cluster) {
    cluster.server.kill_everything().expect("kill the server");
    cluster.start_server();
}

/// Pages that the last start says it has kept, and those that it has not.
fn kept_at_start(cluster: &Cluster) -> (u64, u64) {
    let log = cluster.server_log();
    let line = log.lines().rev().find(|line| line.contains("attached to volume"));
    let line = line.expect("the server has attached");
    let number = |before: &str| -> Option<u64> {
        let words = line.split(before).next()?;
        words.split(' ').next_back()?.parse().ok()
    };
    let kept = number(" local pages are kept, ");
    kept.map_or((0, 0), |kept| {
        (kept, number(" are not in ").expect("how many are not"))
    })
}

fn load(client: &mut Client, table: &str) {
    sql::execute(
        client,
        &format!(
            "CREATE TABLE {table} (a int PRIMARY KEY, b text); \
             INSERT INTO {table} SELECT g, repeat('x', 300) || g FROM generate_series(1, 20000) g"
        ),
    );
    sql::execute(client, &format!("VACUUM {table}"));
}

fn look(client: &mut Client, table: &str) -> String {
    let query =
        format!("SELECT count(*) || ' ' || sum(a) || ' ' || md5(string_agg(b, '' ORDER BY a)) FROM {table}");
    sql::value(client, &query)
}

#[test]
fn a_scan_after_a_crash_reads_what_was_here_and_fetches_what_has_changed() {
    for initdb in [vec![], vec!["--data-checksums"]] {
        let cluster = cluster("warm-crash", initdb);
        let mut client = cluster.connect();
        load(&mut client, "t");
        sql::execute(&mut client, "CHECKPOINT");
        // Hint bits and all: written once more, and what was written has come back once.
        look(&mut client, "t");
        sql::value(&mut client, "SELECT quorum.drop_cache('t')");
        sql::execute(
            &mut client,
            "UPDATE t SET b = 'newer' || a WHERE a BETWEEN 5001 AND 5200",
        );
        let expected = look(&mut client, "t");
        // Whoever reads prunes, and evicts what it has pruned: a commit makes these records durable.
        sql::execute(&mut client, "CREATE TABLE durable ()");
        let blocks: u64 = sql::value(&mut client, "SELECT pg_relation_size('t') / 8192")
            .parse()
            .unwrap();
        drop(client);
        crash(&cluster);
        let (kept, _) = kept_at_start(&cluster);
        assert!(kept > blocks, "{kept} pages are kept, the table has {blocks}");
        let mut client = cluster.connect();
        let fetched_before = fetched(&mut client);
        let gone_before = cache(&mut client, "kept_gone");
        assert_eq!(look(&mut client, "t"), expected);
        let fetched = fetched(&mut client) - fetched_before;
        assert!(fetched < blocks / 5, "{fetched} of {blocks} pages were fetched");
        let gone = cache(&mut client, "kept_gone") - gone_before;
        assert!(
            (8..blocks / 5).contains(&gone),
            "{gone} pages have changed since the checkpoint"
        );
        assert!(cache(&mut client, "kept_good") > blocks / 2);
        drop(client);
        check_everything(&cluster.server);
    }
}

fn fetched(client: &mut Client) -> u64 {
    sql::value(client, "SELECT pages_fetched FROM quorum.stat")
        .parse()
        .expect("a number")
}

/// A backend that is killed takes all others with it; the postmaster lives, and attaches again.
#[test]
fn a_killed_backend_costs_little_of_the_cache() {
    let cluster = cluster("warm-backend", vec![]);
    let mut client = cluster.connect();
    load(&mut client, "t");
    sql::execute(&mut client, "CHECKPOINT");
    let expected = look(&mut client, "t");
    for round in 1..=3 {
        let pid = sql::value(&mut client, "SELECT pg_backend_pid()")
            .parse()
            .expect("a number");
        kill(pid, Signal::KILL);
        let attached = |round: usize| {
            let log = cluster.server_log();
            log.matches("database system is ready to accept connections")
                .count()
                > round
        };
        wait_for("the server has restarted", Duration::from_secs(60), || {
            attached(round)
        });
        client = cluster.connect();
        let blocks: u64 = sql::value(&mut client, "SELECT pg_relation_size('t') / 8192")
            .parse()
            .unwrap();
        let before = fetched(&mut client);
        assert_eq!(look(&mut client, "t"), expected, "round {round}");
        let fetched = fetched(&mut client) - before;
        assert!(
            fetched < blocks / 10,
            "{fetched} of {blocks} pages were fetched in round {round}"
        );
        // Behind the attach's own checkpoint, and not checkpointed again.
        sql::execute(
            &mut client,
            "CREATE TABLE IF NOT EXISTS more (a int); INSERT INTO more SELECT generate_series(1, 5000)",
        );
        let rows = (round * 5000).to_string();
        assert_eq!(sql::value(&mut client, "SELECT count(*) FROM more"), rows);
    }
    drop(client);
    check_everything(&cluster.server);
}

/// Each crash finds some of what the one before it has left unread: it may have changed before that one.
#[test]
fn what_is_not_read_between_two_crashes_is_not_believed_for_it() {
    let cluster = cluster("warm-twice", vec![]);
    let mut client = cluster.connect();
    for table in ["a", "b", "c"] {
        load(&mut client, table);
    }
    sql::execute(&mut client, "CHECKPOINT");
    let change = |client: &mut Client, table: &str, to: &str| {
        sql::execute(
            client,
            &format!("UPDATE {table} SET b = '{to}' || a WHERE a % 100 = 7"),
        );
    };
    change(&mut client, "a", "before the first crash");
    change(&mut client, "b", "before the first crash");
    let a = look(&mut client, "a");
    crash(&cluster);
    let mut client = cluster.connect();
    change(&mut client, "b", "before the second crash");
    change(&mut client, "c", "before the second crash");
    let (b, c) = (look(&mut client, "b"), look(&mut client, "c"));
    crash(&cluster);
    let mut client = cluster.connect();
    assert!(kept_at_start(&cluster).0 > 2000);
    for (table, expected) in [("a", &a), ("b", &b), ("c", &c)] {
        assert_eq!(&look(&mut client, table), expected, "{table}");
    }
    assert!(cache(&mut client, "kept_good") > 1000 && cache(&mut client, "kept_gone") > 500);
    // A checkpoint between, and a clean stop with blocks that are not settled.
    change(&mut client, "a", "before the checkpoint");
    sql::execute(&mut client, "CHECKPOINT");
    let a = look(&mut client, "a");
    crash(&cluster);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    cluster.start_server();
    crash(&cluster);
    let mut client = cluster.connect();
    for (table, expected) in [("a", &a), ("b", &b), ("c", &c)] {
        assert_eq!(&look(&mut client, table), expected, "{table}");
    }
    drop(client);
    check_everything(&cluster.server);
}

/// While the quorum is away asynchronous commits become visible, readers note on the pages that they have committed, and
/// the pages are written out. Then the log is cut before these commits.
#[test]
fn pages_that_know_of_commits_that_were_cut_are_not_kept() {
    let mut cluster = cluster("warm-cut", vec![]);
    let mut client = cluster.connect();
    load(&mut client, "t");
    load(&mut client, "quiet");
    sql::execute(&mut client, "CHECKPOINT");
    let (expected, quiet) = (look(&mut client, "t"), look(&mut client, "quiet"));
    cluster.wait_until_caught_up();
    (0..4).for_each(|index| cluster.kill_node(index));
    sql::execute(
        &mut client,
        "SET synchronous_commit = off; UPDATE t SET b = 'was cut' WHERE a % 3 = 0; DELETE FROM t WHERE a % 3 = 1; \
         INSERT INTO t SELECT g, 'was cut' FROM generate_series(30000, 31000) g",
    );
    // Readers trust a commit only when it has been flushed, here: to the local log.
    let end = sql::value(&mut client, "SELECT pg_current_wal_insert_lsn()");
    wait_for("the commits are flushed", Duration::from_secs(30), || {
        let flushed = format!("SELECT pg_current_wal_flush_lsn() >= '{end}'");
        sql::value(&mut client, &flushed) == "t"
    });
    for _ in 0..2 {
        let seen = sql::value(&mut client, "SELECT count(*) FROM t WHERE b = 'was cut'");
        assert_eq!(seen, "7667");
    }
    sql::value(&mut client, "SELECT pg_prewarm('filler') + pg_prewarm('filler')");
    drop(client);
    cluster.server.kill_everything().expect("kill the server");
    (4..6).for_each(|index| cluster.kill_node(index));
    (0..4).for_each(|index| cluster.start_node(index));
    cluster.start_server();
    let (kept, void) = kept_at_start(&cluster);
    assert!(kept > 500 && void > 500, "{kept} pages are kept, {void} are not");
    let mut client = cluster.connect();
    for _ in 0..2 {
        assert_eq!(look(&mut client, "t"), expected);
    }
    assert_eq!(look(&mut client, "quiet"), quiet);
    (4..6).for_each(|index| cluster.start_node(index));
    cluster.wait_until_caught_up();
    sql::execute(&mut client, "UPDATE t SET b = b WHERE a % 10 = 1");
    assert_eq!(look(&mut client, "t"), expected);
    drop(client);
    check_everything(&cluster.server);
}

#[test]
fn relations_that_come_shrink_and_go_before_the_crash_are_the_volumes_after_it() {
    let cluster = cluster("warm-relations", vec![]);
    let mut client = cluster.connect();
    for table in ["truncated", "dropped", "shrunk", "rewritten", "replaced"] {
        load(&mut client, table);
    }
    sql::execute(
        &mut client,
        "CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 20000) AS a; CREATE SEQUENCE s",
    );
    for statement in [
        "CREATE DATABASE gone",
        "CREATE DATABASE copied STRATEGY FILE_COPY",
        "CHECKPOINT",
    ] {
        sql::execute(&mut client, statement);
    }
    sql::execute(
        &mut client,
        "TRUNCATE truncated; INSERT INTO truncated VALUES (1, 'after it'); \
         DROP TABLE dropped; CREATE TABLE dropped (a int PRIMARY KEY, b text); INSERT INTO dropped VALUES (2, 'another'); \
         DELETE FROM shrunk WHERE a > 3000",
    );
    sql::execute(&mut client, "VACUUM shrunk");
    sql::execute(&mut client, "VACUUM FULL rewritten");
    sql::execute(&mut client, "DROP DATABASE gone");
    sql::execute(
        &mut client,
        "BEGIN; TRUNCATE replaced; INSERT INTO replaced SELECT g, 'new' FROM generate_series(1, 9000) g; COMMIT; \
         SELECT nextval('s') FROM generate_series(1, 7)",
    );
    // What never commits, and a session's temporary table.
    let mut other = cluster.connect();
    sql::execute(
        &mut other,
        "CREATE TEMP TABLE temporary AS SELECT repeat('x', 500) FROM generate_series(1, 9000); \
         BEGIN; CREATE TABLE never AS SELECT repeat('x', 500) FROM generate_series(1, 9000); \
         INSERT INTO shrunk SELECT g, repeat('y', 300) FROM generate_series(50000, 60000) g",
    );
    let before = dump(&cluster.server);
    let last: u64 = sql::value(&mut client, "SELECT last_value FROM s")
        .parse()
        .unwrap();
    sql::execute(&mut client, "DROP TABLE IF EXISTS nothing");
    crash(&cluster);
    assert!(kept_at_start(&cluster).0 > 500);
    let mut client = cluster.connect();
    assert_eq!(sql::value(&mut client, "SELECT count(*) FROM unlogged"), "0");
    let next: u64 = sql::value(&mut client, "SELECT nextval('s')").parse().unwrap();
    assert!(next > last && next <= last + 33, "{next} after {last}");
    let contents =
        "SELECT string_agg(a || b, ',') FROM truncated UNION ALL SELECT string_agg(a || b, ',') FROM dropped";
    let rows = client.query(contents, &[]).expect("both tables");
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(rows, ["1after it", "2another"]);
    assert_eq!(
        sql::value(&mut client, "SELECT count(*) || ' ' || max(a) FROM shrunk"),
        "3000 3000"
    );
    assert_eq!(
        sql::value(&mut client, "SELECT count(*) || ' ' || min(b) FROM replaced"),
        "9000 new"
    );
    // Values of the sequence and the unlogged table's rows are gone as after any crash.
    let without_those = |dump: &str| -> String {
        let is_kept = |line: &&str| !line.contains("setval") && line.parse::<u32>().is_err();
        dump.lines().filter(is_kept).collect::<Vec<_>>().join("\n")
    };
    assert_same_dump(&without_those(&before), &without_those(&dump(&cluster.server)));
    drop(client);
    check_everything(&cluster.server);
}

#[test]
fn a_tiny_cache_stays_within_its_limit_over_crashes() {
    let settings = eviction::few_buffers().with("pg_quorum.cache_size", "4MB");
    let cluster = cluster_with("warm-tiny", vec![], settings);
    let mut client = cluster.connect();
    load(&mut client, "t");
    let expected = look(&mut client, "t");
    for _ in 0..3 {
        crash(&cluster);
        client = cluster.connect();
        assert!(cache(&mut client, "cached") > 1 << 20, "something is kept");
        assert_eq!(look(&mut client, "t"), expected);
        sql::execute(&mut client, "UPDATE t SET b = b WHERE a % 50 = 0");
        wait_for("the cache is within its limit", Duration::from_secs(30), || {
            cache(&mut client, "cached") <= 4 << 20
        });
        let base = cluster.server.pgdata.join("base");
        let used: u64 = walk(&base);
        assert!(used < 24 << 20, "the files take {used} bytes of disk");
    }
    drop(client);
    check_everything(&cluster.server);
}

/// Disk space of all files below a directory, in bytes.
fn walk(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).expect("read the directory");
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => walk(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}

#[test]
fn nothing_is_kept_once_another_compute_has_had_the_volume() {
    let mut cluster = cluster("warm-other", vec![]);
    let mut client = cluster.connect();
    load(&mut client, "t");
    sql::execute(&mut client, "CHECKPOINT");
    drop(client);
    // Nor is anything lost by a start that comes to nothing before it has the volume.
    cluster.server.kill_everything().expect("kill the server");
    (0..3).for_each(|index| cluster.kill_node(index));
    let refused = cluster.refused_start();
    assert!(refused.contains("fewer than four"), "{refused}");
    (0..3).for_each(|index| cluster.start_node(index));
    cluster.start_server();
    assert!(kept_at_start(&cluster).0 > 500);
    cluster.server.kill_everything().expect("kill the server");
    cluster.lend_to_another_compute("UPDATE t SET b = 'newer' WHERE a = 1");
    cluster.start_server();
    assert_eq!(kept_at_start(&cluster), (0, 0));
    let mut client = cluster.connect();
    assert_eq!(cache(&mut client, "kept_good"), 0);
    assert_eq!(sql::value(&mut client, "SELECT b FROM t WHERE a = 1"), "newer");
    drop(client);
    check_everything(&cluster.server);
}
