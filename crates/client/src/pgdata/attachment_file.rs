//! `attach.json`: the epoch that attach took, for the link worker that opens its streams.

use std::path::{Path, PathBuf};

use super::durable_file::{load_json, save_json};
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
    save_json(&path(pgdata), attachment)
}
