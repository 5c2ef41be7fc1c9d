//! What the kernel and the file system say about processes and directories.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use pg_quorum_deployment::capture;

/// A number of the kernel's about a process: of `io` in bytes, of `status` in kB.
pub fn proc_number(pid: u32, file: &str, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{path} has no {field}"))
}

/// Bytes of the disk that a directory's files take.
pub fn bytes_below(directory: &Path) -> Result<f64> {
    first_number(
        Command::new("du")
            .args(["--summarize", "--block-size=1"])
            .arg(directory),
    )
}

/// Fails unless a file system has so many GB left: several copies of a log or a cluster are about to be written.
pub fn require_free(directory: &Path, gigabytes: f64) -> Result<()> {
    let mut command = Command::new("df");
    command.args(["--output=avail", "--block-size=1"]).arg(directory);
    let text = capture(&mut command)?;
    let free: f64 = text
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok())
        .with_context(|| format!("df printed {text:?}"))?;
    anyhow::ensure!(
        free / 1e9 >= gigabytes,
        "{} has {:.0} GB free, this takes up to {gigabytes:.0} GB: choose another directory with --dir, or less data",
        directory.display(),
        free / 1e9
    );
    Ok(())
}

fn first_number(command: &mut Command) -> Result<f64> {
    let text = capture(command)?;
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{} printed {text:?}", command.get_program().display()))
}

/// CPU seconds that a process has used, in the kernel and outside.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    /// `USER_HZ`, the same on every x86-64 Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // Behind the name, which may hold anything: state is field 3, utime and stime are 14 and 15 (proc(5)).
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS_PER_SECOND)
}
