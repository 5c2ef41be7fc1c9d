//! Nodes with a full disk, a damaged log, or nothing at all in their directory.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::ledger::Ledger;
use pg_quorum_tests::{sql, wait_for};

fn says(cluster: &Cluster, index: usize) -> String {
    let status = cluster.status();
    let row = &status[index];
    let state = row.state.clone().unwrap_or_default();
    let message = row.message.clone().unwrap_or_default();
    let log = fs::read_to_string(cluster.nodes[index].log()).unwrap_or_default();
    format!("{state} {message}\n{log}")
}

/// A directory that was lost must not come back under its old name: its vote would forget what it acknowledged.
#[test]
fn a_node_with_an_empty_directory_does_not_vote() {
    let mut cluster = Cluster::start("amnesia");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let load = ledger.start(&cluster.server, 4);
    load.wait_for_progress(200, Duration::from_secs(60));
    cluster.kill_node(1);
    fs::remove_dir_all(cluster.nodes[1].data()).expect("empty the node's directory");
    cluster.start_node(1);
    load.wait_for_progress(200, Duration::from_secs(60));
    let status = cluster.status();
    assert_eq!(status[1].state.as_deref(), Some("unassigned"), "{:?}", status[1]);
    // With two more away, four of six are named in the membership but only three hold anything.
    cluster.kill_node(2);
    cluster.kill_node(3);
    let mut before = load.acknowledged();
    wait_for("commits stall", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, load.acknowledged()) == load.acknowledged()
    });
    cluster.start_node(2);
    load.wait_for_progress(100, Duration::from_secs(60));
    ledger.finish(load);
    ledger.check(&mut cluster.connect());
}

#[test]
fn a_node_whose_disk_is_full_says_so_and_the_others_go_on() {
    let mut cluster = Cluster::start("full-disk");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    cluster.stop_node(4);
    let used = directory_bytes(&cluster.nodes[4].data());
    let quota = used + (1 << 20);
    cluster.start_node_with(4, &vec![format!("--test-disk-quota-bytes={quota}")]);
    let load = ledger.start(&cluster.server, 4);
    wait_for("the node reports its disk", Duration::from_secs(60), || {
        let said = says(&cluster, 4).to_lowercase();
        said.contains("no space") || said.contains("disk is full") || said.contains("full")
    });
    load.wait_for_progress(200, Duration::from_secs(60));
    // Room again: it catches up.
    cluster.stop_node(4);
    cluster.start_node(4);
    load.wait_for_progress(100, Duration::from_secs(60));
    ledger.finish(load);
    assert!(ledger.failed.is_empty(), "{:?}", ledger.failed.first());
    cluster.wait_until_caught_up();
    ledger.check(&mut cluster.connect());
}

/// A torn tail is cut when a node starts. Damage below what it has acknowledged is something else: it must not vote
/// with a shorter log than it promised.
#[test]
fn a_log_that_is_corrupt_in_the_middle_takes_the_node_out_of_the_vote() {
    let mut cluster = Cluster::start("corrupt-log");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let load = ledger.start(&cluster.server, 4);
    load.wait_for_progress(500, Duration::from_secs(60));
    cluster.stop_node(2);
    let log = largest_log_file(&cluster.nodes[2].data());
    flip_a_byte_in_the_middle(&log);
    cluster.start_node(2);
    wait_for("the node reports the damage", Duration::from_secs(30), || {
        let said = says(&cluster, 2).to_lowercase();
        said.contains("damaged") || said.contains("corrupt")
    });
    load.wait_for_progress(200, Duration::from_secs(60));
    ledger.finish(load);
    // The others are enough to return from, and the damaged one does not harm.
    cluster.burn_compute();
    cluster.create_compute();
    cluster.start_server();
    ledger.check(&mut cluster.connect());
}

#[test]
fn nodes_keep_everything_over_a_graceful_restart() {
    let mut cluster = Cluster::start("node-restart");
    let mut ledger = Ledger::prepare(&cluster.server, 1);
    let load = ledger.start(&cluster.server, 4);
    for index in 0..6 {
        load.wait_for_progress(100, Duration::from_secs(60));
        cluster.stop_node(index);
        cluster.start_node(index);
        cluster.wait_until_caught_up();
    }
    ledger.finish(load);
    assert!(ledger.failed.is_empty(), "{:?}", ledger.failed.first());
    cluster.burn_compute();
    cluster.create_compute();
    cluster.start_server();
    ledger.check(&mut cluster.connect());
    sql::execute(&mut cluster.connect(), "CHECKPOINT");
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn directory_bytes(directory: &Path) -> u64 {
    files_below(directory)
        .iter()
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

/// The hot log's largest file.
fn largest_log_file(data: &Path) -> PathBuf {
    let is_log = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "log");
    let logs = files_below(data).into_iter().filter(is_log);
    logs.max_by_key(|file| file.metadata().map_or(0, |metadata| metadata.len()))
        .expect("the node has a log")
}

fn flip_a_byte_in_the_middle(path: &Path) {
    let mut file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("open the log");
    let middle = file.metadata().expect("its size").len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle)).expect("seek");
    file.read_exact(&mut byte).expect("read");
    byte[0] ^= 0x55;
    file.seek(SeekFrom::Start(middle)).expect("seek");
    file.write_all(&byte).expect("write");
}
