//! The source package of the installed server: fetched from the registry that has the server, unpacked, and the
//! libraries of its regression tests built against the installed headers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use pg_quorum_deployment::{Binaries, PostgresSource, capture};

use crate::report;

/// Builds the libraries as PostgreSQL does: contrib/spi/Makefile wants messages that the tests expect.
const MAKEFILE: &str = "\
MODULES = $(LIBRARIES)
PG_CPPFLAGS = -DREFINT_VERBOSE
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
";

/// Fetches and builds what is not there yet.
///
/// # Errors
/// The registry has no source of the installed version, or cannot be reached; a compiler's error.
pub fn prepare_postgres_source(binaries: &Binaries) -> Result<PostgresSource> {
    let source = PostgresSource::of_installed(binaries)?;
    if source.is_prepared() {
        return Ok(source);
    }
    report::step(&format!("Preparing the source of PostgreSQL {}", source.version));
    if !source.description().exists() {
        download(&source)?;
    }
    if !source.tree().exists() {
        unpack(&source)?;
    }
    build_libraries(binaries, &source)?;
    Ok(source)
}

/// `apt-get source` with the machine's own registries, from a configuration of its own: most machines have no entry for
/// source packages, and get none.
fn download(source: &PostgresSource) -> Result<()> {
    fs::create_dir_all(&source.directory)
        .with_context(|| format!("create {}", source.directory.display()))?;
    let apt = SourceRegistries::new()?;
    apt.get(&["update", "--quiet"])
        .context("read the registries' lists of source packages")?;
    // The description comes last to its place: a broken download leaves none.
    let arriving = tempfile::tempdir_in(&source.directory)?;
    let package = format!("{}={}", PostgresSource::PACKAGE, source.version);
    let mut command = apt.command(&["source", "--quiet", "--download-only", &package]);
    capture(command.current_dir(arriving.path())).with_context(|| {
        format!(
            "there is no source package {package} where this machine gets its packages from. Hint: install a version \
             of the server that has one (apt-cache madison {name} lists the versions), or put the package's three \
             files into {directory}",
            name = PostgresSource::PACKAGE,
            directory = source.directory.display()
        )
    })?;
    let mut files: Vec<PathBuf> = fs::read_dir(arriving.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort_by_key(|path| path.extension().is_some_and(|end| end == "dsc"));
    for file in files {
        let name = file.file_name().context("a file's name")?;
        fs::rename(&file, source.directory.join(name))?;
    }
    if !source.description().exists() {
        bail!(
            "apt-get source {package} brought no {}",
            source.description().display()
        );
    }
    Ok(())
}

fn unpack(source: &PostgresSource) -> Result<()> {
    let new = source.directory.join("tree.new");
    remove_all(&new)?;
    // apt has checked the hashes.
    capture(
        Command::new("dpkg-source")
            .args(["--no-check", "-q", "--extract"])
            .arg(source.description())
            .arg(&new),
    )?;
    fs::rename(&new, source.tree()).context("rename the unpacked source")
}

fn build_libraries(binaries: &Binaries, source: &PostgresSource) -> Result<()> {
    let new = source.directory.join("libraries.new");
    remove_all(&new)?;
    fs::create_dir(&new)?;
    fs::write(new.join("Makefile"), MAKEFILE)?;
    for (name, file) in PostgresSource::LIBRARIES {
        let file = source.tree().join(file);
        fs::copy(&file, new.join(format!("{name}.c"))).with_context(|| format!("copy {}", file.display()))?;
    }
    let names = PostgresSource::LIBRARIES.map(|(name, _)| name).join(" ");
    capture(
        Command::new("make")
            .arg("-C")
            .arg(&new)
            .arg(format!("PG_CONFIG={}", binaries.postgres("pg_config").display()))
            .arg(format!("LIBRARIES={names}"))
            // No bitcode: it needs the very clang that the server was built with.
            .arg("with_llvm=no"),
    )?;
    fs::rename(&new, source.libraries()).context("rename the built libraries")
}

fn remove_all(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The registries that offer the server, as registries of source packages, in a directory that is gone afterwards.
struct SourceRegistries {
    directory: tempfile::TempDir,
}

impl SourceRegistries {
    fn new() -> Result<SourceRegistries> {
        let madison = capture(Command::new("apt-cache").args(["madison", PostgresSource::PACKAGE]))?;
        let targets = capture(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(SOURCESENTRY)|$(DESCRIPTION)",
            "Identifier: Packages",
        ]))?;
        let files = files_that_offer(&madison, &targets);
        if files.is_empty() {
            bail!(
                "no registry in apt's configuration has {}: run apt-get update",
                PostgresSource::PACKAGE
            );
        }
        let directory = tempfile::tempdir()?;
        for name in ["parts", "lists", "archives"] {
            fs::create_dir_all(directory.path().join(name).join("partial"))?;
        }
        for file in files {
            let path = Path::new(file);
            let text = fs::read_to_string(path).with_context(|| format!("read {file}"))?;
            let name = path.file_name().context("a file's name")?;
            fs::write(
                directory.path().join("parts").join(name),
                with_source_packages(&text),
            )?;
        }
        Ok(SourceRegistries { directory })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let mut command = Command::new("apt-get");
        for (name, value) in [
            ("Dir::Etc::SourceList", "/dev/null".to_owned()),
            ("Dir::Etc::SourceParts", path("parts")),
            ("Dir::State::Lists", path("lists")),
            ("Dir::Cache::Archives", path("archives")),
            ("Dir::Cache::pkgcache", String::new()),
            ("Dir::Cache::srcpkgcache", String::new()),
            // What others have hung on an update of the machine's own lists is not meant.
            ("APT::Update::Post-Invoke", String::new()),
            ("APT::Update::Post-Invoke-Success", String::new()),
            // The directory is closed to apt's own user.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{name}={value}"));
        }
        command.args(arguments);
        command
    }

    fn get(&self, arguments: &[&str]) -> Result<()> {
        capture(&mut self.command(arguments)).map(drop)
    }
}

/// Apt's configuration files whose registries are in the output of `apt-cache madison`. `targets` has lines of
/// `file:entry|description`; madison's third column is the description.
fn files_that_offer<'a>(madison: &str, targets: &'a str) -> Vec<&'a str> {
    let offers: Vec<&str> = madison
        .lines()
        .filter_map(|line| line.split('|').nth(2).map(str::trim))
        .collect();
    let mut files: Vec<&str> = targets
        .lines()
        .filter_map(|line| line.split_once('|'))
        .filter(|(_, description)| offers.contains(description))
        .filter_map(|(entry, _)| entry.rsplit_once(':').map(|(file, _)| file))
        .collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// The same entries for source packages, in either format (`deb …` lines, or stanzas with `Types:`).
fn with_source_packages(entries: &str) -> String {
    let mut text = String::new();
    for line in entries.lines() {
        match line.split_whitespace().next() {
            Some("deb") => text.push_str(&line.trim_start().replacen("deb", "deb-src", 1)),
            Some("deb-src") => continue,
            Some("Types:") => text.push_str("Types: deb-src"),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_a_registry_that_has_the_server_count() {
        let madison =
            " postgresql-15 | 15.18-0+deb12u1 | http://debian.invalid bookworm/main amd64 Packages\n";
        let targets = "/etc/a.sources:1|http://debian.invalid bookworm/main amd64 Packages\n\
                       /etc/b.list:1|http://other.invalid stable/main amd64 Packages\n";
        assert_eq!(files_that_offer(madison, targets), ["/etc/a.sources"]);
        assert!(files_that_offer("", targets).is_empty());
    }

    #[test]
    fn entries_for_binary_packages_become_entries_for_source_packages() {
        assert_eq!(
            with_source_packages(
                "deb [signed-by=/k] http://debian.invalid bookworm main\ndeb-src http://x bookworm main\n"
            ),
            "deb-src [signed-by=/k] http://debian.invalid bookworm main\n"
        );
        assert_eq!(
            with_source_packages("Types: deb\nURIs: http://debian.invalid\n"),
            "Types: deb-src\nURIs: http://debian.invalid\n"
        );
    }
}
