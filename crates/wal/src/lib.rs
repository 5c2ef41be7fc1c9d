//! crates/wal
