//! The system packages, in one place.
//!
//! Server, client library and headers must be of one exact version. Debian's newest point release may not be the
//! installed one, so the version is chosen here instead of by `apt-get`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use pg_quorum_deployment::{as_root, capture, run};

use crate::report;

/// PostgreSQL's packages: all in the same version. `postgresql-15` holds the contrib modules, too.
const POSTGRES_PACKAGES: [&str; 5] = [
    "postgresql-15",
    "postgresql-client-15",
    "postgresql-server-dev-15",
    "libpq5",
    "libpq-dev",
];
/// What the build needs besides: bindings are made from PostgreSQL's headers with libclang, and the server's source
/// package, which has its regression tests, is unpacked with `dpkg-source`.
const BUILD_PACKAGES: [&str; 5] = [
    "build-essential",
    "clang",
    "dpkg-dev",
    "libclang-dev",
    "pkg-config",
];
/// The version for a machine that has no PostgreSQL 15 yet, if the package registry has it: its source package is
/// there as well.
const PREFERRED_VERSION: &str = "15.18-0+deb12u1";
/// Debian starts a cluster on port 5432 when the server package is installed, unless a file here says no.
const CREATECLUSTER_DIRECTORY: &str = "/etc/postgresql-common/createcluster.d";

/// Installs what is missing. Does nothing, and needs no rights, if nothing is.
///
/// # Errors
/// Not a Debian system, no right to install, or `apt-get`'s.
pub fn install_packages() -> Result<()> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!(
            "this is not a Debian system; install PostgreSQL 15 with its server headers, clang, libclang and \
             pkg-config, and set PGRX_PG_CONFIG_PATH to its pg_config"
        );
    }
    let installed = installed_versions()?;
    let build_is_complete = BUILD_PACKAGES.iter().all(|name| installed.contains_key(*name));
    if build_is_complete && postgres_is_complete(&installed) {
        return Ok(());
    }
    report::step("Installing system packages (apt-get)");
    apt_get(&["update", "-q"])?;
    let madison = capture(Command::new("apt-cache").args(["madison", POSTGRES_PACKAGES[0]]))?;
    let version = choose_version(
        installed.get(POSTGRES_PACKAGES[0]).map(String::as_str),
        &offered(&madison),
    )?;
    report::detail(&format!("PostgreSQL {version}"));
    let has_server = installed.contains_key(POSTGRES_PACKAGES[0]);
    let guard = if has_server {
        None
    } else {
        Some(NoMainCluster::set()?)
    };
    let mut arguments: Vec<String> = [
        "install",
        "-q",
        "-y",
        "--no-install-recommends",
        "--allow-downgrades",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.extend(BUILD_PACKAGES.map(str::to_owned));
    arguments.extend(POSTGRES_PACKAGES.map(|name| format!("{name}={version}")));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = apt_get(&words);
    if let Some(guard) = guard {
        guard.remove()?;
    }
    outcome
}

/// Name and version of those of our packages that are installed.
fn installed_versions() -> Result<BTreeMap<String, String>> {
    let mut command = Command::new("dpkg-query");
    command.args([
        "--show",
        "--showformat",
        "${Package} ${Version} ${db:Status-Status}\\n",
    ]);
    command.args(POSTGRES_PACKAGES).args(BUILD_PACKAGES);
    // It fails if it does not know one of the names, and lists the others all the same.
    let output = command.output().context("start dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version, status) = (words.next()?, words.next()?, words.next()?);
        (status == "installed").then(|| (name.to_owned(), version.to_owned()))
    };
    Ok(text.lines().filter_map(row).collect())
}

/// Whether all of PostgreSQL's packages are there, in one version.
fn postgres_is_complete(installed: &BTreeMap<String, String>) -> bool {
    let versions: Vec<_> = POSTGRES_PACKAGES
        .iter()
        .map(|name| installed.get(*name))
        .collect();
    versions
        .iter()
        .all(|version| version.is_some() && *version == versions[0])
}

/// The versions in the output of `apt-cache madison`, newest first.
fn offered(madison: &str) -> Vec<String> {
    let version = |line: &str| line.split('|').nth(1).map(|version| version.trim().to_owned());
    madison.lines().filter_map(version).collect()
}

/// An installed server keeps its version, since others may use it; a new one gets the preferred version.
fn choose_version(installed: Option<&str>, offered: &[String]) -> Result<String> {
    let is_offered = |version: &str| offered.iter().any(|offer| offer == version);
    if let Some(version) = installed.filter(|version| is_offered(version)) {
        return Ok(version.to_owned());
    }
    if is_offered(PREFERRED_VERSION) {
        return Ok(PREFERRED_VERSION.to_owned());
    }
    match offered.first() {
        Some(newest) => Ok(newest.clone()),
        None => bail!("apt-get offers no package postgresql-15 (Debian 12 has it)"),
    }
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = as_root("env")?;
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(arguments);
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr());
    run(&mut command)
}

/// While it is set, installing the server package makes no cluster.
struct NoMainCluster {
    file: String,
}

impl NoMainCluster {
    fn set() -> Result<NoMainCluster> {
        let file = format!("{CREATECLUSTER_DIRECTORY}/pg_quorum-set-up.conf");
        let draft = tempfile_with("create_main_cluster = false\n")?;
        run(as_root("mkdir")?.args(["-p", CREATECLUSTER_DIRECTORY]))?;
        run(as_root("install")?
            .args(["-m", "644"])
            .arg(draft.path())
            .arg(&file))?;
        Ok(NoMainCluster { file })
    }

    fn remove(self) -> Result<()> {
        run(as_root("rm")?.arg("-f").arg(&self.file))
    }
}

fn tempfile_with(text: &str) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(list: &[&str]) -> Vec<String> {
        list.iter().map(|version| (*version).to_owned()).collect()
    }

    #[test]
    fn an_installed_server_keeps_its_version() {
        let offered = versions(&["15.20-0+deb12u1", PREFERRED_VERSION]);
        assert_eq!(
            choose_version(Some("15.20-0+deb12u1"), &offered).unwrap(),
            "15.20-0+deb12u1"
        );
        assert_eq!(
            choose_version(Some(PREFERRED_VERSION), &offered).unwrap(),
            PREFERRED_VERSION
        );
    }

    #[test]
    fn a_new_server_gets_the_preferred_version_or_else_the_newest() {
        assert_eq!(
            choose_version(None, &versions(&["15.20", PREFERRED_VERSION])).unwrap(),
            PREFERRED_VERSION
        );
        assert_eq!(
            choose_version(None, &versions(&["15.21", "15.20"])).unwrap(),
            "15.21"
        );
        assert_eq!(
            choose_version(Some("15.3"), &versions(&["15.21"])).unwrap(),
            "15.21"
        );
        assert!(choose_version(None, &[]).is_err());
    }

    #[test]
    fn madison_lists_the_version_in_its_second_column() {
        let text = " postgresql-15 | 15.20-0+deb12u1 | http://debian.invalid bookworm/main\n";
        assert_eq!(offered(text), ["15.20-0+deb12u1"]);
    }
}
