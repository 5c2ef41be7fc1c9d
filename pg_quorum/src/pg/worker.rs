//! The link worker and the worker of free space maps as PostgreSQL's background workers.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::pg_guard;
use pgrx::pg_sys;

static STOP_REQUESTED: AtomicBool = AtomicBool::new(false);
static WAKE_DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);

/// Registers the workers, in `_PG_init` of the postmaster.
///
/// The link worker is started at once, restarted after a crash restart. It never ends by itself but by aborting (a crash
/// restart follows) or at shutdown. The other one is a convenience: a server that has room for one worker only does
/// without.
pub fn register() {
    BackgroundWorkerBuilder::new("pg_quorum link")
        .set_type("pg_quorum link")
        .set_library("pg_quorum")
        .set_function("pg_quorum_link_main")
        .enable_shmem_access(None)
        .set_start_time(BgWorkerStartTime::PostmasterStart)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
    BackgroundWorkerBuilder::new("pg_quorum free space")
        .set_type("pg_quorum free space")
        .set_library("pg_quorum")
        .set_function("pg_quorum_free_space_main")
        .enable_shmem_access(None)
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(60)))
        .load();
}

/// The worker's entry point, called by the postmaster's child.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_quorum_link_main(_argument: pg_sys::Datum) {
    // A panic must not become an ERROR: the worker would end with status 1, without a crash restart.
    let outcome = std::panic::catch_unwind(crate::link::run);
    if outcome.is_err() {
        super::server::crash();
    }
}

/// The entry point of the worker of free space maps. An ERROR or a panic ends it with status 1, and it is started anew.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_quorum_free_space_main(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    crate::free_space::run();
}

/// In the worker of free space maps: sleeps so long, or until it is to do something else. False: to stop.
pub fn pause(longest: Duration) -> bool {
    let goes_on = BackgroundWorker::wait_latch(Some(longest));
    reload_configuration_if_asked();
    goes_on
}

/// Installs the link worker's handlers and lets signals in. `wake` is written to when SIGTERM or SIGHUP comes.
pub fn start_signals(wake: &impl AsRawFd) {
    WAKE_DESCRIPTOR.store(wake.as_raw_fd(), Ordering::SeqCst);
    // SAFETY: the handlers are async-signal-safe: they set flags and write to a descriptor.
    unsafe {
        pg_sys::pqsignal(libc::SIGTERM, Some(on_stop));
        pg_sys::pqsignal(libc::SIGHUP, Some(on_reload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

unsafe extern "C-unwind" fn on_stop(_signal: i32) {
    STOP_REQUESTED.store(true, Ordering::SeqCst);
    wake_main_thread();
}

unsafe extern "C-unwind" fn on_reload(_signal: i32) {
    // SAFETY: a flag made for signal handlers.
    unsafe {
        pg_sys::ConfigReloadPending = 1;
    }
    wake_main_thread();
}

fn wake_main_thread() {
    let one = 1u64;
    let descriptor: RawFd = WAKE_DESCRIPTOR.load(Ordering::SeqCst);
    // SAFETY: write(2) of eight bytes is async-signal-safe; errno is restored because the signal may have
    // interrupted code that is about to read it.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(descriptor, (&raw const one).cast(), 8);
        *libc::__errno_location() = errno;
    }
}

/// Whether this process is the link worker, for whose work others wait.
pub fn is_link_worker() -> bool {
    WAKE_DESCRIPTOR.load(Ordering::Relaxed) >= 0
}

/// Whether the postmaster has asked this worker to stop.
pub fn stop_requested() -> bool {
    // SAFETY: a flag made for signal handlers; pgrx's sets it.
    let by_pgrx = unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() } != 0;
    by_pgrx || STOP_REQUESTED.load(Ordering::SeqCst)
}

/// Rereads the configuration if the postmaster has asked for it. Main thread.
pub fn reload_configuration_if_asked() {
    // SAFETY: main thread, outside of any runtime callback that holds Rust state; an error in the file is
    // logged, not raised, in this context.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Starts a thread that no signal interrupts: PostgreSQL's handlers run on the main thread only.
///
/// # Errors
/// No thread.
pub fn spawn_quiet_thread(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    // SAFETY: signal sets are local; the mask is put back on this thread before it returns.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        thread
    }
}
