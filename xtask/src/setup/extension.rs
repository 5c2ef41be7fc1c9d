//! Installing the extension's library, control file and SQL into PostgreSQL's directories.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pg_quorum_deployment::{Binaries, as_root, run, workspace_root};

use crate::report;

/// Installs the files that differ from the installed ones.
///
/// # Errors
/// Not built, or no right to write.
pub fn install_extension(binaries: &Binaries) -> Result<()> {
    let library = binaries.pg_config("--pkglibdir")?.join("pg_quorum.so");
    let mut files = vec![(binaries.built_library(), library, "755")];
    let extension = binaries.pg_config("--sharedir")?.join("extension");
    for source in sql_files(&workspace_root().join("sql"))? {
        if let Some(name) = source.file_name() {
            let target = extension.join(name);
            files.push((source, target, "644"));
        }
    }
    files.retain(|(source, target, _)| !is_same(source, target));
    if files.is_empty() {
        return Ok(());
    }
    report::step("Installing the extension pg_quorum");
    for (source, target, mode) in files {
        replace(&source, &target, mode)?;
    }
    Ok(())
}

/// Replaces the target by a rename: a server that runs keeps the library that it has mapped.
fn replace(source: &Path, target: &Path, mode: &str) -> Result<()> {
    let new = target.with_extension("new");
    run(as_root("install")?.args(["-m", mode]).arg(source).arg(&new))?;
    run(as_root("mv")?.arg("-f").arg(&new).arg(target))
}

fn sql_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let is_ours = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end == "sql" || end == "control")
    };
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_ours)
        .collect();
    files.sort();
    Ok(files)
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::read(one), fs::read(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
