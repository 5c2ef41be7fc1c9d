//! Redo of whole WALs, pgbench's and a bulk load's, against stock PostgreSQL's recovery of the same files.
//!
//! One core against one core: the startup process and a loop over the same records that, like it, puts them into pages
//! in memory. The same with all that a node does around it: an index of the log, rounds, images with checksums, old
//! versions that go. A node on two cores against the same node on one.

use anyhow::Result;
use pg_quorum_deployment::Server;
use rustix::process::{getpriority_process, setpriority_process};
use serde::Deserialize;

use super::figure::{Figures, median};
use super::psql::{pgbench, psql};
use super::recording::Recording;
use super::setup::Bench;
use crate::report;

const CLIENTS: u32 = 8;
/// Rows of the bulk load.
const ROWS: u32 = 1_000_000;
const PAGE_BYTES: f64 = 8192.0;
/// The node's memory for its index, in MB: what the stock server has as `shared_buffers`.
const INDEX_MB: &str = "256";
/// How far a node's background threads step back (`nice`).
const NICE: i32 = 10;

/// What the driver prints for pages in memory.
#[derive(Deserialize)]
struct InMemory {
    records: f64,
    page_changes: f64,
    wal_bytes: f64,
    seconds: f64,
}

/// What it prints for a node.
#[derive(Deserialize)]
struct OfNode {
    seconds: f64,
    memory_peak: f64,
    memory_limit: f64,
}

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    // On a busy machine what is compared must have the same right to it.
    let before = getpriority_process(None)?;
    setpriority_process(None, NICE)?;
    let measured = run_all(bench, figures);
    // Whoever is not root stays where it is, which is no failure.
    let _ = setpriority_process(None, before);
    measured
}

fn run_all(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    report::detail("pgbench");
    let transactions = |server: &Server| pgbench(server, CLIENTS, bench.options.seconds * 4).map(drop);
    let recording = Recording::make(bench, |_| Ok(()), transactions)?;
    measure(bench, &recording, "redo", figures)?;
    drop(recording);
    report::detail("bulk load");
    let recording = Recording::make(bench, |_| Ok(()), bulk_load)?;
    measure(bench, &recording, "redo_bulk", figures)
}

/// COPY into a table with two indexes, another index, an update of a part, VACUUM.
fn bulk_load(server: &Server) -> Result<()> {
    let file = server.pgdata.with_file_name("bulk.copy");
    let file = file.display();
    let statements = [
        format!(
            "COPY (SELECT g, (g * 7919::bigint) % 1000003, md5(g::text) FROM generate_series(1, {ROWS}) g) TO '{file}'"
        ),
        "CREATE TABLE bulk (id bigint PRIMARY KEY, other bigint, text text)".to_owned(),
        "CREATE INDEX ON bulk (other)".to_owned(),
        format!("COPY bulk FROM '{file}'"),
        "CREATE INDEX ON bulk (text)".to_owned(),
        "UPDATE bulk SET other = other + 1 WHERE id % 10 = 0".to_owned(),
        "VACUUM bulk".to_owned(),
    ];
    for statement in &statements {
        psql(server, statement)?;
    }
    Ok(())
}

/// Seconds of each kind, alternating.
#[derive(Default)]
struct Seconds {
    stock: Vec<f64>,
    in_memory: Vec<f64>,
    one_core: Vec<f64>,
    two_cores: Vec<f64>,
}

fn measure(bench: &Bench<'_>, recording: &Recording, name: &str, figures: &mut Figures) -> Result<()> {
    let mut seconds = Seconds::default();
    let mut last = None;
    for _ in 0..bench.options.rounds {
        seconds.stock.push(recording.stock_recovery()?);
        let in_memory: InMemory = recording.drive(&["memory"])?;
        seconds.in_memory.push(in_memory.seconds);
        let of_node: OfNode = recording.drive(&["node", "--index-mb", INDEX_MB, "--cores", "1"])?;
        seconds.one_core.push(of_node.seconds);
        let of_node: OfNode = recording.drive(&["node", "--index-mb", INDEX_MB, "--cores", "2"])?;
        seconds.two_cores.push(of_node.seconds);
        last = Some((in_memory, of_node));
    }
    let Some((material, of_node)) = last else {
        return Ok(());
    };
    let [stock, in_memory, one_core, two_cores] = [
        seconds.stock,
        seconds.in_memory,
        seconds.one_core,
        seconds.two_cores,
    ]
    .map(median);
    let records = material.records;
    figures.compare(
        &format!("{name}_records"),
        records / in_memory,
        records / stock,
        "records/s and core",
    )?;
    figures.report(
        &format!("{name}_pages"),
        material.page_changes * PAGE_BYTES / 1e6 / in_memory,
        "MB of pages/s and core",
    )?;
    figures.report(
        &format!("{name}_wal"),
        material.wal_bytes / 1e6 / in_memory,
        "MB of WAL/s and core",
    )?;
    figures.compare(
        &format!("{name}_node_records"),
        records / one_core,
        records / stock,
        "records/s and core",
    )?;
    figures.compare(
        &format!("{name}_node_two_cores"),
        records / two_cores,
        records / one_core,
        "records/s",
    )?;
    figures.compare(
        &format!("{name}_node_memory"),
        of_node.memory_peak / 1e6,
        of_node.memory_limit / 1e6,
        "MB",
    )
}
