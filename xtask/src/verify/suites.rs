//! What a suite is and how it runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use pg_quorum_deployment::workspace_root;

use super::tally::Tally;
use crate::report;
use crate::setup::cargo;

/// One named part of the tests.
pub enum Suite {
    /// A command that passes or fails as a whole.
    Check {
        name: &'static str,
        arguments: &'static [&'static str],
    },
    /// A check by a cargo subcommand that may not be installed; it is skipped then.
    Optional {
        name: &'static str,
        program: &'static str,
        arguments: &'static [&'static str],
    },
    /// Tests of the crates, without servers.
    Unit,
    /// A file or directory in tests/tests: real servers and nodes, one test at a time.
    System { name: String },
}

/// System suites of stock servers only: they need neither the nodes nor the extension.
const STOCK_ONLY: [&str; 1] = ["redo"];
/// System suites that run PostgreSQL's own regression tests.
const NEED_POSTGRES_SOURCE: [&str; 2] = ["redo", "regress"];

/// All suites, in the order in which they run: the quick ones first.
pub fn all() -> Result<Vec<Suite>> {
    let mut suites = vec![
        Suite::Check {
            name: "fmt",
            arguments: &["fmt", "--all", "--check"],
        },
        Suite::Optional {
            name: "deny",
            program: "cargo-deny",
            arguments: &["deny", "--offline", "check", "licenses", "bans", "sources"],
        },
        Suite::Check {
            name: "clippy",
            arguments: &[
                "clippy",
                "--release",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        },
        Suite::Unit,
    ];
    let directory = workspace_root().join("tests/tests");
    let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    // A test is a file, or a directory with a main.rs.
    let stem = |path: std::path::PathBuf| {
        let is_test = path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").is_file();
        is_test
            .then(|| path.file_stem()?.to_str().map(str::to_owned))
            .flatten()
    };
    let mut names: Vec<String> = entries.filter_map(|entry| stem(entry.ok()?.path())).collect();
    names.sort();
    suites.extend(names.into_iter().map(|name| Suite::System { name }));
    Ok(suites)
}

impl Suite {
    pub fn name(&self) -> &str {
        match self {
            Suite::Check { name, .. } | Suite::Optional { name, .. } => name,
            Suite::Unit => "unit",
            Suite::System { name } => name,
        }
    }

    /// Whether the release build and the installed extension must be there.
    pub fn needs_servers(&self) -> bool {
        matches!(self, Suite::System { name } if !STOCK_ONLY.contains(&name.as_str()))
    }

    /// Whether the server's source package must be there.
    pub fn needs_postgres_source(&self) -> bool {
        NEED_POSTGRES_SOURCE.contains(&self.name())
    }

    pub fn run(&self, full: bool) -> Result<Tally> {
        match self {
            Suite::Check { name, arguments } => check(name, arguments),
            Suite::Optional {
                name,
                program,
                arguments,
            } => {
                let is_installed = Command::new(program)
                    .arg("--version")
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .is_ok();
                if is_installed {
                    return check(name, arguments);
                }
                report::detail(&format!("{program} is not installed: skipped"));
                Ok(Tally::default())
            }
            Suite::Unit => {
                let arguments = ["test", "--release", "--workspace", "--exclude", "pg-quorum-tests"];
                count_tests("unit", &mut cargo(&arguments))
            }
            Suite::System { name } => {
                let mut command = cargo(&[
                    "test",
                    "--release",
                    "--package",
                    "pg-quorum-tests",
                    "--test",
                    name,
                ]);
                command.args(["--", "--test-threads=1", "--nocapture"]);
                if full {
                    command.env("PG_QUORUM_TEST_FULL", "1");
                }
                count_tests(name, &mut command)
            }
        }
    }
}

/// A command that counts as one test.
fn check(name: &str, arguments: &[&str]) -> Result<Tally> {
    let status = cargo(arguments)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start cargo {}", arguments.join(" ")))?;
    Ok(Tally::one(name, status.success()))
}

/// Runs `cargo test`, passes its output on and counts.
fn count_tests(name: &str, command: &mut Command) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            tally.read_line(&line);
        }
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        tally.add(&Tally::one(name, false));
    }
    Ok(tally)
}
