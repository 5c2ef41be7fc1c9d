//! The source package of the installed server: PostgreSQL's own regression tests, and the libraries that they load.
//!
//! `cargo xtask test` fetches and builds it once for each version; tests only look it up here.
//!
//! ```text
//!   target/postgres-source/15.18-0+deb12u1/
//!     postgresql-15_15.18-0+deb12u1.dsc …    the package as the registry has it
//!     tree/                                  unpacked
//!     libraries/                             regress.so, refint.so, autoinc.so
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::Binaries;
use crate::binaries::target_directory;

/// Where the source package of one exact version is kept.
#[derive(Clone, Debug)]
pub struct PostgresSource {
    /// Debian's version of the installed server, such as `15.18-0+deb12u1`.
    pub version: String,
    pub directory: PathBuf,
}

impl PostgresSource {
    /// The name of the source package.
    pub const PACKAGE: &str = "postgresql-15";
    /// What the regression tests load with `CREATE FUNCTION`, and where its source is in the tree.
    pub const LIBRARIES: [(&str, &str); 3] = [
        ("regress", "src/test/regress/regress.c"),
        ("refint", "contrib/spi/refint.c"),
        ("autoinc", "contrib/spi/autoinc.c"),
    ];

    /// The place for the source of the installed server, whether it is there or not.
    ///
    /// # Errors
    /// `pg_config` is missing, or not that of a Debian package.
    pub fn of_installed(binaries: &Binaries) -> Result<PostgresSource> {
        let said = binaries.pg_config("--version")?;
        let said = said.to_string_lossy();
        let Some(version) = package_version(&said) else {
            bail!("{said} is not from a package of Debian: there is no source package that belongs to it");
        };
        let version = version.to_owned();
        let directory = target_directory().join("postgres-source").join(&version);
        Ok(PostgresSource { version, directory })
    }

    /// As [`PostgresSource::of_installed`], with everything in it.
    ///
    /// # Errors
    /// It has not been fetched.
    pub fn prepared(binaries: &Binaries) -> Result<PostgresSource> {
        let source = PostgresSource::of_installed(binaries)?;
        if !source.is_prepared() {
            bail!(
                "the source of PostgreSQL {} is not in {}: cargo xtask test fetches it",
                source.version,
                source.directory.display()
            );
        }
        Ok(source)
    }

    pub fn is_prepared(&self) -> bool {
        self.libraries().is_dir()
    }

    /// The description of the source package, which names its other files.
    pub fn description(&self) -> PathBuf {
        // An epoch is not part of file names.
        let version = self
            .version
            .split_once(':')
            .map_or(&*self.version, |(_, rest)| rest);
        self.directory.join(format!("{}_{version}.dsc", Self::PACKAGE))
    }

    /// The unpacked source.
    pub fn tree(&self) -> PathBuf {
        self.directory.join("tree")
    }

    /// The core regression tests: scripts, data, expected output, schedules.
    pub fn regress(&self) -> PathBuf {
        self.tree().join("src/test/regress")
    }

    /// The isolation tests: specifications, expected output, schedule.
    pub fn isolation(&self) -> PathBuf {
        self.tree().join("src/test/isolation")
    }

    /// The built libraries; there are all of them or no directory.
    pub fn libraries(&self) -> PathBuf {
        self.directory.join("libraries")
    }
}

/// The program that runs regression tests, as the server's development package has it.
///
/// # Errors
/// `pg_config` is missing.
pub fn pg_regress(binaries: &Binaries) -> Result<PathBuf> {
    test_program(binaries, "regress/pg_regress")
}

/// The program that runs isolation tests.
///
/// # Errors
/// `pg_config` is missing.
pub fn pg_isolation_regress(binaries: &Binaries) -> Result<PathBuf> {
    test_program(binaries, "isolation/pg_isolation_regress")
}

fn test_program(binaries: &Binaries, name: &str) -> Result<PathBuf> {
    let pgxs = binaries.pg_config("--pgxs")?;
    let source = pgxs
        .ancestors()
        .nth(2)
        .context("pg_config --pgxs names no directory")?;
    Ok(source.join("test").join(name))
}

/// From `PostgreSQL 15.18 (Debian 15.18-0+deb12u1)`.
fn package_version(pg_config_says: &str) -> Option<&str> {
    let (_, rest) = pg_config_says.split_once("(Debian ")?;
    rest.split_once(')').map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_version_stands_in_parentheses() {
        let version = package_version("PostgreSQL 15.18 (Debian 15.18-0+deb12u1)");
        assert_eq!(version, Some("15.18-0+deb12u1"));
        assert_eq!(package_version("PostgreSQL 15.18"), None);
    }
}
