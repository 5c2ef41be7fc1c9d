//! Threads that give way to the foreground: receiving, syncing and acknowledging go first.

use std::io;
use std::thread::JoinHandle;

/// How far background threads step back (`nice`). On a busy machine they get about a tenth of what the foreground
/// gets; on an idle one they lose nothing.
const NICE: i32 = 10;

/// Starts such a thread. Threads that it starts are like it.
///
/// # Errors
/// There can be no more threads.
pub fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name).spawn(move || {
        // Linux takes a thread's number for a process's here. Not being able to step back is no failure.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        body()
    })
}
