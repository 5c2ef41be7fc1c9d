//! Transactions per second, TPC-B, against the same server with six synchronous log receivers, and against one with
//! its own disk.

use anyhow::Result;

use super::figure::{Figures, median};
use super::psql::pgbench;
use super::setup::Bench;
use crate::report;

const CLIENTS: [u32; 3] = [1, 8, 32];

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    report::detail("filling three clusters");
    let rigs = [bench.quorum()?, bench.receivers()?, bench.plain()?];
    for clients in CLIENTS {
        let mut tps: [Vec<f64>; 3] = Default::default();
        for round in 1..=bench.options.rounds {
            for (rig, tps) in rigs.iter().zip(&mut tps) {
                tps.push(pgbench(&rig.server, clients, bench.options.seconds)?.tps);
            }
            let last: Vec<String> = tps
                .iter()
                .filter_map(|tps| Some(format!("{:.0}", tps.last()?)))
                .collect();
            report::detail(&format!(
                "{clients} clients, round {round}: {} tps",
                last.join(" / ")
            ));
        }
        let [quorum, receivers, plain] = tps.map(median);
        figures.compare(&format!("commit_{clients}_clients"), quorum, receivers, "tps")?;
        figures.compare(
            &format!("commit_{clients}_clients_against_one_disk"),
            quorum,
            plain,
            "tps",
        )?;
    }
    Ok(())
}
