//! pgbench on data that the local cache holds a part of: from an eighth of it to all of it, with hardly any shared
//! buffers.
//!
//! What a model says beside what is measured: the part of the cache that is missing is the part of the reads that miss,
//! and every miss takes a transaction equally long. The model is fitted to the smallest and to the largest cache, so
//! what lies between them tests it.

use anyhow::{Context, Result};
use pg_quorum_deployment::Server;

use super::figure::{Figures, median};
use super::psql::{Run, number, pgbench, psql, select_only};
use super::setup::{Bench, Rig};
use crate::report;

const CLIENTS: u32 = 4;

/// Eighths of the data that the cache holds.
const EIGHTHS: [u32; 5] = [1, 2, 4, 6, 8];

type Workload = fn(&Server, u32, u32) -> Result<Run>;

const WORKLOADS: [(&str, Workload); 2] = [("select_only", select_only), ("tpcb", pgbench)];

/// What a run says, of a workload and a cache.
#[derive(Default)]
struct Measured {
    tps: Vec<f64>,
    /// The part of the reads behind shared buffers that the cache has answered.
    hit_share: Vec<f64>,
    misses_per_transaction: Vec<f64>,
}

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let rig = bench.quorum()?;
    let mut measured: [[Measured; EIGHTHS.len()]; WORKLOADS.len()] = Default::default();
    for round in 1..=bench.options.rounds {
        for (place, eighths) in EIGHTHS.into_iter().enumerate() {
            let megabytes = limit_cache(&rig, eighths)?;
            for ((name, workload), measured) in WORKLOADS.iter().zip(&mut measured) {
                let of_cache = &mut measured[place];
                measure(bench, &rig.server, *workload, of_cache)?;
                let last = |values: &[f64]| values.last().copied().unwrap_or_default();
                report::detail(&format!(
                    "round {round}, {eighths}/8 ({megabytes:.0} MB), {name}: {:.0} tps, hits {:.3}",
                    last(&of_cache.tps),
                    last(&of_cache.hit_share),
                ));
            }
        }
    }
    for ((name, _), measured) in WORKLOADS.iter().zip(measured) {
        tell(name, measured.map(Medians::of), figures)?;
    }
    Ok(())
}

/// Restarts the server with so large a cache, and fills it. Returns its size in MB.
fn limit_cache(rig: &Rig, eighths: u32) -> Result<f64> {
    let data = number(
        &rig.server,
        "SELECT pg_database_size(current_database()) / 1048576.0",
    )?;
    let megabytes = (data * f64::from(eighths) / 8.0).ceil();
    rig.restart_with(&[
        ("shared_buffers", "16MB"),
        ("pg_quorum.cache_size", &format!("{megabytes:.0}MB")),
    ])?;
    psql(
        &rig.server,
        "SELECT quorum.drop_cache(), quorum.prewarm('pgbench_accounts_pkey'), quorum.prewarm('pgbench_accounts')",
    )?;
    Ok(megabytes)
}

/// One run that brings buffers and cache into their ordinary state, and one that counts.
fn measure(bench: &Bench<'_>, server: &Server, workload: Workload, into: &mut Measured) -> Result<()> {
    workload(server, CLIENTS, bench.options.seconds)?;
    let reads = || {
        let hits = number(server, "SELECT hits FROM quorum.cache")?;
        let misses = number(server, "SELECT misses FROM quorum.cache")?;
        anyhow::Ok((hits, misses))
    };
    let before = reads()?;
    let run = workload(server, CLIENTS, bench.options.seconds)?;
    let after = reads()?;
    let (hits, misses) = (after.0 - before.0, after.1 - before.1);
    into.tps.push(run.tps);
    into.hit_share.push(hits / (hits + misses));
    into.misses_per_transaction.push(misses / run.transactions);
    Ok(())
}

/// Of the rounds.
struct Medians {
    tps: f64,
    hit_share: f64,
    misses_per_transaction: f64,
}

impl Medians {
    fn of(measured: Measured) -> Medians {
        Medians {
            tps: median(measured.tps),
            hit_share: median(measured.hit_share),
            misses_per_transaction: median(measured.misses_per_transaction),
        }
    }
}

fn tell(workload: &str, measured: [Medians; EIGHTHS.len()], figures: &mut Figures) -> Result<()> {
    let shares = EIGHTHS.map(|eighths| f64::from(eighths) / 8.0);
    let (least, all) = (
        measured.first().context("no sizes")?,
        measured.last().context("no sizes")?,
    );
    // Seconds between the ends of two transactions: what they take without a miss, and what the missing seven eighths add.
    let without_misses = 1.0 / all.tps;
    let added_at_least = 1.0 / least.tps - without_misses;
    for ((eighths, share), of_cache) in EIGHTHS.into_iter().zip(shares).zip(&measured) {
        let name = format!("cache_size_{workload}_{eighths}_of_8");
        let missing = (1.0 - share) / (1.0 - shares[0]);
        let model = 1.0 / (without_misses + added_at_least * missing);
        figures.compare(&name, of_cache.tps, model, "tps")?;
        figures.compare(&format!("{name}_hits"), of_cache.hit_share, share, "of the reads")?;
        if eighths < 8 {
            let added = f64::from(CLIENTS) * (1.0 / of_cache.tps - without_misses);
            figures.report(
                &format!("{name}_miss"),
                added / of_cache.misses_per_transaction * 1e6,
                "us",
            )?;
        }
    }
    Ok(())
}
