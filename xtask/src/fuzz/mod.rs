//! `cargo xtask fuzz`: runs the fuzzers for a while each.
//!
//! What they do stands in `crates/hostile`, whose tests run the same on every `cargo test`; the fuzzers look further,
//! with a coverage-guided search and under AddressSanitizer. The crates of the project have no unsafe code, but
//! decompression has, and the sanitizer is what counts allocations: a single one of more than
//! [`MALLOC_LIMIT_MB`] is a finding.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::Args;
use pg_quorum_deployment::{run, workspace_root};

use crate::report;
use crate::setup::cargo;

/// `cargo install --locked` of this version, if there is no cargo-fuzz.
const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// No input is larger, so that what is allocated for one has a bound.
const MAX_INPUT_BYTES: u32 = 32 << 10;
/// For a single allocation.
const MALLOC_LIMIT_MB: u32 = 8;
/// For the whole process, the sanitizer's shadow and the corpus included.
const RSS_LIMIT_MB: u32 = 1024;
/// One input that takes longer hangs.
const INPUT_TIMEOUT_SECONDS: u32 = 10;

#[derive(Args)]
pub struct FuzzOptions {
    /// Which fuzzers (all), files in fuzz/fuzz_targets.
    targets: Vec<String>,
    /// How long each fuzzer runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Runs one fuzzer on one file, such as a finding, and nothing else.
    #[arg(long, value_name = "FILE", conflicts_with = "new_seeds")]
    replay: Option<PathBuf>,
    /// Makes the seeds in fuzz/seeds anew, from what a stock server writes, and does not fuzz.
    #[arg(long)]
    new_seeds: bool,
}

/// Runs the fuzzers one after the other, and says for each finding how to replay it.
///
/// # Errors
/// An unknown fuzzer, or one that cannot be built. Findings are not an error but the exit code.
pub fn fuzz(options: &FuzzOptions) -> Result<ExitCode> {
    if options.new_seeds {
        return new_seeds();
    }
    let targets = choose(all_targets()?, &options.targets)?;
    install_cargo_fuzz()?;
    report::step("Building the fuzzers");
    run(&mut cargo_fuzz(&["build"]))?;
    if let Some(file) = &options.replay {
        let [target] = targets.as_slice() else {
            bail!("name the fuzzer that the file is of");
        };
        // cargo-fuzz runs in the workspace.
        let file = fs::canonicalize(file).with_context(|| format!("find {}", file.display()))?;
        let status = fuzzer(target).arg(file).args(libfuzzer_options()).status()?;
        return Ok(exit_code(status.success()));
    }
    let mut findings = 0;
    for target in &targets {
        report::step(&format!("Fuzzing {target} for {} s", options.seconds));
        if !run_fuzzer(target, options.seconds)? {
            findings += 1;
        }
    }
    println!("{} passed, {findings} failed", targets.len() - findings);
    Ok(exit_code(findings == 0))
}

/// True if nothing was found.
#[expect(clippy::disallowed_methods, reason = "files are compared with it")]
fn run_fuzzer(target: &str, seconds: u32) -> Result<bool> {
    let corpus = workspace_root().join("fuzz/corpus").join(target);
    let artifacts = workspace_root().join("fuzz/artifacts").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("make {}", corpus.display()))?;
    let begin = SystemTime::now();
    let status = fuzzer(target)
        .arg(&corpus)
        .arg(workspace_root().join("fuzz/seeds").join(target))
        .args(libfuzzer_options())
        .arg(format!("-max_total_time={seconds}"))
        .arg("-print_final_stats=1")
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start the fuzzer {target}"))?;
    if status.success() {
        return Ok(true);
    }
    match newest_since(&artifacts, begin) {
        Some(finding) => {
            let path = finding
                .strip_prefix(workspace_root())
                .unwrap_or(&finding)
                .display();
            println!("{target}: finding in {path}; replay it, and keep it once it is mended:");
            println!("  cargo xtask fuzz {target} --replay {path}");
            println!("  cp {path} fuzz/seeds/{target}/finding-NAME");
        }
        None => println!("{target}: ended with {status}, and left no finding"),
    }
    Ok(false)
}

/// `cargo fuzz run` of a target that is built; more arguments are files and libFuzzer's options.
fn fuzzer(target: &str) -> Command {
    cargo_fuzz(&["run", target])
}

/// cargo-fuzz, with a stable compiler that lets it use the sanitizer.
fn cargo_fuzz(arguments: &[&str]) -> Command {
    let mut command = cargo(&["fuzz"]);
    command.args(arguments).env("RUSTC_BOOTSTRAP", "1");
    command
}

fn libfuzzer_options() -> [String; 5] {
    [
        "--".to_owned(),
        format!("-max_len={MAX_INPUT_BYTES}"),
        format!("-malloc_limit_mb={MALLOC_LIMIT_MB}"),
        format!("-rss_limit_mb={RSS_LIMIT_MB}"),
        format!("-timeout={INPUT_TIMEOUT_SECONDS}"),
    ]
}

fn install_cargo_fuzz() -> Result<()> {
    let is_installed = cargo(&["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if is_installed {
        return Ok(());
    }
    report::step("Installing cargo-fuzz (cargo install)");
    run(&mut cargo(&[
        "install",
        "--locked",
        "cargo-fuzz",
        "--version",
        CARGO_FUZZ_VERSION,
    ]))
}

/// The workload of the redo suite, on a stock server.
fn new_seeds() -> Result<ExitCode> {
    crate::setup::install_packages()?;
    report::step("Making seeds from the log of a stock server");
    run(&mut cargo(&[
        "test",
        "--release",
        "--package",
        "pg-quorum-tests",
        "--test",
        "redo",
        "new_seeds_for_the_fuzzers",
        "--",
        "--ignored",
        "--nocapture",
    ]))?;
    Ok(ExitCode::SUCCESS)
}

fn all_targets() -> Result<Vec<String>> {
    let directory = workspace_root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let name = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry.ok()?.path())).collect();
    names.sort();
    Ok(names)
}

fn choose(all: Vec<String>, wanted: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzzer {unknown}; there are: {}", all.join(", "));
    }
    let is_wanted = |name: &String| wanted.is_empty() || wanted.contains(name);
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// The newest file in a directory, if it was written after `begin`.
fn newest_since(directory: &Path, begin: SystemTime) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .filter(|(modified, _)| *modified >= begin)
        .max()
        .map(|(_, path)| path)
}

fn exit_code(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
