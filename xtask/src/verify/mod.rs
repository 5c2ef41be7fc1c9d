//! `cargo xtask test`: the checks, the unit tests, and the whole-system suites.

mod suites;
mod tally;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use pg_quorum_deployment::Binaries;

use self::suites::Suite;
use self::tally::Tally;
use crate::{report, setup};

#[derive(Args)]
pub struct TestOptions {
    /// Which suites (all): fmt, clippy, deny, unit, or a system suite, a file in tests/tests.
    suites: Vec<String>,
    /// The system suites at full length: every round, every subset.
    #[arg(long)]
    full: bool,
    /// Lists the suites and does nothing.
    #[arg(long)]
    list: bool,
}

/// Runs the suites and prints `N passed, N failed`.
///
/// # Errors
/// An unknown suite, or a machine that cannot be set up. Failing tests are not an error but the exit code.
pub fn test(options: &TestOptions) -> Result<ExitCode> {
    let all = suites::all()?;
    if options.list {
        for suite in &all {
            println!("{}", suite.name());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(all, &options.suites)?;
    setup::install_packages()?;
    let mut tally = Tally::default();
    let mut is_built = false;
    for suite in &chosen {
        if suite.needs_servers() && !is_built {
            setup::build()?;
            setup::install_extension(&Binaries::locate())?;
            is_built = true;
        }
        report::step(&format!("Suite {}", suite.name()));
        let begin = Instant::now();
        let result = match prepare(suite) {
            Ok(()) => suite.run(options.full)?,
            Err(error) => {
                report::detail(&format!("{error:#}"));
                Tally::one(suite.name(), false)
            }
        };
        report::detail(&format!(
            "{}: {result} in {} s",
            suite.name(),
            begin.elapsed().as_secs()
        ));
        tally.add(&result);
    }
    for name in &tally.failures {
        println!("failed: {name}");
    }
    println!("{tally}");
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What this suite needs beside the packages and the build; without it the suite fails, and the others run.
fn prepare(suite: &Suite) -> Result<()> {
    if suite.needs_postgres_source() {
        setup::prepare_postgres_source(&Binaries::locate())?;
    }
    Ok(())
}

fn choose(all: Vec<Suite>, names: &[String]) -> Result<Vec<Suite>> {
    if names.is_empty() {
        return Ok(all);
    }
    if let Some(unknown) = names
        .iter()
        .find(|name| !all.iter().any(|suite| suite.name() == name.as_str()))
    {
        let known: Vec<&str> = all.iter().map(Suite::name).collect();
        bail!("there is no suite {unknown}; there are: {}", known.join(", "));
    }
    Ok(all
        .into_iter()
        .filter(|suite| names.iter().any(|name| suite.name() == name))
        .collect())
}
