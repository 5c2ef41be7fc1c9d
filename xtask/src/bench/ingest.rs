//! One node alone, driven with WAL as fast as it takes it: throughput, what reaches its disk, its memory.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use pg_quorum_deployment::{NodeFlags, Settings, ShutdownMode, capture};
use serde::Deserialize;

use super::figure::Figures;
use super::psql::{number, psql};
use super::setup::{Bench, build_driver};
use crate::report;

/// Rows that one step of the load changes.
const ROWS: u32 = 1_000_000;

/// What the driver `ingest_speed` prints.
#[derive(Deserialize)]
struct Ingested {
    wal_bytes: f64,
    records: f64,
    seconds: f64,
    seconds_until_applied: f64,
}

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let driver = build_driver("ingest_speed")?;
    let mut rig = bench.plain()?;
    // Nobody waits for this server's disk: its WAL is only the material.
    let quiet = Settings::default()
        .with("checkpoint_timeout", "1h")
        .with("max_wal_size", "64GB")
        .with("wal_keep_size", "64GB")
        .with("full_page_writes", "off")
        .with("fsync", "off");
    rig.server.stop(ShutdownMode::Fast)?;
    let base = rig.copy_of_stopped_server()?;
    rig.server.configure(&quiet)?;
    rig.server.start()?;
    write_wal(&rig.server, f64::from(bench.options.ingest_mb))?;
    rig.server.stop(ShutdownMode::Fast)?;

    report::detail("driving the node");
    let node = rig.single_node(bench)?;
    let process = node.start(&bench.binaries, &bench.account, &NodeFlags::new())?;
    let pid = process.id();
    rig.processes.push(process);
    let text = capture(
        Command::new(&driver)
            .arg("--base")
            .arg(&base.pgdata)
            .arg("--wal")
            .arg(rig.server.pgdata.join("pg_wal"))
            .args(["--node", &node.address()]),
    )?;
    let ingested: Ingested = serde_json::from_str(&text).context("ingest_speed printed no JSON")?;
    let megabytes = ingested.wal_bytes / 1e6;
    figures.report("ingest_durable", megabytes / ingested.seconds, "MB of WAL/s")?;
    figures.report(
        "ingest_durable_records",
        ingested.records / ingested.seconds,
        "records/s",
    )?;
    figures.report(
        "ingest_until_pages",
        megabytes / ingested.seconds_until_applied,
        "MB of WAL/s",
    )?;
    figures.compare(
        "ingest_bytes_written",
        proc_number(pid, "io", "write_bytes:")?,
        ingested.wal_bytes,
        "bytes",
    )?;
    figures.compare(
        "ingest_bytes_kept",
        bytes_below(&node.data())?,
        ingested.wal_bytes,
        "bytes",
    )?;
    figures.report(
        "ingest_memory_peak",
        proc_number(pid, "status", "VmHWM:")? / 1024.0,
        "MB",
    )
}

/// Small transactions, bulk loads and updates of everything, until there is so much WAL.
fn write_wal(server: &pg_quorum_deployment::Server, megabytes: f64) -> Result<()> {
    let written = || number(server, "SELECT pg_current_wal_lsn() - '0/0'");
    let begin = written()?;
    let statements = [
        format!(
            "DROP TABLE IF EXISTS bulk; CREATE TABLE bulk AS SELECT g AS id, md5(g::text) AS a, 0 AS b \
             FROM generate_series(1, {ROWS}) g; ALTER TABLE bulk ADD PRIMARY KEY (id); CREATE INDEX ON bulk (a)"
        ),
        "UPDATE bulk SET b = b + 1 WHERE id % 2 = 0".to_owned(),
        "UPDATE pgbench_accounts SET abalance = abalance + 1".to_owned(),
        "DELETE FROM bulk WHERE id % 3 = 0; VACUUM bulk; VACUUM pgbench_accounts".to_owned(),
    ];
    let mut told = 0.0;
    loop {
        for statement in &statements {
            for part in statement.split("; ") {
                psql(server, part)?;
            }
            super::psql::pgbench(server, 4, 1)?;
            let done = (written()? - begin) / 1e6;
            if done - told >= 1000.0 {
                told = done;
                report::detail(&format!("{done:.0} of {megabytes:.0} MB of WAL written"));
            }
            if done >= megabytes {
                return Ok(());
            }
        }
    }
}

/// A number of the kernel's about a process: of `io` in bytes, of `status` in kB.
fn proc_number(pid: u32, file: &str, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{path} has no {field}"))
}

/// Bytes of the disk that a directory's files take.
fn bytes_below(directory: &Path) -> Result<f64> {
    let text = capture(
        Command::new("du")
            .args(["--summarize", "--block-size=1"])
            .arg(directory),
    )?;
    text.split_whitespace()
        .next()
        .and_then(|bytes| bytes.parse().ok())
        .with_context(|| format!("du printed {text:?}"))
}
