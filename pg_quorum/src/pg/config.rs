//! The server's settings.

use std::ffi::{CStr, CString};

use pg_quorum_wal::WalLayout;
use pgrx::pg_sys::{self, GucContext, GucSource};

/// A setting's value as text; empty if there is none of that name.
pub fn get(name: &str) -> String {
    let name = c_text(name);
    // SAFETY: a C string; the result is the setting's own memory, copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() {
            return String::new();
        }
        CStr::from_ptr(value).to_string_lossy().into_owned()
    }
}

/// An integer setting in its own unit; zero if it is none.
pub fn get_number(name: &str) -> u64 {
    get(name).parse().unwrap_or(0)
}

/// Sets it above every configuration file, command line and database setting.
pub fn hold(name: &str, value: &str) {
    let (name, value) = (c_text(name), c_text(value));
    // SAFETY: C strings, copied by the callee. An ERROR becomes an unwinding panic.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            GucContext::PGC_POSTMASTER,
            GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Sets it for this session, above its configuration.
pub fn set_for_session(name: &str, value: &str) {
    let (name, value) = (c_text(name), c_text(value));
    // SAFETY: as in `hold`.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            GucContext::PGC_USERSET,
            GucSource::PGC_S_SESSION,
        );
    }
}

/// The rules for positions in this server's WAL.
pub fn wal_layout() -> WalLayout {
    // SAFETY: a plain variable, fixed before any library is loaded.
    let bytes = unsafe { pg_sys::wal_segment_size };
    WalLayout {
        segment_bytes: bytes.cast_unsigned(),
    }
}

/// Bytes of a WAL segment file.
pub fn wal_segment_bytes() -> u64 {
    u64::from(wal_layout().segment_bytes)
}

/// Bytes of the WAL buffers, as configured; an automatic size is at most one segment.
pub fn wal_buffers_bytes() -> u64 {
    // SAFETY: a plain variable.
    let pages = unsafe { pg_sys::XLOGbuffers };
    match u64::try_from(pages) {
        Ok(pages) if pages > 0 => pages * u64::from(pg_sys::XLOG_BLCKSZ),
        _ => wal_segment_bytes(),
    }
}

/// The data directory.
pub fn data_directory() -> std::path::PathBuf {
    // SAFETY: set by the postmaster before any library is loaded, never changed.
    let path = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    std::path::PathBuf::from(path.to_string_lossy().into_owned())
}

fn c_text(text: &str) -> CString {
    CString::new(text).expect("settings bear no zero byte")
}
