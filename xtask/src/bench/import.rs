//! The first start of an existing cluster: how fast its content gets to six nodes that share one disk, and what that
//! disk writes for it.

use std::time::{Duration, Instant};

use anyhow::Result;
use pg_quorum_deployment::ShutdownMode;

use super::figure::Figures;
use super::kernel::{bytes_below, proc_number, require_free};
use super::psql::fill;
use super::setup::Bench;
use super::start::{last_line, seconds_behind, seconds_to_answer};
use crate::report;

/// pgbench's scale that makes a gigabyte.
const SCALE_PER_GB: f64 = 67.0;
/// GB of disk that a GB of such a cluster takes for a while: itself, and six copies that are compressed well, with the
/// stores' journals.
const DISK_SHARE: f64 = 5.0;

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let gigabytes = bench.options.import_gb;
    require_free(&bench.root, 2.0 + DISK_SHARE * gigabytes)?;
    let rig = bench.adopted("import", |rig| {
        rig.server.start()?;
        fill(&rig.server, (gigabytes * SCALE_PER_GB).ceil() as u32)?;
        rig.server.stop(ShutdownMode::Fast)
    })?;
    let cluster =
        bytes_below(&rig.server.pgdata.join("base"))? + bytes_below(&rig.server.pgdata.join("global"))?;
    report::detail(&format!("a cluster of {:.2} GB, stopped", cluster / 1e9));
    let nodes: Vec<u32> = rig.processes.iter().map(std::process::Child::id).collect();
    let written = |field| -> Result<f64> { nodes.iter().map(|pid| proc_number(*pid, "io", field)).sum() };
    let cpu =
        |nodes: &[u32]| -> Result<f64> { nodes.iter().map(|pid| super::kernel::cpu_seconds(*pid)).sum() };
    let started = Instant::now();
    seconds_to_answer(&rig.server, "SELECT count(*) FROM pgbench_branches")?;
    let seconds = started.elapsed().as_secs_f64();
    // What is dirty is written, too.
    std::thread::sleep(Duration::from_secs(1));
    let line = last_line(&rig.server, "MB in ")?;
    report::detail(&line);
    let megabytes = cluster / 1e6;
    figures.report("import", megabytes / seconds_behind(&line, "MB in ")?, "MB/s")?;
    figures.report("import_until_first_answer", seconds, "s")?;
    figures.report(
        "import_node_cpu",
        cpu(&nodes)? * 1e9 / cluster,
        "CPU s/GB, six nodes",
    )?;
    figures.compare("import_bytes_written", written("write_bytes:")?, cluster, "bytes")?;
    figures.compare(
        "import_bytes_kept",
        rig.nodes
            .iter()
            .map(|node| bytes_below(&node.data()))
            .sum::<Result<f64>>()?,
        cluster,
        "bytes",
    )
}
