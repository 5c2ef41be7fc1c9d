//! All of a log, from the log's files to page images: indexing and rounds as a node runs them.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pg_quorum_tests::lone_node::LoneNode;
use pg_quorum_tests::wal_files::WalFiles;
use pg_quorum_types::Lsn;
use pg_quorum_wal::{Record, RedoContext, effects};
use serde::Serialize;
use storage_service::derived::{DerivedSettings, RedoThreads};

use crate::{Wal, cpu_seconds};

/// Without progress for so long the node has a fault.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is printed.
#[derive(Serialize)]
struct Replayed {
    records: u64,
    /// Changes of pages.
    page_changes: u64,
    /// Pages that were written: those that change often only once in a round.
    images: u64,
    rounds: u64,
    wal_bytes: u64,
    seconds: f64,
    /// Of them, until all of the log was indexed.
    indexed_seconds: f64,
    /// Time of all threads on cores.
    cpu_seconds: f64,
    /// The most that index and metadata took, and their limit.
    memory_peak: u64,
    memory_limit: u64,
}

pub fn run(wal: &Wal, cores: usize, index_bytes: usize) -> Result<()> {
    let settings = DerivedSettings {
        index_bytes,
        redo_threads: RedoThreads::new(NonZeroUsize::new(cores).context("no cores")?),
        ..DerivedSettings::default()
    };
    let memory_limit = settings.index_bytes as u64;
    let scratch = tempfile::tempdir_in(&wal.scratch)?;
    let node = LoneNode::on_wal_files(wal.source(scratch.path()), settings)?;
    let material = Material::of(&node.wal)?;

    // Somebody waits for it: nothing gathers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(node.derived.wait_indexed(material.end, Duration::ZERO));

    let begin = Instant::now();
    let cpu_before = cpu_seconds();
    node.give_log(material.end);
    let mut memory_peak = 0;
    let mut indexed_seconds = None;
    while node.derived.applied_lsn() < material.end {
        if indexed_seconds.is_none() && node.derived.indexed_lsn() == material.end {
            indexed_seconds = Some(begin.elapsed().as_secs_f64());
            node.derived.request_coalescing();
        }
        std::thread::sleep(Duration::from_micros(500));
        let stats = node.derived.stats();
        memory_peak = memory_peak.max(stats.memory_bytes);
        if !stats.failure.is_empty() || begin.elapsed() > PATIENCE {
            bail!("it stands still at {}: {}", stats.applied, stats.failure);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds() - cpu_before;
    let stats = node.derived.stats();
    let replayed = Replayed {
        records: material.records,
        page_changes: material.page_changes,
        images: stats.images_written,
        rounds: stats.rounds,
        wal_bytes: material.end.bytes_since(node.start),
        seconds,
        indexed_seconds: indexed_seconds.unwrap_or(seconds),
        cpu_seconds,
        memory_peak,
        memory_limit,
    };
    println!("{}", serde_json::to_string(&replayed)?);
    Ok(())
}

/// What there is to replay. Looking also brings the files into the page cache.
struct Material {
    end: Lsn,
    records: u64,
    page_changes: u64,
}

impl Material {
    fn of(wal: &WalFiles) -> Result<Material> {
        let mut material = Material {
            end: wal.start,
            records: 0,
            page_changes: 0,
        };
        for raw in wal.records().map_while(Result::ok) {
            let record = Record::decode(&raw)?;
            let effects = effects(&record, &RedoContext::default())?;
            material.end = raw.end;
            material.records += 1;
            material.page_changes += effects.pages.len() as u64;
        }
        Ok(material)
    }
}
