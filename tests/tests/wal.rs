//! The nodes keep records, not WAL files: what they give back is what the server wrote, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use pg_quorum_client::{Attachment, Transport, pgdata, read_wal};
use pg_quorum_deployment::{Settings, ShutdownMode};
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::sql;
use pg_quorum_types::Lsn;

const SEGMENT_BYTES: u64 = 16 << 20;
const PAGE_BYTES: usize = 8192;
/// Place of `xlp_info`'s low byte in a page's header, and `XLP_BKP_REMOVABLE` in it: whether a backup was running
/// when the page was begun. It cannot be derived from records.
const INFO_OFFSET: usize = 2;
const BKP_REMOVABLE: u8 = 0x04;

/// Copies of `pg_wal` as servers left them.
#[derive(Default)]
struct LeftBehind {
    directories: Vec<PathBuf>,
}

impl LeftBehind {
    fn keep(&mut self, cluster: &Cluster) {
        let copy = cluster
            .layout
            .root
            .join(format!("pg_wal-{}", self.directories.len() + 1));
        fs::create_dir(&copy).expect("make a directory");
        for (name, path) in segments(&cluster.server.pgdata.join("pg_wal")) {
            fs::copy(path, copy.join(name)).expect("copy a segment");
        }
        self.directories.push(copy);
    }
}

fn segments(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(directory).expect("read pg_wal");
    let mut segments: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            (name.len() == 24).then(|| (name, entry.path()))
        })
        .collect();
    segments.sort();
    segments
}

fn segment_start(name: &str) -> Lsn {
    let number = |from: usize| u64::from_str_radix(&name[from..from + 8], 16).expect("a segment's name");
    Lsn((number(8) << 32) | (number(16) * SEGMENT_BYTES))
}

fn attachment(cluster: &Cluster) -> Attachment {
    pgdata::load_attachment(&cluster.server.pgdata)
        .expect("read attach.json")
        .expect("the server is attached")
}

/// What the nodes make of `[start, end)`.
fn rebuilt(attachment: &Attachment, start: Lsn, end: Lsn) -> Vec<u8> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut reader =
            read_wal(attachment, start, end, &Transport::default()).expect("the nodes' addresses");
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next().await.expect("WAL from the nodes") {
            bytes.extend_from_slice(&chunk.wal);
        }
        bytes
    })
}

/// From the start of a page on: the flag that is not kept is cleared in each page's header.
fn without_flag(mut wal: Vec<u8>) -> Vec<u8> {
    for page in wal.chunks_mut(PAGE_BYTES) {
        if let Some(info) = page.get_mut(INFO_OFFSET) {
            *info &= !BKP_REMOVABLE;
        }
    }
    wal
}

fn work(cluster: &Cluster) {
    let mut client = cluster.connect();
    for statement in [
        "CREATE TABLE IF NOT EXISTS t (a int, b text)",
        "INSERT INTO t SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 40000) g",
        // A record over many pages, the end of a segment, and a record behind it.
        "SELECT pg_logical_emit_message(false, 'long', repeat('x', 300000))",
        "SELECT pg_switch_wal()",
        "UPDATE t SET b = 'y' WHERE a % 3 = 0",
        "CHECKPOINT",
        "VACUUM t",
    ] {
        sql::execute(&mut client, statement);
    }
}

/// Compares every segment of `directory` that the volume has, up to `end`. Returns how many bytes that are.
fn compare(attachment: &Attachment, directory: &Path, end: Lsn) -> u64 {
    let base_segment = Lsn(attachment.base.lsn.0 - attachment.base.lsn.0 % SEGMENT_BYTES);
    let mut compared = 0;
    for (name, path) in segments(directory) {
        let start = segment_start(&name);
        if start < base_segment || start >= end {
            continue;
        }
        let until = end.min(start + SEGMENT_BYTES);
        let mut servers = fs::read(&path).expect("read a segment");
        servers.truncate(until.bytes_since(start) as usize);
        let servers = without_flag(servers);
        let ours = without_flag(rebuilt(attachment, start, until));
        assert_eq!(ours.len(), servers.len(), "bytes of {name}");
        if let Some(at) = (0..ours.len()).find(|at| ours[*at] != servers[*at]) {
            panic!(
                "{name} of {} differs at {}: {:#04x} from the nodes, {:#04x} from the server",
                directory.display(),
                start + at as u64,
                ours[at],
                servers[at]
            );
        }
        compared += ours.len() as u64;
    }
    compared
}

#[test]
fn wal_rebuilt_from_the_nodes_equals_the_servers_byte_for_byte() {
    // What is read here with a client of our own is not encrypted.
    let plan = Plan {
        plain: true,
        ..Plan::default()
    };
    let cluster = Cluster::start_with("wal", plan);
    let mut left = LeftBehind::default();
    work(&cluster);
    cluster.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
    left.keep(&cluster);
    cluster.start_server();
    work(&cluster);
    cluster.server.kill_everything().expect("kill the server");
    left.keep(&cluster);
    cluster.start_server();
    work(&cluster);
    let end = sql::value(&mut cluster.connect(), "SELECT pg_current_wal_insert_lsn()");
    let wait = format!("CREATE EXTENSION pg_quorum; SELECT quorum.wait_for_lsn('{end}')");
    sql::execute(&mut cluster.connect(), &wait);
    left.keep(&cluster);

    let attachment = attachment(&cluster);
    // Each epoch but the first one starts where the log of the one before it ends.
    let starts = attachment
        .history
        .entries()
        .iter()
        .skip(1)
        .map(|entry| entry.start_lsn);
    let ends: Vec<Lsn> = starts.chain([end.parse().expect("an LSN")]).collect();
    assert_eq!(ends.len(), left.directories.len(), "one directory for each epoch");
    for (directory, end) in left.directories.iter().zip(ends) {
        let bytes = compare(&attachment, directory, end);
        assert!(
            bytes > SEGMENT_BYTES,
            "only {bytes} bytes were compared up to {end}"
        );
        println!("{bytes} bytes of WAL up to {end} are the server's");
    }
}

/// How far a node's index is behind what it knows to be durable: of six, the fourth least.
fn bytes_a_quorum_has_to_index(cluster: &Cluster) -> u64 {
    let nodes = cluster.status();
    let mut behind: Vec<u64> = nodes
        .iter()
        .map(|node| node.vdl.saturating_sub(node.indexed_lsn))
        .collect();
    behind.sort_unstable();
    behind[3]
}

/// A start waits for the index, and so does a read of a page: neither may wait for long because much was written.
#[test]
fn writing_waits_for_the_index_of_what_is_durable() {
    const LIMIT: u64 = 2 << 20;
    /// What was written and not durable when the limit was reached, and what the nodes' own word for it is late.
    const UNDER_WAY: u64 = 32 << 20;
    let plan = Plan {
        settings: Settings::default()
            .with("pg_quorum.max_unindexed_wal", "1MB")
            .with("wal_buffers", "1MB")
            .with("autovacuum", "off"),
        ..Plan::default()
    };
    let cluster = Cluster::start_with("index-waits", plan);
    let mut observer = cluster.connect();
    sql::execute(
        &mut observer,
        "CREATE EXTENSION pg_quorum; CREATE TABLE t (a int, b text)",
    );
    let mut writer = cluster.connect();
    let writing = std::thread::spawn(move || {
        sql::execute(
            &mut writer,
            "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 300000) g; UPDATE t SET a = a + 1",
        );
    });
    let mut looks = 0;
    while !writing.is_finished() {
        let behind = bytes_a_quorum_has_to_index(&cluster);
        assert!(behind <= LIMIT + UNDER_WAY, "{behind} bytes are not indexed");
        looks += 1;
    }
    writing.join().expect("writing goes on as the index does");
    assert!(looks > 3, "{looks} looks");
    let waits = sql::value(&mut observer, "SELECT index_waits FROM quorum.stat");
    assert_ne!(waits, "0", "writing never waited");
}
