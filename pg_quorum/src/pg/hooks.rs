//! The order of things at the server's start: find and check in `_PG_init`, swap at shared-memory start.

use std::sync::OnceLock;

use pgrx::PgSqlErrorCode;
use pgrx::pg_guard;
use pgrx::pg_sys;

use super::elf::{ElfError, MainProgram};
use super::patch::{self, Patch};
use super::{
    cache_files, config, files, md15, postmaster_death, presence_file, report, shmem, smgr, statements,
    utility, xact,
};
use crate::{attach, link, settings, shared};

/// All that is to be swapped, found and checked.
static PATCHES: OnceLock<Vec<Patch>> = OnceLock::new();
static NEXT_REQUEST: OnceLock<pg_sys::shmem_request_hook_type> = OnceLock::new();
static NEXT_STARTUP: OnceLock<pg_sys::shmem_startup_hook_type> = OnceLock::new();

/// Extensions' resource managers begin here (`RM_MIN_CUSTOM_ID`, `rmgr.h` 15.18).
const FIRST_CUSTOM_RMGR: usize = 128;
const RMGR_COUNT: usize = 256;

/// `_PG_init`. Everything unexpected is one FATAL, and nothing has been changed then.
pub fn init() {
    refuse_late_load();
    report::without_backtraces();
    settings::define();
    settings::hold();
    match find() {
        Ok(patches) => {
            let _ = PATCHES.set(patches);
        }
        Err(error) => refuse_server(&error.to_string()),
    }
    // SAFETY: in _PG_init, the place where hook variables are set.
    unsafe {
        let _ = NEXT_REQUEST.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(request);
        let _ = NEXT_STARTUP.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(startup);
    }
    xact::register();
    utility::register();
    statements::register();
    link::register();
}

fn refuse_late_load() {
    // SAFETY: plain variables of the postmaster or of this session.
    let (is_preload, has_postmaster) = unsafe {
        (
            pg_sys::process_shared_preload_libraries_in_progress,
            pg_sys::IsPostmasterEnvironment,
        )
    };
    if !is_preload {
        report::error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pg_quorum must be loaded when the server starts",
            |report| report.set_hint("Add pg_quorum to shared_preload_libraries and restart the server."),
        );
    }
    if !has_postmaster {
        report::fatal(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "a pg_quorum volume cannot be opened in single-user mode",
            |report| report.set_hint("Start the server in the ordinary way."),
        );
    }
}

fn find() -> Result<Vec<Patch>, ElfError> {
    let program = MainProgram::load()?;
    let row = md15::find(&program)?;
    let mut patches = row.patches(&smgr::hooks());
    patches.extend(files::find(&program)?);
    patches.extend(postmaster_death::find(&program)?);
    Ok(patches)
}

fn refuse_server(found: &str) -> ! {
    report::fatal(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "pg_quorum does not know this build of PostgreSQL",
        |report| {
            report.set_detail(found).set_hint(
                "It needs an unmodified PostgreSQL 15 for Linux on x86-64 or AArch64, such as Debian's.",
            )
        },
    )
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    if let Some(next) = NEXT_REQUEST.get().copied().flatten() {
        // SAFETY: the hook that was there before, in its place.
        unsafe { next() }
    }
    shmem::request();
}

/// In the postmaster, with shared memory in place and no child alive: at the start, and at each crash restart.
#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    if let Some(next) = NEXT_STARTUP.get().copied().flatten() {
        // SAFETY: the hook that was there before, in its place.
        unsafe { next() }
    }
    refuse_custom_resource_managers();
    shmem::create();
    create_wakeups();
    open_presence();
    check_holes();
    files::learn_wal_buffers();
    explain_held_once();
    swap();
    attach::attach();
}

fn create_wakeups() {
    if let Err(error) = shared::create_wakeups() {
        report::fatal(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            format!("could not make the event descriptors of pg_quorum: {error}"),
            |report| report,
        );
    }
}

/// The presence table as the last run has left it: attach decides whether it is worth anything.
fn open_presence() {
    let directory = config::data_directory().join("pg_quorum");
    let opened =
        std::fs::create_dir_all(&directory).and_then(|()| presence_file::open(&directory.join("presence")));
    if let Err(error) = opened {
        report::fatal(
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            format!(
                "could not open the presence table in \"{}\": {error}",
                directory.display()
            ),
            |report| report,
        );
    }
}

/// A cache whose files cannot get holes only grows.
fn check_holes() {
    let directory = config::data_directory().join("pg_quorum");
    if cache_files::can_punch_holes(&directory).unwrap_or(true) {
        return;
    }
    if settings::cache_size_pages().is_some() {
        report::fatal(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "pg_quorum.cache_size cannot be kept: this file system does not punch holes into files",
            |report| {
                report
                    .set_hint("Use ext4, XFS, Btrfs or tmpfs for the data directory, or remove the setting.")
            },
        );
    }
    pgrx::warning!(
        "pg_quorum: this file system does not punch holes into files: the local page cache only grows"
    );
}

fn explain_held_once() {
    static EXPLAINED: OnceLock<()> = OnceLock::new();
    EXPLAINED.get_or_init(settings::explain_held);
}

/// Once in the postmaster's life.
fn swap() {
    static SWAPPED: OnceLock<()> = OnceLock::new();
    let patches = PATCHES.get().map(Vec::as_slice).unwrap_or_default();
    if SWAPPED.get().is_none()
        && let Err(error) = patch::apply(patches)
    {
        refuse_server(&error.to_string());
    }
    let _ = SWAPPED.set(());
}

/// Storage replays every record in Rust: it knows PostgreSQL's own resource managers only.
fn refuse_custom_resource_managers() {
    // SAFETY: an array of 256 entries (`RmgrTable`, `rmgr.c` 15.18), declared without its length; names are C
    // strings or null.
    let custom = unsafe {
        let entries = (&raw const pg_sys::RmgrTable).cast::<pg_sys::RmgrData>();
        std::slice::from_raw_parts(entries, RMGR_COUNT)[FIRST_CUSTOM_RMGR..]
            .iter()
            .find(|entry| !entry.rm_name.is_null())
            .map(|entry| {
                std::ffi::CStr::from_ptr(entry.rm_name)
                    .to_string_lossy()
                    .into_owned()
            })
    };
    if let Some(name) = custom {
        report::fatal(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("pg_quorum cannot replay the records of the custom resource manager \"{name}\""),
            |report| report.set_hint("Remove the extension that registers it from shared_preload_libraries."),
        );
    }
}
