//! The one-shot order to take the volume from a living or newer owner.
//!
//! A file, not a setting: a setting that was forgotten would let two machines take the volume from each
//! other for ever. Attach removes it as soon as it holds the epoch.

use std::path::{Path, PathBuf};

use super::durable_file::{remove_durably, write_durably};
use super::identity::make_own_directory;
use super::{OWN_DIRECTORY, PgdataError};

fn path(pgdata: &Path) -> PathBuf {
    pgdata.join(OWN_DIRECTORY).join("force")
}

/// The next attach takes the volume by force.
///
/// # Errors
/// The file system's.
pub fn request_force(pgdata: &Path) -> Result<(), PgdataError> {
    make_own_directory(&pgdata.join(OWN_DIRECTORY))?;
    write_durably(
        &path(pgdata),
        b"The next start takes the volume from whoever holds it.\n",
    )
}

/// Whether the next attach takes the volume by force.
pub fn is_forced(pgdata: &Path) -> bool {
    path(pgdata).exists()
}

/// The order has been carried out.
///
/// # Errors
/// The file system's.
pub fn clear_force(pgdata: &Path) -> Result<(), PgdataError> {
    remove_durably(&path(pgdata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_holds_until_it_is_carried_out() {
        let pgdata = tempfile::tempdir().unwrap();
        assert!(!is_forced(pgdata.path()));
        request_force(pgdata.path()).unwrap();
        assert!(is_forced(pgdata.path()));
        clear_force(pgdata.path()).unwrap();
        clear_force(pgdata.path()).unwrap();
        assert!(!is_forced(pgdata.path()));
    }
}
