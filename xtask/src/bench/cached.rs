//! Reads that storage has no part in, against a plain server: all in shared buffers, and all in the local cache's
//! files with hardly any shared buffers.

use anyhow::Result;

use super::figure::{Figures, median};
use super::psql::{psql, select_only};
use super::setup::Bench;
use crate::report;

const CLIENTS: u32 = 4;

/// `shared_buffers`, and what the figure is called.
const PLACES: [(&str, &str); 2] = [
    ("1GB", "cached_in_shared_buffers"),
    ("16MB", "cached_in_local_files"),
];

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let rigs = [bench.quorum()?, bench.plain()?];
    for (shared_buffers, name) in PLACES {
        for rig in &rigs {
            rig.restart_with(&[("shared_buffers", shared_buffers)])?;
            // Every page comes by once.
            psql(
                &rig.server,
                "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT sum(abalance) FROM \
                 (SELECT abalance FROM pgbench_accounts ORDER BY aid) t",
            )?;
        }
        let mut tps: [Vec<f64>; 2] = Default::default();
        for round in 1..=bench.options.rounds {
            for (rig, tps) in rigs.iter().zip(&mut tps) {
                tps.push(select_only(&rig.server, CLIENTS, bench.options.seconds)?.tps);
            }
            let last: Vec<String> = tps
                .iter()
                .filter_map(|tps| Some(format!("{:.0}", tps.last()?)))
                .collect();
            report::detail(&format!("{name}, round {round}: {} tps", last.join(" / ")));
        }
        let [ours, plain] = tps.map(median);
        figures.compare(name, ours, plain, "tps")?;
    }
    Ok(())
}
