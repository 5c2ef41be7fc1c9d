//! PostgreSQL's error reports.

use pgrx::PgLogLevel;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

/// Errors that pass Rust frames bear no backtrace in their detail, whatever the environment says: a cancelled
/// statement is no defect. In `_PG_init`.
pub fn without_backtraces() {
    // SAFETY: the postmaster has one thread, and nobody has read this variable before.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") }
}

/// Raises an ERROR. `complete` adds detail and hint.
pub fn error(
    code: PgSqlErrorCode,
    message: impl Into<String>,
    complete: impl FnOnce(ErrorReport) -> ErrorReport,
) -> ! {
    raise(PgLogLevel::ERROR, code, message, complete)
}

/// Raises a FATAL: the server does not start, or the process ends.
pub fn fatal(
    code: PgSqlErrorCode,
    message: impl Into<String>,
    complete: impl FnOnce(ErrorReport) -> ErrorReport,
) -> ! {
    raise(PgLogLevel::FATAL, code, message, complete)
}

fn raise(
    level: PgLogLevel,
    code: PgSqlErrorCode,
    message: impl Into<String>,
    complete: impl FnOnce(ErrorReport) -> ErrorReport,
) -> ! {
    complete(ErrorReport::new(code, message.into(), "pg_quorum")).report(level);
    unreachable!("PostgreSQL does not return from an error report of this level")
}
