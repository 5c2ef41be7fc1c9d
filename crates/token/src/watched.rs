//! A file's content, read again when the file was changed or replaced.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// A change is seen at the latest after this.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The file cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{}: {reason}", .path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub reason: String,
}

pub(crate) struct Watched<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    value: Result<Arc<T>, FileError>,
    /// The file when it was looked at last, whether it could be used or not.
    stamp: Option<(u64, SystemTime)>,
    looked_at: Instant,
}

impl<T> Watched<T> {
    /// Reads the file; what is wrong with it is [`Watched::get`]'s to say.
    pub fn new(path: PathBuf, parse: fn(&str) -> Result<T, String>) -> Watched<T> {
        // Before the content: a change in between is seen by the next look.
        let stamp = stamp(&path);
        let value = read(&path, parse);
        Watched {
            path,
            parse,
            current: Mutex::new(Current {
                value,
                stamp,
                looked_at: Instant::now(),
            }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds, or held when it could be used last.
    ///
    /// # Errors
    /// It never could.
    pub fn get(&self) -> Result<Arc<T>, FileError> {
        let mut current = self.current.lock();
        if current.looked_at.elapsed() >= LOOK_INTERVAL {
            current.looked_at = Instant::now();
            let stamp = stamp(&self.path);
            if stamp != current.stamp {
                current.stamp = stamp;
                self.read_anew(&mut current);
            }
        }
        current.value.clone()
    }

    fn read_anew(&self, current: &mut Current<T>) {
        match read(&self.path, self.parse) {
            Ok(value) => {
                current.value = Ok(value);
                tracing::info!("{} was read anew", self.path.display());
            }
            Err(error) if current.value.is_ok() => {
                tracing::warn!("a file has changed and cannot be used, what it held stays: {error}");
            }
            Err(error) => current.value = Err(error),
        }
    }
}

/// Differs once the file was replaced or changed.
fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.modified().ok()?))
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<Arc<T>, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    text.and_then(|text| parse(&text))
        .map(Arc::new)
        .map_err(|reason| FileError {
            path: path.to_owned(),
            reason,
        })
}
