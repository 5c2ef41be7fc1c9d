//! A disk that is full when the files that were written through it have so many bytes.
//!
//! A write that does not fit is done as far as there is room and then fails, as the kernel does it.

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
    /// Notes that a file grows to `bytes`, or as far as there is room. Returns the length that it may have.
    fn grow(&self, path: &Path, bytes: u64) -> u64 {
        let mut lengths = self.lengths.lock();
        let others: u64 = lengths
            .iter()
            .filter(|(other, _)| *other != path)
            .map(|(_, length)| length)
            .sum();
        let own = lengths.get(path).copied().unwrap_or(0);
        let room = self.limit.load(Ordering::Relaxed).saturating_sub(others);
        let length = bytes.min(room).max(own);
        lengths.insert(path.to_owned(), length);
        length
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
        let length = self.usage.grow(&self.path, offset + bytes.len() as u64);
        let fitting = bytes.len().min(length.saturating_sub(offset) as usize);
        self.inner.write_at(&bytes[..fitting], offset)?;
        if fitting < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_write_that_does_not_fit_is_done_in_part_and_fails() {
        let dir = tempfile::tempdir().unwrap();
        let limit = Arc::new(AtomicU64::new(10));
        let disk = QuotaDisk::new(RealDisk, Arc::clone(&limit));
        let path = |name| dir.path().join(name);
        let (one, other) = (
            disk.open(&path("one"), true).unwrap(),
            disk.open(&path("other"), true).unwrap(),
        );
        one.write_at(b"1234", 0).unwrap();
        let error = other.write_at(b"12345678", 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(RealDisk.read(&path("other")).unwrap().unwrap(), b"123456");
        assert!(one.write_at(b"5", 4).is_err());
        one.write_at(b"what was there", 0).unwrap_err();
        assert_eq!(RealDisk.read(&path("one")).unwrap().unwrap(), b"what");
        disk.remove(&path("other")).unwrap();
        one.write_at(b"goes on", 3).unwrap();
        assert_eq!(RealDisk.read(&path("one")).unwrap().unwrap(), b"whagoes on");
    }
}
