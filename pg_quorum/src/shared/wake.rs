//! The two eventfds that wake the link worker, made in the postmaster and inherited by every process.

use std::sync::OnceLock;

use crate::pg::eventfd::EventFd;

static WAL: OnceLock<EventFd> = OnceLock::new();
static PAGES: OnceLock<EventFd> = OnceLock::new();

/// Makes them, once in the postmaster's life; a crash restart keeps them.
///
/// # Errors
/// Out of descriptors.
pub fn create_wakeups() -> std::io::Result<()> {
    for cell in [&WAL, &PAGES] {
        if cell.get().is_none() {
            let _ = cell.set(EventFd::new()?);
        }
    }
    Ok(())
}

/// "There is new WAL."
pub fn wal_wakeup() -> Option<&'static EventFd> {
    WAL.get()
}

/// "There is a request in a page slot."
pub fn page_wakeup() -> Option<&'static EventFd> {
    PAGES.get()
}
