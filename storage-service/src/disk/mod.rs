//! The disk, as far as the log and the segment's metadata need it.
//!
//! There are three: the real one; one that keeps what was not synced in memory, so that killing the
//! process loses it as a power failure would; and one with a limit, to fill it up.

mod lossy;
mod quota;
mod real;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use lossy::LossyDisk;
pub use quota::QuotaDisk;
pub use real::RealDisk;

/// Files and directories. What is not synced may be lost when the machine stops.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and those above it, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// A file to read and write. A new one is durable only after [`Disk::sync_dir`].
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// A whole small file, `None` if there is none.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Puts a small file in the place of the one that is there, durably and in one step.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;
}

/// One open file.
pub trait DiskFile: Send + Sync + 'static {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills `buffer` as far as the file goes; returns how many bytes that are.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Bytes of the file.
    fn size(&self) -> io::Result<u64>;
}

/// Whether an error says that there is no room, which can pass, unlike others.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
