//! File calls of the main program: its import slots of `pwrite`, `fdatasync`, `open`, `pread` and `fopen`.
//!
//! - `pwrite` from the WAL buffers is `XLogWrite` (`xlog.c` 15.18), and only that: the link worker is told.
//! - `fdatasync` of a WAL segment is `issue_xlog_fsync`: it does nothing, because the local log is a cache. Once the
//!   link worker has left, it ships.
//! - `open` remembers which descriptor is which WAL segment.
//! - `pread` of a WAL segment by somebody who passes WAL on (walsenders, logical decoding) hands out nothing
//!   at or above the VDL. Recovery and two-phase reads are not that.
//! - `fopen` does not find `backup_label`, which in a compute's directory is there for servers without this
//!   library, at all times (`pg_quorum_client::pgdata::place_tripwire`).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libc::{off_t, size_t, ssize_t};
use pg_quorum_types::Lsn;
use pgrx::PgSqlErrorCode;
use pgrx::pg_guard;
use pgrx::pg_sys;

use super::elf::{ElfError, MainProgram};
use super::patch::Patch;
use super::{interrupts, report, wal, wal_files, worker};
use crate::settings;
use crate::shared::{self, LogWait};

type Pwrite = unsafe extern "C-unwind" fn(c_int, *const c_void, size_t, off_t) -> ssize_t;
type Fdatasync = unsafe extern "C-unwind" fn(c_int) -> c_int;
type Open = unsafe extern "C-unwind" fn(*const c_char, c_int, libc::mode_t) -> c_int;
type Fopen = unsafe extern "C-unwind" fn(*const c_char, *const c_char) -> *mut libc::FILE;
type Pread = unsafe extern "C-unwind" fn(c_int, *mut c_void, size_t, off_t) -> ssize_t;

/// What the slots held: the C library's functions.
struct Originals {
    pwrite: Pwrite,
    fdatasync: Fdatasync,
    open: Open,
    pread: Pread,
    fopen: Fopen,
}

static ORIGINALS: OnceLock<Originals> = OnceLock::new();

/// The WAL buffers and the struct before them, "XLOG Ctl": runtime addresses.
static WAL_BUFFERS_START: AtomicUsize = AtomicUsize::new(0);
static WAL_BUFFERS_END: AtomicUsize = AtomicUsize::new(0);

/// How long a reader of WAL waits before it makes sure that the record which it waits for is written whole.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Finds the slots. In `_PG_init`.
///
/// # Errors
/// One of the functions is not imported.
pub fn find(program: &MainProgram) -> Result<Vec<Patch>, ElfError> {
    let replacements: [(&'static str, usize); 5] = [
        ("pwrite", pwrite as Pwrite as usize),
        ("fdatasync", fdatasync as Fdatasync as usize),
        ("open", open as Open as usize),
        ("pread", pread as Pread as usize),
        ("fopen", fopen as Fopen as usize),
    ];
    let mut patches = Vec::new();
    let mut targets = [0; 5];
    for ((name, replacement), target) in replacements.into_iter().zip(&mut targets) {
        let (slots, held) = program.import_slots(name)?;
        *target = held;
        patches.extend(slots.into_iter().map(|slot| Patch {
            slot,
            expected: held,
            replacement,
        }));
    }
    // SAFETY: BIND_NOW: the loader has put the addresses of these functions of the C library there. `open`
    // takes its variable third argument in the register of a plain third one (System V x86-64, AArch64 Linux).
    let originals = unsafe {
        Originals {
            pwrite: std::mem::transmute::<usize, Pwrite>(targets[0]),
            fdatasync: std::mem::transmute::<usize, Fdatasync>(targets[1]),
            open: std::mem::transmute::<usize, Open>(targets[2]),
            pread: std::mem::transmute::<usize, Pread>(targets[3]),
            fopen: std::mem::transmute::<usize, Fopen>(targets[4]),
        }
    };
    let _ = ORIGINALS.set(originals);
    Ok(patches)
}

fn originals() -> &'static Originals {
    ORIGINALS.get().expect("the import slots were found")
}

/// Learns where the WAL buffers are. In `shmem_startup_hook`.
pub fn learn_wal_buffers() {
    let mut found = false;
    // SAFETY: XLOGShmemInit has made the struct with this name and this size before; so it is only looked up.
    let (start, bytes) = unsafe {
        let bytes = pg_sys::XLOGShmemSize();
        (
            pg_sys::ShmemInitStruct(c"XLOG Ctl".as_ptr(), bytes, &raw mut found),
            bytes,
        )
    };
    if !found {
        report::fatal(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "pg_quorum did not find the WAL buffers in shared memory",
            |report| report,
        );
    }
    WAL_BUFFERS_START.store(start as usize, Ordering::Relaxed);
    WAL_BUFFERS_END.store(start as usize + bytes, Ordering::Relaxed);
}

fn is_in_wal_buffers(address: usize) -> bool {
    let start = WAL_BUFFERS_START.load(Ordering::Relaxed);
    let end = WAL_BUFFERS_END.load(Ordering::Relaxed);
    (start..end).contains(&address)
}

#[pg_guard]
unsafe extern "C-unwind" fn pwrite(
    fd: c_int,
    buffer: *const c_void,
    bytes: size_t,
    offset: off_t,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    let written = unsafe { (originals().pwrite)(fd, buffer, bytes, offset) };
    if is_in_wal_buffers(buffer as usize)
        && written > 0
        && let Some(shared) = shared::try_state()
    {
        let errno = errno();
        shared.wake_wal();
        if let Some(segment_start) = wal_files::segment_start(fd) {
            let end = segment_start + offset.cast_unsigned() + written.cast_unsigned() as u64;
            hold_back(shared, end);
        }
        set_errno(errno);
    }
    written
}

/// The far limits: the local log may not run ahead of the quorum by more than what `wal_keep_size` protects, nor what the
/// quorum has ahead of its index by more than a start of the server may take.
/// Under the WAL write lock, in a critical section; the link worker needs neither.
///
/// A record that is larger than the limit becomes whole only when this write and others have returned: when all before
/// it is durable and the link worker finds nothing more to ship, waiting is futile.
fn hold_back(shared: &shared::SharedState, write_end: Lsn) {
    if worker::is_link_worker() {
        return; // it would wait for itself
    }
    let is_left = || shared.give_up_commits() || shared.fenced() || shared.link_gone();
    let unindexed = settings::hard_unindexed_bytes();
    if shared.unindexed_bytes() > unindexed {
        shared::add(&shared.counters.index_waits, 1);
        shared.wait_for_index(unindexed, None, &is_left);
    }
    let limit = settings::hard_unshipped_bytes();
    let needed = Lsn(write_end.0.saturating_sub(limit));
    let vdl = shared.vdl();
    if !vdl.is_valid() || vdl >= needed {
        return;
    }
    let looks = shared.looks();
    let is_futile = || shared.looks() >= looks + 2 && shared.vdl() >= shared.shipped_to();
    let is_over = || is_left() || is_futile();
    shared.wait_for_vdl(needed, None, &is_over);
}

#[pg_guard]
unsafe extern "C-unwind" fn fdatasync(fd: c_int) -> c_int {
    if wal_files::segment_start(fd).is_none() {
        // SAFETY: the caller's argument.
        return unsafe { (originals().fdatasync)(fd) };
    }
    if shared::try_state().is_some_and(shared::SharedState::link_gone) {
        let errno = errno();
        crate::link::ship_by_myself();
        set_errno(errno);
    }
    0
}

#[pg_guard]
unsafe extern "C-unwind" fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller passes a C string.
    let name = unsafe { CStr::from_ptr(path) }.to_bytes();
    // SAFETY: a plain flag of this process.
    if unsafe { pg_sys::am_walsender } && flags & libc::O_ACCMODE == libc::O_RDONLY {
        refuse_base_backup(name);
    }
    // SAFETY: the caller's arguments.
    let fd = unsafe { (originals().open)(path, flags, mode) };
    if fd >= 0 {
        wal_files::remember(fd, name);
    }
    fd
}

/// The startup process looks for a backup's label (`read_backup_label`, `xlogrecovery.c` 15.18) where the tripwire
/// is. An attach has made the directory ready: it is no backup.
#[pg_guard]
unsafe extern "C-unwind" fn fopen(path: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    // SAFETY: the caller passes C strings.
    if unsafe { CStr::from_ptr(path) } == c"backup_label" {
        set_errno(libc::ENOENT);
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's arguments.
    unsafe { (originals().fopen)(path, mode) }
}

/// `basebackup.c` (15.18) opens the files that it sends as `./…` and `pg_tblspc/…`, to read only, in a state of its
/// own. The md files are a cache with holes: a copy of them would be silently broken.
fn refuse_base_backup(path: &[u8]) {
    // SAFETY: this walsender's own slot in shared memory, once it has one.
    let is_backup = unsafe {
        !pg_sys::MyWalSnd.is_null() && (*pg_sys::MyWalSnd).state == pg_sys::WalSndState::WALSNDSTATE_BACKUP
    };
    if !is_backup {
        return;
    }
    if path.starts_with(b"./") || path.starts_with(b"pg_tblspc/") {
        report::error(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "a base backup of this server is not possible: its data directory is a cache of the volume",
            |report| {
                report.set_hint(
                    "Use \"quorumctl compute create -D DIR\" for another data directory of the volume, \
                     or pg_dump for a copy of the data.",
                )
            },
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn pread(fd: c_int, buffer: *mut c_void, bytes: size_t, offset: off_t) -> ssize_t {
    let segment_start = if passes_wal_on() {
        wal_files::segment_start(fd)
    } else {
        None
    };
    let Some(segment_start) = segment_start else {
        // SAFETY: the caller's arguments.
        return unsafe { (originals().pread)(fd, buffer, bytes, offset) };
    };
    let start = segment_start + offset.cast_unsigned();
    let Some(vdl) = wait_until_durable(start + bytes as u64) else {
        set_errno(libc::EIO);
        return -1;
    };
    // SAFETY: the caller's arguments.
    let read = unsafe { (originals().pread)(fd, buffer, bytes, offset) };
    let filled = usize::try_from(read).unwrap_or(0);
    let durable = usize::try_from(vdl.bytes_since(start)).unwrap_or(usize::MAX);
    if durable < filled {
        // SAFETY: pread has filled `filled` bytes of the caller's buffer.
        unsafe { std::ptr::write_bytes(buffer.cast::<u8>().add(durable), 0, filled - durable) };
    }
    read
}

/// Whether this process reads WAL for somebody else: walsenders, and logical decoding in ordinary sessions.
fn passes_wal_on() -> bool {
    // SAFETY: plain variables of this process.
    let passes = unsafe { pg_sys::am_walsender || !pg_sys::MyReplicationSlot.is_null() };
    // SAFETY: reads shared memory, no preconditions in a process that has it.
    passes && !unsafe { pg_sys::RecoveryInProgress() }
}

/// Waits until what has been flushed locally below `end` is durable; returns the VDL. `None`: it will not be,
/// because the server stops without a quorum. Readers that ask for whole pages get what lies behind the
/// flushed part as zeros, and know (from the flush position that they asked for) not to look at it.
fn wait_until_durable(end: Lsn) -> Option<Lsn> {
    let shared = shared::state();
    // SAFETY: not in recovery (the caller looked), which is what this function asks for.
    let flushed = Lsn(unsafe { pg_sys::GetFlushRecPtr(std::ptr::null_mut()) });
    let needed = end.min(flushed);
    loop {
        match shared.wait_for_vdl(needed, Some(FLUSH_AFTER), &|| {
            interrupts::may_leave() || shared.give_up_commits() || shared.fenced()
        }) {
            LogWait::Reached => return Some(shared.vdl()),
            LogWait::Interrupted => {
                interrupts::leave();
                if shared.give_up_commits() || shared.fenced() {
                    return None;
                }
            }
            LogWait::TimedOut => push_along(),
        }
    }
}

/// The flushed part may end inside a record, which becomes durable only with its rest.
fn push_along() {
    wal::flush_inserted();
    if shared::try_state().is_some_and(shared::SharedState::link_gone) {
        crate::link::ship_by_myself();
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn set_errno(value: c_int) {
    // SAFETY: the C library's errno of this thread.
    unsafe { *libc::__errno_location() = value }
}
