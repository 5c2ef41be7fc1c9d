//! The frame of an ordinary cluster: folders, settings and rules for clients, without anything of pg_quorum's.

use std::path::{Path, PathBuf};

use pg_quorum_types::ClusterFacts;
use pg_quorum_wal::ControlFile;

use super::new_directory::{
    AUTO_CONF, FOLDERS, IDENT, check_empty, empty_again, give_away, host_based_authentication, make_folder,
    make_root, time_zone_settings, write,
};
use super::{AuthMethod, NewDirectoryError, PgdataError, write_durably};

/// A directory that becomes a cluster for a stock server. Dropped before [`OrdinaryDirectory::finish`] it is removed.
#[derive(Debug)]
pub struct OrdinaryDirectory {
    pgdata: PathBuf,
    existed: bool,
    is_finished: bool,
}

impl OrdinaryDirectory {
    /// Makes the folders.
    ///
    /// # Errors
    /// The directory is not empty, or the file system's.
    pub fn begin(pgdata: &Path) -> Result<OrdinaryDirectory, NewDirectoryError> {
        let directory = OrdinaryDirectory {
            pgdata: pgdata.to_owned(),
            existed: check_empty(pgdata)?,
            is_finished: false,
        };
        make_root(pgdata)?;
        for folder in FOLDERS.iter().filter(|folder| **folder != super::OWN_DIRECTORY) {
            make_folder(&pgdata.join(folder))?;
        }
        Ok(directory)
    }

    /// Writes configuration and `pg_control`, syncs everything, and last of all makes the directory a cluster.
    ///
    /// # Errors
    /// The file system's.
    pub fn finish(
        mut self,
        facts: &ClusterFacts,
        control: &ControlFile,
        auth: &AuthMethod,
        owner: Option<(u32, u32)>,
    ) -> Result<(), NewDirectoryError> {
        let pgdata = &self.pgdata;
        write(pgdata, "postgresql.conf", settings(control).as_bytes())?;
        write(pgdata, "postgresql.auto.conf", AUTO_CONF.as_bytes())?;
        write(pgdata, "pg_hba.conf", host_based_authentication(auth).as_bytes())?;
        write(pgdata, "pg_ident.conf", IDENT.as_bytes())?;
        write_durably(&pgdata.join("global/pg_control"), &control.to_bytes())?;
        sync_file_system(pgdata)?;
        write(pgdata, "PG_VERSION", format!("{}\n", facts.pg_major).as_bytes())?;
        if let Some((user, group)) = owner {
            give_away(pgdata, user, group)?;
        }
        sync_file_system(pgdata)?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for OrdinaryDirectory {
    fn drop(&mut self) {
        if !self.is_finished {
            empty_again(&self.pgdata, self.existed);
        }
    }
}

fn sync_file_system(path: &Path) -> Result<(), PgdataError> {
    std::fs::File::open(path)
        .and_then(|directory| Ok(rustix::fs::syncfs(&directory)?))
        .map_err(PgdataError::io(path))
}

/// Limits as they were, because a server refuses to start with fewer prepared transactions than there are.
fn settings(control: &ControlFile) -> String {
    let parameters = control.parameters();
    let wal_level = ["minimal", "replica", "logical"];
    let wal_level = usize::try_from(parameters.wal_level)
        .ok()
        .and_then(|level| wal_level.get(level))
        .unwrap_or(&"replica");
    format!(
        "# An ordinary cluster, exported from a pg_quorum volume. Settings are not kept in the volume: these are the\n\
         # limits that the log carries; bring over what else matters.\n\
         \n\
         max_connections = {}\n\
         max_worker_processes = {}\n\
         max_wal_senders = {}\n\
         max_prepared_transactions = {}\n\
         max_locks_per_transaction = {}\n\
         wal_level = {wal_level}\n\
         wal_log_hints = {}\n\
         track_commit_timestamp = {}\n\
         {}",
        parameters.max_connections,
        parameters.max_worker_processes,
        parameters.max_wal_senders,
        parameters.max_prepared_transactions,
        parameters.max_locks_per_transaction,
        on_or_off(parameters.wal_log_hints),
        on_or_off(parameters.track_commit_timestamp),
        time_zone_settings(),
    )
}

fn on_or_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}
