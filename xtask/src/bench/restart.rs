//! A server that was killed, with much and with little WAL since its last checkpoint: time from the start to the
//! first answer, against stock PostgreSQL. What a start takes anyway, shared buffers included, is measured after a clean
//! stop.

use anyhow::Result;
use pg_quorum_deployment::ShutdownMode;

use super::figure::{Figures, median};
use super::kernel::require_free;
use super::psql::{psql, write_wal};
use super::setup::{Bench, Rig};
use super::start::{last_line, seconds_behind, seconds_to_answer};
use crate::report;

/// The first answer needs a page of a table that was written to.
const QUERY: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";

/// GB of disk that a GB of WAL takes: once in each server's `pg_wal`, and what six nodes keep of it as log and as pages,
/// since they turn it into pages meanwhile.
const DISK_SHARE: f64 = 3.5;

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let largest = bench.options.wal_gb.iter().copied().fold(0.0, f64::max);
    require_free(&bench.root, 4.0 + largest * DISK_SHARE)?;
    let rigs = [bench.quorum()?, bench.plain()?];
    for rig in &rigs {
        rig.restart_with(&[
            ("shared_buffers", "1GB"),
            ("checkpoint_timeout", "1d"),
            ("max_wal_size", "100GB"),
            ("autovacuum", "off"),
        ])?;
    }
    let clean = seconds_of_both(bench, &rigs, |rig| rig.server.stop(ShutdownMode::Fast))?;
    figures.compare("restart_after_clean_stop", clean[0], clean[1], "s")?;
    for gigabytes in &bench.options.wal_gb {
        let killed = seconds_of_both(bench, &rigs, |rig| {
            psql(&rig.server, "CHECKPOINT")?;
            let written = write_wal(&rig.server, gigabytes * 1000.0)?;
            report::detail(&format!(
                "SIGKILL {:.2} GB behind the last checkpoint",
                written / 1e9
            ));
            rig.server.kill_everything()
        })?;
        let line = last_line(&rigs[0].server, "attached to volume")?;
        report::detail(&line);
        figures.compare(
            &format!("restart_killed_{gigabytes}_gb"),
            killed[0],
            killed[1],
            "s",
        )?;
        figures.report(
            &format!("restart_killed_{gigabytes}_gb_attach"),
            seconds_behind(&line, " in ")?,
            "s",
        )?;
    }
    Ok(())
}

/// Stops both servers in turn in some way; medians of the seconds until they answer again, ours first.
fn seconds_of_both(
    bench: &Bench<'_>,
    rigs: &[Rig; 2],
    mut stop: impl FnMut(&Rig) -> Result<()>,
) -> Result<[f64; 2]> {
    let mut seconds: [Vec<f64>; 2] = Default::default();
    for round in 1..=bench.options.rounds {
        for (rig, seconds) in rigs.iter().zip(&mut seconds) {
            stop(rig)?;
            seconds.push(seconds_to_answer(&rig.server, QUERY)?);
        }
        let last = seconds
            .each_ref()
            .map(|seconds| seconds.last().copied().unwrap_or(0.0));
        report::detail(&format!("round {round}: {:.2} s / {:.2} s", last[0], last[1]));
    }
    Ok(seconds.map(median))
}
