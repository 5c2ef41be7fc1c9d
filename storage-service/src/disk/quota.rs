//! A disk that is full when the files that were written through it have so many bytes.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Disk, DiskFile};

/// Wraps another disk.
pub struct QuotaDisk<D> {
    inner: D,
    usage: Arc<Usage>,
}

struct Usage {
    limit: Arc<AtomicU64>,
    lengths: Mutex<HashMap<PathBuf, u64>>,
}

impl Usage {
    /// Notes that a file grows to `bytes`, unless there is no room.
    fn grow(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut lengths = self.lengths.lock();
        let others: u64 = lengths
            .iter()
            .filter(|(other, _)| *other != path)
            .map(|(_, length)| length)
            .sum();
        let own = lengths.get(path).copied().unwrap_or(0);
        if bytes > own && others + bytes > self.limit.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        lengths.insert(path.to_owned(), bytes.max(own));
        Ok(())
    }
}

impl<D: Disk> QuotaDisk<D> {
    /// At most `limit` bytes; it may be changed while the disk is in use.
    pub fn new(inner: D, limit: Arc<AtomicU64>) -> QuotaDisk<D> {
        let lengths = Mutex::new(HashMap::new());
        QuotaDisk {
            inner,
            usage: Arc::new(Usage { limit, lengths }),
        }
    }
}

impl<D: Disk> Disk for QuotaDisk<D> {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, create)?;
        self.usage.lengths.lock().insert(path.to_owned(), inner.size()?);
        Ok(Arc::new(QuotaFile {
            inner,
            path: path.to_owned(),
            usage: Arc::clone(&self.usage),
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)?;
        self.usage.lengths.lock().remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.inner.read(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.inner.replace(path, content)
    }
}

struct QuotaFile {
    inner: Arc<dyn DiskFile>,
    path: PathBuf,
    usage: Arc<Usage>,
}

impl DiskFile for QuotaFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.usage.grow(&self.path, offset + bytes.len() as u64)?;
        self.inner.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.usage.lengths.lock().insert(self.path.clone(), bytes);
        self.inner.set_len(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
}
