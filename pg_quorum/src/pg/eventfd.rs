//! A wake-up that a child process inherits: `eventfd(2)`.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

/// A kernel counter; readable while it is not zero.
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
}

impl EventFd {
    /// A new counter at zero, non-blocking, closed on exec.
    ///
    /// # Errors
    /// As `eventfd(2)`: out of descriptors or memory.
    pub fn new() -> std::io::Result<EventFd> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: `fd` is a descriptor that was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(EventFd { fd })
    }

    /// Makes it readable. Never blocks, never allocates: fit for a critical section.
    pub fn signal(&self) {
        let one = 1u64;
        // SAFETY: eight readable bytes. A full counter (EAGAIN) is readable already.
        unsafe {
            libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8);
        }
    }

    /// Resets it to zero.
    pub fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes. EAGAIN means that it was zero.
        unsafe {
            libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8);
        }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsRawFd for &EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Makes the runtime that is current wait for it.
///
/// # Errors
/// The kernel's.
pub fn register(event: &'static EventFd) -> std::io::Result<AsyncFd<&'static EventFd>> {
    // SAFETY: the descriptor belongs to `event`, which is never dropped, and is always the same.
    Ok(unsafe { AsyncFd::register(event) }?)
}
