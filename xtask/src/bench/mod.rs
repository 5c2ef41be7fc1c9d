//! `cargo xtask bench`: figures as ratios, taken alternately in one run, since a machine's own speed drifts.

mod attach;
mod cache_size;
mod cached;
mod commit;
mod figure;
mod import;
mod ingest;
mod kernel;
mod pointread;
mod psql;
mod recording;
mod redo_records;
mod redo_stream;
mod restart;
mod scan;
mod setup;
mod start;
mod wire;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use pg_quorum_deployment::Binaries;

use self::figure::Figures;
use self::setup::Bench;
use crate::{report, setup as machine};

#[derive(Args)]
pub struct BenchOptions {
    /// Which benchmarks (all): commit, wire, redo-stream, redo-records, ingest, scan,
    /// pointread, cached, cache-size, attach, restart, import.
    names: Vec<String>,
    /// Also appends the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Length of one run of pgbench.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Runs of each kind, alternating; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// pgbench's scale.
    #[arg(long, default_value_t = 20)]
    scale: u32,
    /// WAL that the benchmark ingest drives a node with, in MB.
    #[arg(long, default_value_t = 10_000)]
    ingest_mb: u32,
    /// WAL since the last checkpoint that a server of the benchmark restart is killed with, in GB.
    #[arg(long, value_delimiter = ',', default_values_t = [0.1, 4.0])]
    wal_gb: Vec<f64>,
    /// Tables of the large cluster of the benchmark attach, in fifty databases; none: only the ordinary one.
    #[arg(long, default_value_t = 100_000)]
    tables: u32,
    /// The cluster that the benchmark import imports, in GB.
    #[arg(long, default_value_t = 2.0)]
    import_gb: f64,
    /// First of some thirty ports.
    #[arg(long, default_value_t = 16432)]
    port_base: u16,
    /// Where the clusters are kept while it runs [default: target/bench].
    #[arg(long)]
    dir: Option<PathBuf>,
}

type Benchmark = fn(&Bench<'_>, &mut Figures) -> Result<()>;

const BENCHMARKS: [(&str, Benchmark); 12] = [
    ("commit", commit::run),
    ("wire", wire::run),
    ("redo-stream", redo_stream::run),
    ("redo-records", redo_records::run),
    ("ingest", ingest::run),
    ("scan", scan::run),
    ("pointread", pointread::run),
    ("cached", cached::run),
    ("cache-size", cache_size::run),
    ("attach", attach::run),
    ("restart", restart::run),
    ("import", import::run),
];

/// Runs the benchmarks.
///
/// # Errors
/// An unknown name, or anything that fails while it runs.
pub fn bench(options: &BenchOptions) -> Result<()> {
    let known = || {
        BENCHMARKS
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(unknown) = options
        .names
        .iter()
        .find(|name| !BENCHMARKS.iter().any(|(known, _)| known == name))
    {
        bail!("there is no benchmark {unknown}; there are: {}", known());
    }
    machine::install_packages()?;
    machine::build()?;
    machine::install_extension(&Binaries::locate())?;
    let bench = Bench::prepare(options)?;
    let mut figures = Figures::to(options.json.as_deref())?;
    for (name, run) in BENCHMARKS {
        if options.names.is_empty() || options.names.iter().any(|chosen| chosen == name) {
            report::step(&format!("Benchmark {name}"));
            run(&bench, &mut figures)?;
        }
    }
    Ok(())
}
