//! The border to PostgreSQL and the kernel: the only place with `unsafe`.
//!
//! Each file is a thin wrapper with a safe face. Nothing here decides anything.
#![allow(unsafe_code)] // the one exemption of the workspace: calls into PostgreSQL and the C library

pub mod eventfd;
pub mod futex;
pub mod shmem;
