//! How fast a node's redo is: the driver of `cargo xtask bench redo-stream` and `redo-records`. Prints JSON.

mod families;
mod memory;
mod node;
mod pages;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use pg_quorum_tests::lone_node::Source;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    wal: Wal,
    /// Cores to run on, of those that there are.
    #[arg(long, global = true, default_value_t = 1)]
    cores: usize,
}

#[derive(Subcommand)]
enum What {
    /// All of the log, record by record on pages in memory.
    Memory,
    /// All of the log, as a node turns it into page images.
    Node {
        /// Memory for the index, in MB: with half of it in use a round begins.
        #[arg(long, default_value_t = 128)]
        index_mb: usize,
    },
    /// Reads of single pages with so many records since their last image.
    Pages {
        #[arg(long, default_value_t = 64)]
        records: usize,
    },
    /// Single records, by kind.
    Families,
}

#[derive(clap::Args)]
struct Wal {
    /// The data directory of a server that was stopped cleanly.
    #[arg(long, global = true, default_value = "base")]
    base: PathBuf,
    /// `pg_wal` with what was written from its shutdown checkpoint on.
    #[arg(long, global = true, default_value = "wal")]
    wal: PathBuf,
    /// Where the node's log is put; it goes when this ends.
    #[arg(long, global = true, default_value = ".")]
    scratch: PathBuf,
}

impl Wal {
    fn source<'a>(&'a self, scratch: &'a Path) -> Source<'a> {
        Source {
            base: &self.base,
            pg_wal: &self.wal,
            scratch,
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    keep_to_cores(arguments.cores)?;
    match arguments.what {
        What::Memory => memory::run(&arguments.wal),
        What::Node { index_mb } => node::run(&arguments.wal, arguments.cores, index_mb << 20),
        What::Pages { records } => pages::run(&arguments.wal, records),
        What::Families => families::run(&arguments.wal),
    }
}

/// Threads that are started from here on run on `cores` cores only, the last ones.
fn keep_to_cores(cores: usize) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut kept = CpuSet::new();
    for cpu in (0..CpuSet::MAX_CPU)
        .rev()
        .filter(|cpu| allowed.is_set(*cpu))
        .take(cores)
    {
        kept.set(cpu);
    }
    sched_setaffinity(None, &kept).context("keeping to some cores")
}

/// Time that all threads were on cores.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
