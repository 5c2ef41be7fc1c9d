//! A sequential scan of a table of which nothing is local, against one that the kernel has in its page cache.

use anyhow::{Context, Result};
use pg_quorum_deployment::Server;

use super::figure::{Figures, median};
use super::psql::{number, psql};
use super::setup::{Bench, Rig};
use crate::report;

const TABLE: &str = "pgbench_accounts";

/// So small that a scan goes through a ring of them.
const SHARED_BUFFERS: &str = "16MB";

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let (ours, plain) = (bench.quorum()?, bench.plain()?);
    for rig in [&ours, &plain] {
        rig.restart_with(&[("shared_buffers", SHARED_BUFFERS)])?;
    }
    let megabytes = number(
        &plain.server,
        &format!("SELECT pg_relation_size('{TABLE}') / 1e6"),
    )?;
    let mut speeds: [Vec<f64>; 2] = Default::default();
    for round in 1..=bench.options.rounds {
        for (rig, speeds) in [&ours, &plain].into_iter().zip(&mut speeds) {
            rig.restart_with(&[])?;
            if rig.is_ours() {
                psql(&rig.server, "SELECT quorum.drop_cache()")?;
            }
            speeds.push(megabytes / scan_seconds(&rig.server)?);
        }
        let last = speeds.iter().filter_map(|speeds| speeds.last());
        let last: Vec<String> = last.map(|speed| format!("{speed:.0}")).collect();
        report::detail(&format!("round {round}: {} MB/s", last.join(" / ")));
    }
    let [ours_speed, plain_speed] = speeds.map(median);
    figures.compare("scan_of_nothing_local", ours_speed, plain_speed, "MB/s")
}

/// Execution time of a scan by one process.
fn scan_seconds(server: &Server) -> Result<f64> {
    let plan = psql(
        server,
        &format!(
            "SET max_parallel_workers_per_gather = 0; \
             EXPLAIN (ANALYZE, TIMING OFF) SELECT count(*) FROM {TABLE}"
        ),
    )?;
    let milliseconds = plan
        .lines()
        .find_map(|line| line.trim().strip_prefix("Execution Time: "))
        .and_then(|rest| rest.strip_suffix(" ms")?.parse::<f64>().ok());
    Ok(milliseconds.with_context(|| format!("no execution time in {plan}"))? / 1e3)
}

impl Rig {
    fn is_ours(&self) -> bool {
        !self.nodes.is_empty()
    }
}
