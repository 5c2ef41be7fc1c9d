//! The border to PostgreSQL and the kernel: the only place with `unsafe`.
//!
//! Each file is a thin wrapper with a safe face. Nothing here decides anything.
#![allow(unsafe_code)] // the one exemption of the workspace: calls into PostgreSQL and the C library

mod buffers;
pub mod cache_files;
pub mod clock;
pub mod config;
pub mod control_file;
mod elf;
pub mod eventfd;
mod files;
pub mod fork;
pub mod free_space;
pub mod futex;
pub mod hooks;
pub mod interrupts;
mod kept_pages;
mod md15;
mod patch;
pub mod postmaster_death;
pub mod presence_file;
pub mod prewarm;
mod read_ahead;
pub mod report;
pub mod sequences;
pub mod server;
pub mod shmem;
mod smgr;
mod statements;
pub mod syncrep;
pub mod transactions;
mod utility;
pub mod wait_event;
pub mod wal;
mod wal_files;
pub mod worker;
mod xact;
