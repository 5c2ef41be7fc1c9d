//! No process of the server outlives its postmaster.
//!
//! Stock PostgreSQL's processes notice the postmaster's end when they wait on a latch. Here some are killed in a wait for
//! storage or in the middle of waking others, with locks that nobody releases any more: whoever waits for such a lock, on a
//! semaphore, would wait for ever, and no new server starts while it is attached to the shared memory. So the kernel ends
//! them all:
//!
//! * with SIGQUIT where PostgreSQL asks for a signal of its own (`PostmasterDeathSignalInit`, pmsignal.c 15.18), early in each
//!   process. The system logger ignores that (`SysLoggerMain`, syslogger.c) and stays until everybody's messages are in the log;
//! * with SIGKILL what has waited for storage once, and the link worker. A handler of SIGQUIT (`quickdie`, postgres.c) may hang:
//!   stock servers have the postmaster for that case.

use std::ffi::{c_int, c_ulong};
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;

use super::elf::{ElfError, MainProgram};
use super::patch::Patch;

/// The server passes two arguments; a variable one travels as a plain one (System V x86-64, AArch64 Linux).
type Prctl = unsafe extern "C" fn(c_int, c_ulong) -> c_int;

/// Finds the slots of `prctl`, which the server calls for this only. In `_PG_init`.
///
/// # Errors
/// It is not imported.
pub fn find(program: &MainProgram) -> Result<Vec<Patch>, ElfError> {
    let (slots, expected) = program.import_slots("prctl")?;
    let patch = |slot| Patch {
        slot,
        expected,
        replacement: prctl as Prctl as usize,
    };
    Ok(slots.into_iter().map(patch).collect())
}

unsafe extern "C" fn prctl(option: c_int, argument: c_ulong) -> c_int {
    let argument = match option {
        libc::PR_SET_PDEATHSIG => libc::SIGQUIT.unsigned_abs().into(),
        _ => argument,
    };
    // SAFETY: the caller's arguments, but for the signal.
    unsafe { libc::prctl(option, argument) }
}

/// Ends this process without a handler, once the postmaster has ended. Cheap when it is called again.
pub fn die_with_postmaster() {
    static DONE: AtomicBool = AtomicBool::new(false);
    // SAFETY: a plain variable of this process.
    if !unsafe { pg_sys::IsUnderPostmaster } || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: system calls with plain numbers; PostmasterPid does not change.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != pg_sys::PostmasterPid {
            libc::_exit(2); // it ended before that
        }
    }
}
