//! Files that are replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::PgdataError;

/// Writes `content` beside `path`, syncs it, renames it over `path` and syncs the directory: it is there after a crash of
/// the machine. Mode 0600, the directory's owner.
///
/// # Errors
/// The file system's.
pub fn write_durably(path: &Path, content: &[u8]) -> Result<(), PgdataError> {
    replace(path, content, File::sync_all)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// As [`write_durably`], but after a crash of the machine the file may be the old one, the new one or damaged.
///
/// # Errors
/// The file system's.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), PgdataError> {
    replace(path, content, |_| Ok(()))
}

fn replace(
    path: &Path,
    content: &[u8],
    sync: impl FnOnce(&File) -> std::io::Result<()>,
) -> Result<(), PgdataError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let owner = fs::metadata(directory).map_err(PgdataError::io(directory))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(partial)
        .map_err(PgdataError::io(partial))?;
    file.write_all(content)
        .and_then(|()| give_to(&file, &owner))
        .and_then(|()| sync(&file))
        .map_err(PgdataError::io(partial))?;
    fs::rename(partial, path).map_err(PgdataError::io(path))
}

/// Root may call for a server that runs as the directory's owner.
fn give_to(file: &File, owner: &fs::Metadata) -> std::io::Result<()> {
    let ours = file.metadata()?;
    if (ours.uid(), ours.gid()) == (owner.uid(), owner.gid()) || ours.uid() != 0 {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Removes a file, durably; one that is not there is no error.
pub(super) fn remove_durably(path: &Path) -> Result<(), PgdataError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(PgdataError::io(path)(error)),
    }
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), PgdataError> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(PgdataError::io(directory))
}

pub(super) fn to_json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, PgdataError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| PgdataError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    text.push(b'\n');
    Ok(text)
}

/// `None` if there is no such file.
pub(super) fn load_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PgdataError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PgdataError::io(path)(error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| PgdataError::Damaged {
            path: path.to_owned(),
            source,
        })
}
