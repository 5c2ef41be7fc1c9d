//! pg_quorum: an unmodified PostgreSQL 15 server whose log and pages live on six storage nodes.
//!
//! Loaded by `shared_preload_libraries`. Backends see the ordinary server; below them,
//!
//! - [`pg`] swaps the storage manager's table and a few file calls, and is the only place with `unsafe`;
//! - [`cache`] knows which pages the local files hold;
//! - [`shared`] is what the server's processes share, page requests among it;
//! - [`link`] is the background worker that talks to the storage nodes;
//! - [`free_space`] is the one that logs free space maps;
//! - [`attach`] makes the data directory ready at each start.

mod attach;
mod cache;
mod free_space;
mod link;
mod pg;
mod settings;
mod shared;
mod sql_functions;

pgrx::pg_module_magic!();

/// Called by the server when it loads the library.
#[allow(non_snake_case)] // the name that PostgreSQL looks for
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::hooks::init();
}
