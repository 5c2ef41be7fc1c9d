//! pg_quorum
pgrx::pg_module_magic!();
