//! A helper process of the postmaster: forked, talked to through a pipe, gone before the hook returns.
//!
//! The postmaster must never have a thread, and its exit callbacks remove lock files: so whatever needs a
//! runtime happens in a child that has forgotten the callbacks and leaves with `_exit`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::pg_sys;

/// How often the postmaster looks whether it was asked to stop.
const STOP_POLL: Duration = Duration::from_millis(100);

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildEnd {
    Exited(i32),
    Signaled(i32),
    /// The postmaster was asked to stop meanwhile; the child was killed.
    StopRequested,
}

/// Runs `work` in a forked child with the write end of a pipe and exits with its result (101 after a
/// panic). Each line that the child writes is handed to `on_line` here, until it has ended.
///
/// # Errors
/// No pipe or no process.
pub fn run_in_child(
    work: impl FnOnce(File) -> i32,
    mut on_line: impl FnMut(&str),
) -> std::io::Result<ChildEnd> {
    let (read_end, write_end) = pipe()?;
    let parent = std::process::id();
    // SAFETY: the postmaster has one thread, so the child may use everything it inherits.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(std::io::Error::last_os_error());
    }
    if pid == 0 {
        drop(read_end);
        become_helper(write_end.as_raw_fd(), parent);
        let code = std::panic::catch_unwind(AssertUnwindSafe(|| work(write_end))).unwrap_or(101);
        // SAFETY: ends the process without running the postmaster's exit callbacks.
        unsafe { libc::_exit(code) }
    }
    drop(write_end);
    let end = follow(pid, read_end, &mut on_line);
    Ok(end)
}

fn pipe() -> std::io::Result<(File, File)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: both were just made and belong to nobody else.
    unsafe { Ok((File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))) }
}

/// In the child: nothing of the postmaster's is left but memory, standard streams and the pipe.
fn become_helper(pipe: RawFd, parent: u32) {
    // SAFETY: each call takes plain numbers or local memory; on_exit_reset forgets the postmaster's exit
    // callbacks; `pipe` is open and above the standard streams.
    unsafe {
        pg_sys::on_exit_reset();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid().unsigned_abs() != parent {
            libc::_exit(1); // it died before that
        }
        for signal in [
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGCHLD,
        ] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        let pipe = pipe.unsigned_abs();
        if pipe > 3 {
            libc::syscall(libc::SYS_close_range, 3u32, pipe - 1, 0u32);
        }
        libc::syscall(libc::SYS_close_range, pipe + 1, u32::MAX, 0u32);
    }
}

fn follow(pid: i32, read_end: File, on_line: &mut dyn FnMut(&str)) -> ChildEnd {
    let descriptor = read_end.as_raw_fd();
    let mut lines = BufReader::new(read_end);
    let mut line = String::new();
    loop {
        if stop_requested() {
            kill_and_reap(pid);
            return ChildEnd::StopRequested;
        }
        if !readable(descriptor, STOP_POLL) {
            continue;
        }
        // The child writes whole lines; at its end the pipe is at its end, too.
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) | Err(_) => return reap(pid),
            Ok(_) => on_line(line.trim_end()),
        }
        while lines.buffer().contains(&b'\n') {
            line.clear();
            if lines.read_line(&mut line).is_ok() {
                on_line(line.trim_end());
            }
        }
    }
}

fn readable(descriptor: RawFd, timeout: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: descriptor,
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one initialised entry.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout) };
    ready > 0
}

/// Whether the postmaster has been asked to stop: it holds its signals blocked outside its main loop.
fn stop_requested() -> bool {
    // SAFETY: plain signal set operations on local memory.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut pending);
        libc::sigpending(&raw mut pending);
        [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT]
            .iter()
            .any(|signal| libc::sigismember(&raw const pending, *signal) == 1)
    }
}

fn kill_and_reap(pid: i32) {
    // SAFETY: `pid` is our own child, not reaped yet.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
    }
    reap(pid);
}

fn reap(pid: i32) -> ChildEnd {
    loop {
        let mut status = 0;
        // SAFETY: `pid` is our own child; `status` is local.
        let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if reaped == pid {
            return if libc::WIFEXITED(status) {
                ChildEnd::Exited(libc::WEXITSTATUS(status))
            } else {
                ChildEnd::Signaled(libc::WTERMSIG(status))
            };
        }
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return ChildEnd::Exited(-1);
        }
    }
}
