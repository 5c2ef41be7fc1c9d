//! A disk in memory, seen through a kernel's cache.
//!
//! ```text
//!  write ──▶ cache, what every process reads ── sync ──▶ durable
//!            survives the process                        survives the power
//! ```
//! A name of a file is durable when its folder was synced after the file was made.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use storage_service::disk::{Disk, DiskFile};

/// How a sync fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncFault {
    /// What was written stays unsynced: another sync makes it durable.
    Pending,
    /// What was written counts as synced from now on, and is not: so Linux forgets pages that it could not
    /// write. Another sync finds nothing to do.
    Forgotten,
}

#[derive(Clone, Default)]
pub struct MachineDisk(Arc<Mutex<Machine>>);

#[derive(Default)]
struct Machine {
    names: HashMap<PathBuf, Arc<Mutex<Content>>>,
    durable_names: HashMap<PathBuf, Arc<Mutex<Content>>>,
    next_sync: Option<SyncFault>,
    next_dir_sync_fails: bool,
}

#[derive(Default)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }
            Change::Length(length) => content.resize(*length, 0),
        }
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.unsynced.push(change);
    }
}

impl MachineDisk {
    pub fn fail_next_sync(&self, fault: SyncFault) {
        self.0.lock().next_sync = Some(fault);
    }

    pub fn fail_next_dir_sync(&self) {
        self.0.lock().next_dir_sync_fails = true;
    }

    /// The machine stops and starts: what was not durable is gone.
    pub fn lose_power(&self) {
        let mut machine = self.0.lock();
        machine.names = machine.durable_names.clone();
        for content in machine.names.values() {
            let mut content = content.lock();
            content.unsynced.clear();
            content.cached = content.durable.clone();
        }
    }
}

impl Disk for MachineDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let machine = self.0.lock();
        let inside = machine.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut machine = self.0.lock();
        let content = match machine.names.get(path) {
            Some(content) => Arc::clone(content),
            None if create => Arc::clone(machine.names.entry(path.to_owned()).or_default()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(MachineFile {
            disk: self.clone(),
            content,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.0.lock().names.remove(path);
        removed.map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        if std::mem::take(&mut machine.next_dir_sync_fails) {
            return Err(io::Error::other("the folder cannot be synced"));
        }
        machine.durable_names = machine.names.clone();
        Ok(())
    }

    fn read(&self, _path: &Path) -> io::Result<Option<Vec<u8>>> {
        unreachable!("a log has no small files")
    }

    fn replace(&self, _path: &Path, _content: &[u8]) -> io::Result<()> {
        unreachable!("a log has no small files")
    }
}

struct MachineFile {
    disk: MachineDisk,
    content: Arc<Mutex<Content>>,
}

impl DiskFile for MachineFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.content.lock().change(Change::Write {
            offset: offset as usize,
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let rest = content.cached.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        let fault = self.disk.0.lock().next_sync.take();
        let mut content = self.content.lock();
        if fault == Some(SyncFault::Pending) {
            return Err(io::Error::other("the disk does not answer"));
        }
        let unsynced = std::mem::take(&mut content.unsynced);
        if fault == Some(SyncFault::Forgotten) {
            return Err(io::Error::other("the disk has failed"));
        }
        for change in unsynced {
            change.apply(&mut content.durable);
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.content.lock().change(Change::Length(bytes as usize));
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().cached.len() as u64)
    }
}
