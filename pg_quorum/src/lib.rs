//! pg_quorum
pgrx::pg_module_magic!();

mod pg;
mod shared;
