//! A disk for tests that loses what was not synced when the process is killed.
//!
//! A plain `kill -9` keeps everything in the page cache, so that a node that forgets a sync would pass every
//! test. Here written bytes stay in the process until the sync; readers see them all the same.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile};

/// Wraps another disk.
pub struct LossyDisk<D> {
    inner: D,
}

impl<D: Disk> LossyDisk<D> {
    pub fn new(inner: D) -> LossyDisk<D> {
        LossyDisk { inner }
    }
}

impl<D: Disk> Disk for LossyDisk<D> {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, create)?;
        Ok(Arc::new(LossyFile {
            inner,
            unsynced: Mutex::new(Vec::new()),
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
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

struct LossyFile {
    inner: Arc<dyn DiskFile>,
    /// Writes since the last sync, in order.
    unsynced: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl DiskFile for LossyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.unsynced.lock().push((offset, bytes.to_vec()));
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let unsynced = self.unsynced.lock();
        let mut filled = self.inner.read_at(buffer, offset)?;
        buffer[filled..].fill(0);
        let end = offset + buffer.len() as u64;
        for (at, bytes) in unsynced.iter() {
            let from = offset.max(*at);
            let to = end.min(at + bytes.len() as u64);
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
                filled = filled.max((to - offset) as usize);
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        for (offset, bytes) in unsynced.drain(..) {
            self.inner.write_at(&bytes, offset)?;
        }
        self.inner.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        unsynced.retain_mut(|(offset, content)| {
            content.truncate(bytes.saturating_sub(*offset) as usize);
            !content.is_empty()
        });
        self.inner.set_len(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        let unsynced = self.unsynced.lock();
        let written = unsynced
            .iter()
            .map(|(offset, bytes)| offset + bytes.len() as u64)
            .max();
        Ok(self.inner.size()?.max(written.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn what_was_not_synced_is_seen_and_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let disk = LossyDisk::new(RealDisk);
        let file = disk.open(&path, true).unwrap();
        file.write_at(b"synced", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"not yet", 4).unwrap();
        let mut seen = [0; 20];
        assert_eq!(file.read_at(&mut seen, 0).unwrap(), 11);
        assert_eq!(&seen[..11], b"syncnot yet");
        drop(file);
        assert_eq!(RealDisk.read(&path).unwrap().unwrap(), b"synced");
    }
}
