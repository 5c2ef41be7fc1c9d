//! How long an attach takes: of an ordinary cluster, and of a large one with, unless less is asked for, 100,000 tables in 50
//! databases, 200 million transactions' state and 100 prepared transactions. After a SIGKILL in the directory of before, and
//! in a new directory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_quorum_deployment::{Node, Server, Settings, ShutdownMode, capture};

use super::figure::{Figures, median};
use super::kernel::require_free;
use super::psql::{psql, psql_in};
use super::setup::{Bench, Rig};
use super::start::{last_line, seconds_behind, seconds_to_answer};
use crate::report;

const DATABASES: u32 = 50;
const PREPARED_TRANSACTIONS: u32 = 100;
/// The next transaction's number. Four share a byte of the log of their states.
const NEXT_XID: usize = 200_000_000;
const XIDS_PER_BYTE: usize = 4;
/// Four transactions that have committed (`TRANSACTION_STATUS_COMMITTED`, clog.h).
const FOUR_COMMITTED: u8 = 0b0101_0101;
/// How long a server may take to remove the files of the run before.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(600);
const PAGE_BYTES: usize = 8192;
const PAGES_PER_FILE: usize = 32;

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let ordinary = bench.quorum()?;
    measure(bench, &ordinary, "attach_ordinary", figures)?;
    drop(ordinary);

    let tables = bench.options.tables / DATABASES;
    if tables == 0 {
        return Ok(());
    }
    require_free(&bench.root, 8.0)?;
    report::detail(&format!(
        "making a cluster of {DATABASES} databases with {tables} tables each"
    ));
    let large = bench.adopted("large", |rig| make_large(rig, tables))?;
    large.server.configure(&large_settings())?;
    seconds_to_answer(&large.server, "SELECT 1")?;
    report::detail(&last_line(&large.server, "imported ")?);
    for number in 1..=PREPARED_TRANSACTIONS {
        let table = number % tables + 1;
        let transaction = format!("BEGIN; INSERT INTO t{table} VALUES (2); PREPARE TRANSACTION 'p{number}'");
        psql_in(&large.server, "source", &transaction)?;
    }
    measure(bench, &large, "attach_large", figures)?;
    let line = last_line(&large.server, "attached to volume")?;
    let prepared = format!("{PREPARED_TRANSACTIONS} prepared transactions");
    ensure!(line.contains(&prepared), "not the cluster that was made: {line}");
    Ok(())
}

/// Kills the server and starts it, in its own directory and in a new one, in each round. What it still removes of the
/// round before is waited for: a round does not measure that.
fn measure(bench: &Bench<'_>, rig: &Rig, name: &str, figures: &mut Figures) -> Result<()> {
    for (suffix, renew) in [("killed", false), ("new_directory", true)] {
        let (mut attaches, mut answers) = (Vec::new(), Vec::new());
        for round in 1..=bench.options.rounds {
            wait_until_removed(&rig.server.pgdata.join("pg_quorum/set_aside"))?;
            rig.server.kill_everything()?;
            if renew {
                new_directory(rig, round)?;
            }
            answers.push(seconds_to_answer(&rig.server, "SELECT 1")?);
            let line = last_line(&rig.server, "attached to volume")?;
            attaches.push(seconds_behind(&line, " in ")?);
            report::detail(&line);
        }
        figures.report(&format!("{name}_{suffix}"), median(attaches), "s")?;
        figures.report(
            &format!("{name}_{suffix}_until_first_answer"),
            median(answers),
            "s",
        )?;
    }
    Ok(())
}

fn wait_until_removed(path: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVAL_PATIENCE;
    while path.exists() {
        ensure!(Instant::now() < deadline, "{} is not removed", path.display());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The machine has burnt down: another one gets a directory of its own, with the settings of the old one. By force, since
/// the lease of the old server is not what is measured. The old one's files are moved aside and stay: neither is what a
/// file system does behind a removal.
fn new_directory(rig: &Rig, round: u32) -> Result<()> {
    let server = &rig.server;
    let burnt = server.pgdata.with_file_name(format!("burnt{round}"));
    let keep = ["postgresql.conf", "pg_hba.conf"];
    let kept = keep.map(|name| (server.pgdata.join(name), fs::read(server.pgdata.join(name))));
    fs::rename(&server.pgdata, &burnt).with_context(|| format!("move {}", server.pgdata.display()))?;
    let nodes: Vec<String> = rig.nodes.iter().map(Node::address).collect();
    let mut command = server.account.command(server.binaries.quorumctl());
    command
        .args(["--nodes", &nodes.join(","), "compute", "create", "--force", "-D"])
        .arg(&server.pgdata);
    capture(&mut command)?;
    for (path, content) in kept {
        fs::write(&path, content?).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn large_settings() -> Settings {
    Settings::default()
        .with("max_prepared_transactions", 2 * PREPARED_TRANSACTIONS)
        .with("max_locks_per_transaction", 256)
        // Nothing has been frozen, as far as the server can see.
        .with("autovacuum_freeze_max_age", 1_500_000_000)
        .with("autovacuum", "off")
}

fn make_large(rig: &Rig, tables: u32) -> Result<()> {
    let server = &rig.server;
    server.configure(&large_settings().with("fsync", "off"))?;
    server.start()?;
    psql(server, "CREATE DATABASE source")?;
    psql_in(
        server,
        "source",
        &format!(
            "DO $$ BEGIN FOR i IN 1..{tables} LOOP \
             EXECUTE format('CREATE TABLE t%s (a int)', i); EXECUTE format('INSERT INTO t%s VALUES (1)', i); \
             END LOOP; END $$"
        ),
    )?;
    for number in 2..=DATABASES {
        psql(
            server,
            &format!("CREATE DATABASE copy{number} TEMPLATE source STRATEGY FILE_COPY"),
        )?;
    }
    server.stop(ShutdownMode::Fast)?;
    server.configure(&Settings::default().with("fsync", "on"))?;
    have_used_transactions(server)
}

/// As if so many transactions had been: the counter, and the log that says that they have committed.
fn have_used_transactions(server: &Server) -> Result<()> {
    let mut command = server.account.command(server.binaries.postgres("pg_resetwal"));
    command
        .args(["--next-transaction-id", &NEXT_XID.to_string(), "--pgdata"])
        .arg(&server.pgdata);
    capture(&mut command)?;
    let directory = server.pgdata.join("pg_xact");
    let before = fs::read(directory.join("0000")).context("read pg_xact/0000")?;
    let used = NEXT_XID / XIDS_PER_BYTE;
    let mut states = vec![FOUR_COMMITTED; used];
    states.resize(used.next_multiple_of(PAGE_BYTES), 0);
    for (state, before) in states.iter_mut().zip(before) {
        if before != 0 {
            *state = before;
        }
    }
    for (number, file) in states.chunks(PAGES_PER_FILE * PAGE_BYTES).enumerate() {
        write_as(server, &directory.join(format!("{number:04X}")), file)?;
    }
    Ok(())
}

fn write_as(server: &Server, path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    server.account.own(path)
}
