//! One node alone, driven with WAL as fast as it takes it: throughput, what reaches its disk, its memory.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};
use pg_quorum_deployment::{Settings, ShutdownMode, capture};
use serde::Deserialize;

use super::figure::Figures;
use super::kernel::{bytes_below, proc_number};
use super::psql::write_wal;
use super::setup::{Bench, build_driver};
use crate::report;

/// What the driver `ingest_speed` prints.
#[derive(Deserialize)]
struct Ingested {
    wal_bytes: f64,
    records: f64,
    seconds: f64,
    seconds_until_applied: f64,
    index_memory_peak: f64,
    index_memory_limit: f64,
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
    let metrics = format!("{}:{}", Ipv4Addr::LOCALHOST, bench.options.port_base + 3);
    let flags = vec!["--metrics".to_owned(), metrics.clone()];
    let process = node.start(&bench.binaries, &bench.account, &flags)?;
    let pid = process.id();
    rig.processes.push(process);
    let text = capture(
        Command::new(&driver)
            .arg("--base")
            .arg(&base.pgdata)
            .arg("--wal")
            .arg(rig.server.pgdata.join("pg_wal"))
            .args(["--node", &node.address(), "--metrics", &metrics]),
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
    figures.compare(
        "ingest_index_memory",
        ingested.index_memory_peak / 1e6,
        ingested.index_memory_limit / 1e6,
        "MB",
    )?;
    figures.report(
        "ingest_memory_peak",
        proc_number(pid, "status", "VmHWM:")? / 1024.0,
        "MB",
    )
}
