//! crates/quorum
