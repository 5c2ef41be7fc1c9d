//! Where programs are: PostgreSQL's, and the ones that this workspace builds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{Account, capture};

/// The workspace's root directory.
pub fn workspace_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

/// Where the build leaves things.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

/// Directories of PostgreSQL 15 and of this workspace's release build.
#[derive(Clone, Debug)]
pub struct Binaries {
    pg_config: PathBuf,
    /// `postgres`, `initdb`, `pg_ctl` and the clients.
    pub postgres: PathBuf,
    /// `quorumd` and `quorumctl`; replaced by copies with [`Binaries::copy_to`].
    pub ours: PathBuf,
}

impl Binaries {
    /// Debian's PostgreSQL 15, or the one whose `pg_config` the environment names, and the release build.
    pub fn locate() -> Binaries {
        let pg_config = std::env::var_os("PGRX_PG_CONFIG_PATH").map_or_else(
            || PathBuf::from("/usr/lib/postgresql/15/bin/pg_config"),
            PathBuf::from,
        );
        let postgres = pg_config.parent().map_or_else(PathBuf::new, Path::to_owned);
        Binaries {
            pg_config,
            postgres,
            ours: target_directory().join("release"),
        }
    }

    /// A program of PostgreSQL's.
    pub fn postgres(&self, program: &str) -> PathBuf {
        self.postgres.join(program)
    }

    pub fn quorumd(&self) -> PathBuf {
        self.ours.join("quorumd")
    }

    pub fn quorumctl(&self) -> PathBuf {
        self.ours.join("quorumctl")
    }

    /// The extension's library as the build leaves it.
    pub fn built_library(&self) -> PathBuf {
        self.ours.join("libpg_quorum.so")
    }

    /// One of `pg_config`'s directories, such as `--pkglibdir`.
    ///
    /// # Errors
    /// `pg_config` is not installed.
    pub fn pg_config(&self, option: &str) -> Result<PathBuf> {
        let mut command = std::process::Command::new(&self.pg_config);
        command.arg(option);
        Ok(PathBuf::from(capture(&mut command)?.trim()))
    }

    /// Copies `quorumd` and `quorumctl` to a directory that the servers' account can reach, and uses them there.
    /// A copy replaces the old one by a rename, so a running node keeps its own.
    ///
    /// # Errors
    /// The programs are not built, or the directory cannot be written.
    pub fn copy_to(&self, directory: &Path, account: &Account) -> Result<Binaries> {
        account.create_dir(directory)?;
        for program in ["quorumd", "quorumctl"] {
            let built = self.ours.join(program);
            if !built.exists() {
                bail!(
                    "{} is not there: build it with cargo build --release",
                    built.display()
                );
            }
            let new = directory.join(format!("{program}.new"));
            std::fs::copy(&built, &new)
                .with_context(|| format!("copy {} to {}", built.display(), new.display()))?;
            std::fs::rename(&new, directory.join(program))?;
        }
        Ok(Binaries {
            ours: directory.to_owned(),
            ..self.clone()
        })
    }
}
