//! The release build of what a deployment runs.

use std::process::Command;

use anyhow::Result;
use pg_quorum_deployment::{run, workspace_root};

use crate::report;

/// A cargo command in the workspace.
pub fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(workspace_root()).args(arguments);
    command
}

/// Builds `quorumd`, `quorumctl` and the extension.
///
/// # Errors
/// The compiler's.
pub fn build() -> Result<()> {
    report::step("Building (cargo build --release; the first time takes minutes)");
    run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "storage-service",
        "--package",
        "pg_quorum",
    ]))
}
