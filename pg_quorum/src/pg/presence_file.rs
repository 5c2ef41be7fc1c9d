//! The presence table's memory: a sparse file in PGDATA, mapped shared by the postmaster and inherited.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

use crate::cache::{ChunkEntry, ChunkTable, Header, Parts};

/// Entries that the file has room for: 32 TiB of cached pages. The file is sparse; memory and disk are used for
/// the chunks that exist.
const ENTRIES: usize = 1 << 25;
const BUCKETS: usize = 1 << 20;

const HEADER_BYTES: usize = 4096;
const ENTRIES_AT: usize = HEADER_BYTES + BUCKETS * size_of::<AtomicU32>();
const FILE_BYTES: usize = ENTRIES_AT + ENTRIES * size_of::<ChunkEntry>();

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);
const _: () = assert!(HEADER_BYTES.is_multiple_of(align_of::<Header>()));
const _: () = assert!(ENTRIES_AT.is_multiple_of(align_of::<ChunkEntry>()));

/// The file is opened anew when its size changes: the process that attaches has closed what it has inherited.
struct Mapped {
    path: PathBuf,
    table: ChunkTable,
}

impl Mapped {
    fn open(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(&self.path)
    }
}

static MAPPED: OnceLock<Mapped> = OnceLock::new();

/// The table that the last run has left in its file, or an empty one: at the postmaster's start. At a crash restart it
/// is mapped still, as the processes that have ended have left it.
///
/// # Errors
/// The file cannot be made or mapped, or its disk is full.
pub fn open(path: &Path) -> io::Result<()> {
    if MAPPED.get().is_some() {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let is_left = file.metadata()?.len() == FILE_BYTES as u64;
    if !is_left {
        empty(&file)?;
    }
    let table = map(&file)?;
    let path = path.to_owned();
    let _ = MAPPED.set(Mapped { path, table });
    if is_left && table.is_usable() {
        return Ok(());
    }
    empty_table()
}

/// Every block is absent. While no other process uses the table.
///
/// # Errors
/// The disk is full.
pub fn empty_table() -> io::Result<()> {
    if let Some(mapped) = MAPPED.get() {
        empty(&mapped.open()?)?;
        mapped.table.begin();
    }
    Ok(())
}

/// The table.
///
/// # Panics
/// In a process without the extension's shared memory: none that runs hooks.
pub fn table() -> ChunkTable {
    MAPPED.get().expect("the presence table is mapped").table
}

/// The table, where there is one.
pub fn try_table() -> Option<ChunkTable> {
    MAPPED.get().map(|mapped| mapped.table)
}

/// All zeros, with disk space behind header and buckets: a later write to the mapping cannot fail.
fn empty(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.set_len(FILE_BYTES as u64)?;
    allocate(file, 0, ENTRIES_AT)
}

fn back(entries: std::ops::Range<usize>) -> bool {
    let Some(mapped) = MAPPED.get() else { return false };
    let at = |entry: usize| ENTRIES_AT + entry * size_of::<ChunkEntry>();
    let bytes = at(entries.end) - at(entries.start);
    mapped
        .open()
        .and_then(|file| allocate(&file, at(entries.start), bytes))
        .is_ok()
}

fn allocate(file: &File, from: usize, bytes: usize) -> io::Result<()> {
    let offset = |bytes: usize| libc::off_t::try_from(bytes).expect("the file's size fits");
    loop {
        // SAFETY: a descriptor that we own; no pointers.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), offset(from), offset(bytes)) } {
            0 => return Ok(()),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn map(file: &File) -> io::Result<ChunkTable> {
    // SAFETY: a new mapping of FILE_BYTES of a file of that length; the result is checked.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            FILE_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = start.cast::<u8>();
    // SAFETY: page-aligned memory of FILE_BYTES that is never unmapped; the three parts do not overlap, are
    // aligned (asserted above) and consist of atomics, for which zeros are valid. Entries that have no disk
    // space yet are not touched before `back` has given them some (`ChunkTable` sees to that).
    let parts = unsafe {
        Parts {
            header: &*start.cast::<Header>(),
            buckets: std::slice::from_raw_parts(start.add(HEADER_BYTES).cast(), BUCKETS),
            entries: std::slice::from_raw_parts(start.add(ENTRIES_AT).cast(), ENTRIES),
            back,
        }
    };
    Ok(ChunkTable::new(parts))
}
