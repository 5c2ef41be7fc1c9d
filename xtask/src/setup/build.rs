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
    // What cargo has told this program about itself. Build scripts that look at it would run anew, and all that depends
    // on them, whenever cargo is called with and without it in turn.
    for (name, _) in std::env::vars_os() {
        let of_xtask = name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if of_xtask {
            command.env_remove(name);
        }
    }
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
