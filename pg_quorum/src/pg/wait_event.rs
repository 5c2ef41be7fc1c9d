//! What `pg_stat_activity` shows while a process waits (`pgstat_report_wait_start`, `wait_event.h` 15.18).
//!
//! PostgreSQL 15 has no events of extensions' own: those here are the built-in ones for a wait of the same kind.

use pgrx::pg_sys;

/// Why a process waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitEvent {
    /// `IO / DataFileRead`: for a page, which `md.c` would read from a file.
    DataFileRead,
    /// `IPC / SyncRep`: for copies of WAL elsewhere.
    SyncRep,
}

/// As long as it lives, the process is shown as waiting.
#[derive(Debug)]
#[must_use]
pub struct Waiting {
    /// A hook may wait inside of a wait of PostgreSQL's own, as the write of WAL is.
    previous: u32,
}

impl WaitEvent {
    pub fn begin(self) -> Waiting {
        let event = match self {
            WaitEvent::DataFileRead => pg_sys::WaitEventIO::WAIT_EVENT_DATA_FILE_READ,
            WaitEvent::SyncRep => pg_sys::WaitEventIPC::WAIT_EVENT_SYNC_REP,
        };
        Waiting {
            previous: replace(event),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        replace(self.previous);
    }
}

fn replace(event: u32) -> u32 {
    // SAFETY: my_wait_event_info points at a word of this process's own, in every process and at any time
    // (wait_event.c): its PGPROC's, which others read, or a local one before there is a PGPROC.
    unsafe {
        let shown = pg_sys::my_wait_event_info;
        let previous = shown.read_volatile();
        shown.write_volatile(event);
        previous
    }
}
