//! Reads of single pages, from a node's log and an image in its store: what a server waits for.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pg_quorum_tests::lone_node::LoneNode;
use pg_quorum_tests::wal_files::WalFiles;
use pg_quorum_types::{Lsn, PageKey};
use pg_quorum_wal::{Record, RedoContext, Rmgr, effects};
use serde::Serialize;
use storage_service::derived::{DerivedSettings, ReadPage};

use crate::Wal;

/// How long indexing may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is printed: medians.
#[derive(Serialize)]
struct Pages {
    heap_us: f64,
    heap_pages: usize,
    btree_us: f64,
    btree_pages: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Heap,
    Btree,
}

/// A page of the base that has the wanted number of records, all of one kind, at `at`.
struct Wanted {
    key: PageKey,
    kind: Kind,
    at: Lsn,
}

pub fn run(wal: &Wal, records: usize) -> Result<()> {
    let settings = DerivedSettings {
        // Nothing is turned into pages but what is read.
        index_bytes: usize::MAX,
        round_wal_bytes: u64::MAX,
        ..DerivedSettings::default()
    };
    let scratch = tempfile::tempdir_in(&wal.scratch)?;
    let node = LoneNode::on_hot_log(wal.source(scratch.path()), settings)?;
    let (end, wanted) = wanted(&node, records)?;
    node.give_log(end);
    let begin = Instant::now();
    while node.derived.indexed_lsn() < end {
        if begin.elapsed() > PATIENCE {
            bail!("indexing stands still at {}", node.derived.indexed_lsn());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let (heap_us, heap_pages) = read(&node, &wanted, Kind::Heap)?;
    let (btree_us, btree_pages) = read(&node, &wanted, Kind::Btree)?;
    let pages = Pages {
        heap_us,
        heap_pages,
        btree_us,
        btree_pages,
    };
    println!("{}", serde_json::to_string(&pages)?);
    Ok(())
}

/// Also the end of the log.
fn wanted(node: &LoneNode, records: usize) -> Result<(Lsn, Vec<Wanted>)> {
    let wal: &WalFiles = &node.wal;
    let mut end = node.start;
    let mut wanted = Vec::new();
    let mut seen: HashMap<PageKey, Option<(Kind, usize)>> = HashMap::new();
    for raw in wal.records().skip(1).map_while(Result::ok) {
        end = raw.end;
        let record = Record::decode(&raw)?;
        let kind = match record.rmgr {
            Rmgr::Heap | Rmgr::Heap2 => Some(Kind::Heap),
            Rmgr::Btree => Some(Kind::Btree),
            _ => None,
        };
        for effect in &effects(&record, &RedoContext::default())?.pages {
            let first = || match effect.key {
                PageKey::Relation { rel, block } => {
                    let size = node.derived.relation_size(rel, node.start).ok().flatten();
                    size.filter(|size| block < *size).and(Some((kind?, 0)))
                }
                PageKey::Slru { .. } => None,
            };
            let of_page = seen.entry(effect.key).or_insert_with(first);
            *of_page = of_page
                .filter(|(one, _)| !effect.full && Some(*one) == kind)
                .map(|(one, count)| (one, count + 1));
            if let Some((kind, count)) = *of_page
                && count == records
            {
                let (key, at) = (effect.key, raw.end);
                wanted.push(Wanted { key, kind, at });
            }
        }
    }
    Ok((end, wanted))
}

/// Each page once. Returns the median in microseconds, and of how many.
fn read(node: &LoneNode, wanted: &[Wanted], kind: Kind) -> Result<(f64, usize)> {
    let mut times = Vec::new();
    for page in wanted.iter().filter(|page| page.kind == kind) {
        let begin = Instant::now();
        let read = node.derived.page(page.key, page.at)?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
        if !matches!(read, ReadPage::Page(_)) {
            bail!("{} at {}: {read:?}", page.key, page.at);
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied();
    Ok((median.context("no page has so many records")?, times.len()))
}
