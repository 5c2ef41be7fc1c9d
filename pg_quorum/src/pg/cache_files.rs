//! The local page cache's files and limits: what `crate::cache` decides, done to md files.

use std::ffi::{CStr, CString, c_char};
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;

use pg_quorum_types::{BLOCK_SIZE, ForkNumber as Fork, Lsn, RelFileNode, RelFork};
use pgrx::pg_sys::{self, ForkNumber};

use super::md15::BLOCKS_PER_SEGMENT;
use super::presence_file::table;
use super::{clock, transactions};
use crate::cache::{self, ChunkKey, Ended, Running, Surroundings, Tick, Usage};
use crate::{settings, shared};

/// Disk space that the cache leaves to WAL and others: 1 GB, or this part of a smaller disk.
const RESERVE_BYTES: u64 = 1 << 30;
const RESERVE_DIVISOR: u64 = 20;

/// What runs now: a page that is written may have to outlive it.
pub fn running() -> Running {
    Running {
        next_xid: transactions::next_xid(),
        backends_round: shared::state().backends_rounds() + 2,
    }
}

/// The end of the last record that was inserted, or is being.
pub fn insert_lsn() -> Lsn {
    // SAFETY: reads shared memory under a spinlock; raises nothing.
    Lsn(unsafe { pg_sys::GetXLogInsertEndRecPtr() })
}

/// The cache has grown: drops what is not in use until it is within its limit. Never raises; not in a process that
/// holds a chunk.
pub fn make_room() {
    let limit = limit_pages();
    if table().cached_pages() > limit {
        count_dropped(cache::make_room(table(), limit, &Server));
    }
}

/// Whether a page that was fetched for a lookup is to be kept in the md file, or only to be used.
pub fn is_worth_keeping() -> bool {
    cache::is_worth_keeping(table(), limit_pages(), clock::tick())
}

/// Makes room for a write that has found the disk full. False if there is nothing to drop.
pub fn make_room_on_full_disk() -> bool {
    const PAGES: u64 = 1024;
    let limit = table().cached_pages().saturating_sub(PAGES);
    let dropped = cache::make_room(table(), limit, &Server);
    count_dropped(dropped);
    dropped > 0
}

/// Drops what may be dropped, of one relation or of all. How many pages that were.
pub fn drop_cached(rel: Option<RelFileNode>) -> u64 {
    let dropped = cache::drop_all(table(), &Server, |key| rel.is_none_or(|rel| rel == key.fork.rel));
    count_dropped(dropped);
    dropped
}

/// What the cache has of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    Present,
    /// A crash has left it in the file, good or not.
    Kept,
    Absent,
}

/// Whether a block of a relation that is shared with storage is in the cache. Free space maps, which
/// nobody has to fetch ahead, count as present.
pub fn presence(rel: RelFileNode, fork: ForkNumber::Type, block: u32) -> Presence {
    let fork = u8::try_from(fork).ok().and_then(Fork::from_number);
    let Some(fork) = fork.filter(|fork| *fork != Fork::FreeSpaceMap) else {
        return Presence::Present;
    };
    let held = table().hold_existing(ChunkKey::of(RelFork { rel, fork }, block));
    match held {
        Some(held) if held.is_present(block) => Presence::Present,
        Some(held) if held.is_kept(block) => Presence::Kept,
        _ => Presence::Absent,
    }
}

/// What the cache holds.
pub fn usage() -> Usage {
    table().usage(clock::tick())
}

fn count_dropped(pages: u64) {
    shared::add(&shared::state().counters.pages_dropped, pages);
}

/// How many pages the cache may hold: the setting, or what the disk has room for, if that is less.
pub fn limit_pages() -> u64 {
    let configured = settings::cache_size_pages().unwrap_or(u64::MAX);
    configured.min(shared::state().disk_limit_pages())
}

/// Measures the disk anew. Now and then, in one process.
pub fn measure_disk(pgdata: &Path) {
    let Ok(disk) = Disk::of(pgdata) else { return };
    let reserve = RESERVE_BYTES.min(disk.bytes / RESERVE_DIVISOR);
    let pages = |bytes: u64| bytes / BLOCK_SIZE as u64;
    let cached = table().cached_pages();
    let limit = if disk.free_bytes >= reserve {
        cached + pages(disk.free_bytes - reserve)
    } else {
        cached.saturating_sub(pages(reserve - disk.free_bytes))
    };
    shared::state().set_disk_limit_pages(limit);
}

struct Disk {
    bytes: u64,
    free_bytes: u64,
}

impl Disk {
    fn of(path: &Path) -> io::Result<Disk> {
        use std::os::unix::ffi::OsStrExt;
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: a C string and a place for the result, which is valid as zeros.
        let found = unsafe {
            if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            found.assume_init()
        };
        Ok(Disk {
            bytes: found.f_blocks * found.f_frsize,
            free_bytes: found.f_bavail * found.f_frsize,
        })
    }
}

/// Whether holes can be punched on this file system: tried on a file of its own.
///
/// # Errors
/// The file cannot be made.
pub fn can_punch_holes(directory: &Path) -> io::Result<bool> {
    let path = directory.join("hole");
    std::fs::write(&path, [1; 2 * BLOCK_SIZE])?;
    let punched = punch_file(&path, 0, BLOCK_SIZE as u64);
    std::fs::remove_file(&path)?;
    Ok(punched.is_ok())
}

/// The server that this process belongs to.
pub struct Server;

impl Surroundings for Server {
    fn now(&self) -> Tick {
        clock::tick()
    }

    fn ended(&self) -> Ended {
        Ended {
            oldest_running_xid: transactions::oldest_running_xid(),
            backends_rounds: shared::state().backends_rounds(),
        }
    }

    fn insert_lsn(&self) -> Lsn {
        insert_lsn()
    }

    fn is_unlogged(&self, rel: RelFileNode) -> bool {
        Path::new(&relation_path(rel, ForkNumber::INIT_FORKNUM)).exists()
    }

    fn punch(&self, fork: RelFork, blocks: Range<u32>) -> bool {
        let mut path = relation_path(fork.rel, fork.fork as ForkNumber::Type);
        let segment = blocks.start / BLOCKS_PER_SEGMENT;
        if segment > 0 {
            path = format!("{path}.{segment}");
        }
        let bytes = |blocks: u32| u64::from(blocks) * BLOCK_SIZE as u64;
        let from = bytes(blocks.start % BLOCKS_PER_SEGMENT);
        match punch_file(Path::new(&path), from, bytes(blocks.end - blocks.start)) {
            Ok(()) => true,
            // It is about to be unlinked: nothing of it is left.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// `GetRelationPath`: relative to PGDATA, which is every process's working directory.
fn relation_path(rel: RelFileNode, fork: ForkNumber::Type) -> String {
    // SAFETY: plain numbers in; the result is a C string of this process's memory, freed at once.
    unsafe {
        let path: *mut c_char = pg_sys::GetRelationPath(
            rel.db.into(),
            rel.spc.into(),
            rel.rel.into(),
            pg_sys::InvalidBackendId,
            fork,
        );
        let owned = CStr::from_ptr(path).to_string_lossy().into_owned();
        pg_sys::pfree(path.cast());
        owned
    }
}

fn punch_file(path: &Path, from: u64, bytes: u64) -> io::Result<()> {
    let offset = |bytes: u64| libc::off_t::try_from(bytes).map_err(io::Error::other);
    let file = OpenOptions::new().write(true).open(path)?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: a descriptor that we own; no pointers.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, offset(from)?, offset(bytes)?) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
