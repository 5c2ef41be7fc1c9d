//! Stopping instead of going on with a broken promise.

/// Ends the process if the thread panics while this lives. The segment's rules and its log are guarded by it: an
/// assertion that fails there says that what is in memory cannot be trusted any more, and a restart reads what is on
/// disk.
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("an invariant does not hold: the process ends");
            std::process::abort();
        }
    }
}
