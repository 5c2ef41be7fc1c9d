//! What makes a PGDATA directory a compute of a volume: its identity, the attachment that the server
//! runs under, the one-shot order to take the volume by force, and the tripwire that keeps a server
//! without the library from starting on it.
//!
//! ```text
//! PGDATA/backup_label             the tripwire
//! PGDATA/pg_quorum/compute.json   identity: who this directory is to the volume
//! PGDATA/pg_quorum/attach.json    the running epoch, written by attach, read by the link worker
//! PGDATA/pg_quorum/force          one-shot: the next attach takes the volume by force
//! PGDATA/pg_quorum/set_aside/     files of earlier runs that are being removed
//! ```
//!
//! And what fills a directory with a volume's content: [`Builder`], [`wal_files`], [`Opening`].

mod attachment_file;
mod build;
mod clear;
mod durable_file;
mod failure;
mod force;
mod identity;
mod layout;
mod new_directory;
mod opening;
mod ordinary_directory;
mod parallel;
mod reconcile;
mod state_files;
mod tripwire;
pub mod wal_files;

pub use attachment_file::{load_attachment, save_attachment, update_attachment};
pub use build::{Builder, Built, Files, TablespacePlace, make_readable};
pub use clear::{
    Keep, OldFiles, available_bytes, clear, empty_wal, make_directories, read_directory, remove_set_aside,
    remove_tree,
};
pub use durable_file::{write_atomically, write_durably};
pub use failure::{Failure, Result};
pub use force::{clear_force, is_forced, request_force};
pub use identity::ComputeIdentity;
pub use layout::{
    BLOCKS_PER_FILE, DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, Layout, RelationFileName, SLRU_PAGES_PER_FILE,
    parse_number, parse_relation_file_name,
};
pub(crate) use new_directory::give_away;
pub use new_directory::{AuthMethod, NewDirectory, NewDirectoryError, create_directory};
pub use opening::Opening;
pub use ordinary_directory::OrdinaryDirectory;
pub use state_files::{origins_from_file, without_crc};
pub use tripwire::place_tripwire;

/// The directory in PGDATA that holds what is pg_quorum's own.
pub const OWN_DIRECTORY: &str = "pg_quorum";

/// A file of PGDATA that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PgdataError {
    #[error("{path}: {source}")]
    Io {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is damaged: {source}")]
    Damaged {
        path: std::path::PathBuf,
        source: serde_json::Error,
    },
}

impl PgdataError {
    fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> PgdataError {
        let path = path.to_owned();
        move |source| PgdataError::Io { path, source }
    }
}
