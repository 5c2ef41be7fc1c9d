//! A `backup_label` that stops every server which would read the directory's holes as zeros.
//!
//! A stock server reads the file before it reads WAL or touches a page (`InitWalRecovery` calls
//! `read_backup_label`, PostgreSQL 15) and stops with `FATAL: invalid data in file "backup_label"`, with
//! nothing changed, when the first line is not the one that `pg_backup_start` writes. A well-formed label
//! with an impossible position would stop it too, but with a hint to remove the file; this text says what
//! the directory is instead. Attach removes it for the start and puts it back.

use std::fs;
use std::path::{Path, PathBuf};

use pg_quorum_types::VolumeId;

use super::PgdataError;
use super::durable_file::{remove_durably, write_durably};

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
         library removes this file for the start and puts it back); single-user mode, pg_upgrade and\n\
         file-level backups do not work on it. To copy the data out, use pg_dump.\n"
    );
    write_durably(&path(pgdata), text.as_bytes())
}

/// Removes the tripwire; leaves a real backup's label where it is. Says whether there was a tripwire.
///
/// # Errors
/// The file system's.
pub fn remove_tripwire(pgdata: &Path) -> Result<bool, PgdataError> {
    let path = path(pgdata);
    match fs::read(&path) {
        Ok(text) if text.starts_with(FIRST_LINE.as_bytes()) => {
            remove_durably(&path)?;
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PgdataError::io(&path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tripwire_goes_and_a_real_label_stays() {
        let pgdata = tempfile::tempdir().unwrap();
        place_tripwire(pgdata.path(), VolumeId::random()).unwrap();
        assert!(remove_tripwire(pgdata.path()).unwrap());
        assert!(!remove_tripwire(pgdata.path()).unwrap());
        fs::write(
            path(pgdata.path()),
            "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n",
        )
        .unwrap();
        assert!(!remove_tripwire(pgdata.path()).unwrap());
        assert!(path(pgdata.path()).exists());
    }
}
