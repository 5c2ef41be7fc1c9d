//! `attach.json`: the epoch that attach took, for the link worker that opens its streams.

use std::path::{Path, PathBuf};

use super::durable_file::{load_json, to_json, write_atomically, write_durably};
use super::identity::make_own_directory;
use super::{OWN_DIRECTORY, PgdataError};
use crate::Attachment;

fn path(pgdata: &Path) -> PathBuf {
    pgdata.join(OWN_DIRECTORY).join("attach.json")
}

/// `None` if the directory was never attached.
///
/// # Errors
/// An unreadable or damaged file.
pub fn load_attachment(pgdata: &Path) -> Result<Option<Attachment>, PgdataError> {
    load_json(&path(pgdata))
}

/// Durable when it returns.
///
/// # Errors
/// The file system's.
pub fn save_attachment(pgdata: &Path, attachment: &Attachment) -> Result<(), PgdataError> {
    make_own_directory(&pgdata.join(OWN_DIRECTORY))?;
    let path = path(pgdata);
    write_durably(&path, &to_json(&path, attachment)?)
}

/// Replaces what [`save_attachment`] has saved, for the processes of this start. After a crash of the machine nobody needs
/// more of the file than that it is there: a directory that has been attached is never imported.
///
/// # Errors
/// The file system's.
pub fn update_attachment(pgdata: &Path, attachment: &Attachment) -> Result<(), PgdataError> {
    let path = path(pgdata);
    write_atomically(&path, &to_json(&path, attachment)?)
}
