//! Redo: records a second on one core in Rust, against stock PostgreSQL's recovery of the same WAL from the same files.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pg_quorum_deployment::{Server, Settings, ShutdownMode, capture};
use serde::Deserialize;

use super::figure::Figures;
use super::psql::pgbench;
use super::setup::{Bench, build_driver, copy_tree};
use crate::report;

const CLIENTS: u32 = 8;
/// How long stock PostgreSQL may take.
const REDO_PATIENCE: Duration = Duration::from_secs(600);

/// What the driver `redo_speed` prints.
#[derive(Deserialize)]
struct Replay {
    records: f64,
    pages: f64,
    wal_bytes: f64,
    seconds: f64,
}

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let driver = build_driver("redo_speed")?;
    let rig = bench.plain()?;
    // Neither checkpoints nor full-page images between the copy and the crash.
    let quiet = Settings::default()
        .with("checkpoint_timeout", "1h")
        .with("max_wal_size", "64GB")
        .with("full_page_writes", "off");
    rig.server.stop(ShutdownMode::Fast)?;
    let base = rig.copy_of_stopped_server()?;
    rig.server.configure(&quiet)?;
    rig.server.start()?;
    report::detail("writing WAL");
    pgbench(&rig.server, CLIENTS, bench.options.seconds * 4)?;
    rig.server.kill_everything()?;

    let text = capture(
        Command::new(&driver)
            .arg("--base")
            .arg(&base.pgdata)
            .arg("--wal")
            .arg(wal_of(&rig.server)),
    )?;
    let ours: Replay = serde_json::from_str(&text).context("redo_speed printed no JSON")?;
    let stock_seconds = stock_recovery(&rig.server, &base)?;
    figures.compare(
        "redo_records",
        ours.records / ours.seconds,
        ours.records / stock_seconds,
        "records/s and core",
    )?;
    figures.report(
        "redo_pages",
        ours.pages * 8192.0 / 1e6 / ours.seconds,
        "MB of pages/s and core",
    )?;
    figures.report(
        "redo_wal",
        ours.wal_bytes / 1e6 / ours.seconds,
        "MB of WAL/s and core",
    )
}

fn wal_of(server: &Server) -> std::path::PathBuf {
    server.pgdata.join("pg_wal")
}

/// Seconds that stock PostgreSQL's startup process takes to replay the WAL on the copy.
fn stock_recovery(crashed: &Server, base: &Server) -> Result<f64> {
    fs::remove_dir_all(wal_of(base))?;
    copy_tree(base, &wal_of(crashed), &wal_of(base))?;
    // The copy was stopped cleanly and would not look at the WAL behind its checkpoint, except as an archive recovery.
    let signal = base.pgdata.join("recovery.signal");
    fs::write(&signal, "")?;
    base.account.own(&signal)?;
    base.configure(
        &Settings::default()
            .with("restore_command", "false")
            .with("full_page_writes", "off"),
    )?;
    base.start()?;
    // It counts as started as soon as it is consistent.
    let deadline = Instant::now() + REDO_PATIENCE;
    let line = loop {
        let log = fs::read_to_string(&base.log)?;
        if let Some(line) = log.lines().find(|line| line.contains("redo done at")) {
            break line.to_owned();
        }
        if Instant::now() > deadline {
            bail!("stock PostgreSQL reports no redo:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    base.stop(ShutdownMode::Immediate)?;
    let elapsed = line
        .split("elapsed: ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    elapsed
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("no time in {line:?}"))
}
