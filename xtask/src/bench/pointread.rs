//! Index lookups each of which finds its table page nowhere local, against a bare gRPC echo of one page between two
//! processes.

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
    let mut micros: [Vec<f64>; 2] = Default::default();
    for round in 1..=bench.options.rounds {
        let lookup = lookup_p50_us(&rig.server)?;
        let text = capture(Command::new(&driver).args(["--address", &echo_address]))?;
        let echoed: Echoed = serde_json::from_str(&text).context("page_echo printed no JSON")?;
        report::detail(&format!("round {round}: {lookup:.0} / {:.0} us", echoed.p50_us));
        micros[0].push(lookup);
        micros[1].push(echoed.p50_us);
    }
    let [lookup, echo] = micros.map(median);
    figures.compare("pointread_miss_p50", lookup, echo, "us")
}

/// The index is local, the table is not: one page for each lookup.
fn lookup_p50_us(server: &Server) -> Result<f64> {
    psql(
        server,
        "SELECT quorum.drop_cache('pgbench_accounts'), quorum.prewarm('pgbench_accounts_pkey')",
    )?;
    let misses = "SELECT cache_misses FROM quorum.stat";
    let before = number(server, misses)?;
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
    let missed = number(server, misses)? - before;
    anyhow::ensure!(
        missed > f64::from(LOOKUPS) * 0.8,
        "only {missed} of {LOOKUPS} lookups missed"
    );
    micros.parse().with_context(|| format!("{micros:?} is no number"))
}
