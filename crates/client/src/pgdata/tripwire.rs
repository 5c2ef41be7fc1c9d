//! A `backup_label` that stops every server which would read the directory's holes as zeros.
//!
//! A stock server reads the file before it reads WAL or touches a page (`InitWalRecovery` calls
//! `read_backup_label`, PostgreSQL 15) and stops with `FATAL: invalid data in file "backup_label"`, with
//! nothing changed, when the first line is not the one that `pg_backup_start` writes. A well-formed label
//! with an impossible position would stop it too, but with a hint to remove the file; this text says what
//! the directory is instead. A server with the library does not see the file.

use std::fs;
use std::path::{Path, PathBuf};

use pg_quorum_types::VolumeId;

use super::PgdataError;
use super::durable_file::{sync_directory, write_durably};

/// First line of the file: tells it from a real backup's label.
const FIRST_LINE: &str = "THIS DIRECTORY IS A pg_quorum COMPUTE. DO NOT REMOVE THIS FILE.";

fn path(pgdata: &Path) -> PathBuf {
    pgdata.join("backup_label")
}

/// No server starts on the directory from now on, unless the library takes the file away.
///
/// # Errors
/// The file system's.
pub fn place_tripwire(pgdata: &Path, volume: VolumeId) -> Result<(), PgdataError> {
    let text = format!(
        "{FIRST_LINE}\n\
         \n\
         The tables are not here: the files are a cache with holes, and the data is in volume\n\
         {volume}. A server that reads these files as they are returns wrong\n\
         answers. Start this directory with shared_preload_libraries = 'pg_quorum' in its settings (the\n\
         library knows this file); single-user mode, pg_upgrade and file-level backups do not work on it. To copy the data out, use pg_dump.\n"
    );
    let path = path(pgdata);
    if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return sync_directory(pgdata);
    }
    write_durably(&path, text.as_bytes())
}
