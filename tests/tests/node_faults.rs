//! Nodes with a full disk, a damaged log, or nothing at all in their directory.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pg_quorum_client::pgdata;
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::pages_client::PagesClient;
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::ledger::Ledger;
use pg_quorum_tests::{sql, wait_for};
use pg_quorum_types::{ForkNumber, Lsn, PageKey, RelFileNode, RelFork, SlruKind};
use storage_service::derived::store::{Batch, FjallSettings, FjallStore, PageStore, Space};

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

/// One bit on one disk: the node must neither serve that page nor guess it, and it need not stay so, since five others
/// have it.
#[test]
fn a_page_that_has_rotted_on_one_node_is_refused_there_and_mended_from_a_peer() {
    const ROTTEN: usize = 3;
    // What is asked for here with a client of our own is not encrypted.
    let plan = Plan {
        plain: true,
        ..Plan::default()
    };
    let mut cluster = Cluster::start_with("rotten-page", plan);
    let mut client = cluster.connect();
    sql::execute(
        &mut client,
        "CREATE TABLE t AS SELECT g AS a, repeat('x', 500) AS b FROM generate_series(1, 100) g",
    );
    let number =
        |client: &mut _, query: &str| -> u32 { sql::value(client, query).parse().expect("a number") };
    let fork = RelFork {
        rel: RelFileNode {
            spc: 1663,
            db: number(
                &mut client,
                "SELECT oid FROM pg_database WHERE datname = 'postgres'",
            ),
            rel: number(&mut client, "SELECT pg_relation_filenode('t')"),
        },
        fork: ForkNumber::Main,
    };
    let written: Lsn = sql::value(&mut client, "SELECT pg_current_wal_lsn()")
        .parse()
        .expect("an LSN");
    wait_for("the nodes have made pages of it", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        cluster.status().iter().all(|node| node.applied_lsn >= written.0)
    });
    cluster.stop_node(ROTTEN);
    let in_table = PageKey::Relation { rel: fork, block: 2 };
    let derived = cluster.nodes[ROTTEN].data().join("derived");
    rot(&derived, &[in_table, CLOG]);
    for file in files_below(&derived) {
        cluster.server.account.own(&file).expect("give the file back");
    }
    cluster.start_node(ROTTEN);
    cluster.wait_until_caught_up();

    let read = |index: usize, key| page(&cluster, index, key);
    let good = [in_table, CLOG].map(|key| read(0, key).expect("the page of another node"));
    for (mended, key) in (0..).zip([in_table, CLOG]) {
        wait_for("the page is asked for", Duration::from_secs(60), || {
            read(ROTTEN, key).is_err() || cluster.status()[ROTTEN].pages_mended > mended
        });
    }
    wait_for("the pages are mended", Duration::from_secs(60), || {
        let status = cluster.status();
        let node = &status[ROTTEN];
        node.pages_mended == 2 && node.pages_unbuildable == 0 && node.message.as_deref() == Some("")
    });
    let mended = [in_table, CLOG].map(|key| read(ROTTEN, key).expect("the mended page"));
    assert_eq!(mended, good);
    // Also after another restart, and after more records for the page.
    sql::execute(&mut client, "UPDATE t SET b = 'y' WHERE a % 2 = 0");
    cluster.stop_node(ROTTEN);
    cluster.start_node(ROTTEN);
    cluster.wait_until_caught_up();
    let read = |index: usize, key| page(&cluster, index, key).expect("the page");
    for (key, good) in [in_table, CLOG].into_iter().zip(good) {
        let changed = read(0, key);
        assert_ne!(changed, good, "{key}");
        assert_eq!(read(ROTTEN, key), changed, "{key}");
    }
}

/// The page with the state of the newest transactions.
const CLOG: PageKey = PageKey::Slru {
    kind: SlruKind::Clog,
    page: 0,
};

/// Flips a bit in every stored image of the pages.
fn rot(derived: &Path, keys: &[PageKey]) {
    let current = fs::read_to_string(derived.join("CURRENT")).expect("the store's name");
    let directory = derived.join(current.trim_end());
    let store = FjallStore::open(&directory, &FjallSettings::default()).expect("open the store");
    let mut batch = Batch::default();
    for key in keys {
        let mut images = 0;
        let key = key.to_bytes();
        let behind = [&key[..], &[0xFF]].concat();
        for version in store.view().scan(Space::Pages, &key, &behind) {
            let (version, image) = version.expect("a stored image");
            let mut image = image.to_vec();
            image[4000] ^= 0x10;
            batch.put(Space::Pages, &version.key, version.lsn, image);
            images += 1;
        }
        assert!(images > 0, "an image is stored");
    }
    store.commit(batch).expect("write to the store");
    store.flush(Space::Pages).expect("flush the store");
}

/// The page as one node gives it to the server, or why it does not.
fn page(cluster: &Cluster, index: usize, key: PageKey) -> Result<Vec<u8>, String> {
    let attachment = pgdata::load_attachment(&cluster.server.pgdata)
        .expect("read attach.json")
        .expect("the server is attached");
    let address = cluster.nodes[index].address();
    let member = attachment
        .membership
        .members
        .iter()
        .find(|member| member.address == address);
    let segment = member.expect("the node is a member").segment;
    let (fork, slru, number) = match key {
        PageKey::Relation { rel, block } => (Some(rel.into()), None, block),
        PageKey::Slru { kind, page } => (None, Some(kind as u32), page),
    };
    let request = v1::GetPagesRequest {
        context: Some(attachment.context(segment).into()),
        lsn: u64::MAX,
        not_modified_since: attachment.vdl.0,
        fork,
        blocks: vec![number],
        slru,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = PagesClient::connect(format!("http://{address}")).await;
        let mut client = client.map_err(|error| error.to_string())?;
        let reply = client
            .get_pages(request)
            .await
            .map_err(|error| error.to_string())?;
        let reply = reply.into_inner();
        if let Some(refused) = reply.refused {
            return Err(refused.message);
        }
        let page = reply.pages.into_iter().next().ok_or("no page")?;
        match page.error.as_str() {
            "" => Ok(page.page.to_vec()),
            why => Err(why.to_owned()),
        }
    })
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
