//! `cargo xtask`: set-up, tests and benchmarks.
//!
//! It needs Rust and nothing else: what is missing on a Debian machine it installs, and says so.

mod bench;
mod cluster;
mod fuzz;
mod report;
mod setup;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, tests and benchmarks of pg_quorum")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Starts a PostgreSQL server on six storage nodes, from nothing; starts what is not running if it is there.
    ///
    /// Installs missing system packages, builds, installs the extension. Example: cargo xtask up --dir /tmp/demo
    Up(cluster::UpOptions),
    /// Stops the server and the nodes of a deployment.
    Down {
        /// The deployment's directory.
        #[arg(long, default_value_os_t = cluster::default_directory())]
        dir: PathBuf,
    },
    /// Runs the checks and tests, or the named suites only.
    ///
    /// Example: cargo xtask test burn --full
    Test(verify::TestOptions),
    /// Runs the fuzzers, or the named ones only, each for a while.
    ///
    /// Example: cargo xtask fuzz apply --seconds 600
    Fuzz(fuzz::FuzzOptions),
    /// Runs the benchmarks, or the named ones only, and prints one JSON object a line for each figure.
    ///
    /// Example: cargo xtask bench commit --seconds 10 --json figures.json
    Bench(bench::BenchOptions),
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Task::Up(options) => cluster::up(&options).map(|()| ExitCode::SUCCESS),
        Task::Down { dir } => cluster::down(&dir).map(|()| ExitCode::SUCCESS),
        Task::Test(options) => verify::test(&options),
        Task::Fuzz(options) => fuzz::fuzz(&options),
        Task::Bench(options) => bench::bench(&options).map(|()| ExitCode::SUCCESS),
    }
}
