//! Index lookups each of which finds its table page nowhere local, against a bare gRPC echo of one page between two
//! processes: the lookup as a whole, executor and all, and what the miss adds to it.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};
use pg_quorum_deployment::{Server, capture};
use serde::Deserialize;

use super::figure::{Figures, median};
use super::psql::{number, psql};
use super::setup::{Bench, build_driver};
use crate::report;

const LOOKUPS: u32 = 2000;
/// Accounts from one lookup to the next: some pages apart, so that none follows another.
const STRIDE: u32 = 409;

/// What the driver `page_echo` prints.
#[derive(Deserialize)]
struct Echoed {
    p50_us: f64,
}

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let driver = build_driver("page_echo")?;
    let rig = bench.quorum()?;
    rig.restart_with(&[("shared_buffers", "16MB")])?;
    let echo_address = format!("{}:{}", Ipv4Addr::LOCALHOST, bench.options.port_base + 3);
    let mut micros: [Vec<f64>; 3] = Default::default();
    for round in 1..=bench.options.rounds {
        let (miss, hit) = lookups_p50_us(&rig.server)?;
        let text = capture(Command::new(&driver).args(["--address", &echo_address]))?;
        let echoed: Echoed = serde_json::from_str(&text).context("page_echo printed no JSON")?;
        let echo = echoed.p50_us;
        report::detail(&format!(
            "round {round}: a miss {miss:.0}, a hit {hit:.0}, an echo {echo:.0} us"
        ));
        for (micros, one) in micros.iter_mut().zip([miss, miss - hit, echo]) {
            micros.push(one);
        }
    }
    let [lookup, added, echo] = micros.map(median);
    figures.compare("pointread_lookup_p50", lookup, echo, "us")?;
    figures.compare("pointread_miss_p50", added, echo, "us")
}

/// The median of lookups each of which misses one page of the table (the index is local), and of the same lookups once
/// more, when the local files have what they need. The difference is the miss: the way to a node and back, and what it
/// takes to keep the page.
fn lookups_p50_us(server: &Server) -> Result<(f64, f64)> {
    psql(
        server,
        "SELECT quorum.drop_cache('pgbench_accounts'), quorum.prewarm('pgbench_accounts_pkey')",
    )?;
    let misses = "SELECT cache_misses FROM quorum.stat";
    let before = number(server, misses)?;
    let miss = lookup_p50_us(server)?;
    let missed = number(server, misses)? - before;
    anyhow::ensure!(
        missed > f64::from(LOOKUPS) * 0.8,
        "only {missed} of {LOOKUPS} lookups missed"
    );
    let before = number(server, misses)?;
    let hit = lookup_p50_us(server)?;
    let missed = number(server, misses)? - before;
    anyhow::ensure!(
        missed < f64::from(LOOKUPS) * 0.1,
        "{missed} of {LOOKUPS} lookups missed once more"
    );
    Ok((miss, hit))
}

fn lookup_p50_us(server: &Server) -> Result<f64> {
    let micros = psql(
        server,
        &format!(
            "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; \
             CREATE TEMP TABLE took (us float8); \
             DO $$ DECLARE since timestamptz; took float8[]; BEGIN \
               FOR i IN 1..{LOOKUPS} LOOP \
                 since := clock_timestamp(); \
                 PERFORM abalance FROM pgbench_accounts WHERE aid = i * {STRIDE}; \
                 took[i] := extract(epoch FROM clock_timestamp() - since) * 1e6; \
               END LOOP; \
               INSERT INTO took SELECT unnest(took); \
             END $$; \
             SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY us) FROM took"
        ),
    )?;
    micros.parse().with_context(|| format!("{micros:?} is no number"))
}
