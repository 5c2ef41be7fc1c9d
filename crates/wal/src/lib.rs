//! PostgreSQL's write-ahead log: framing, decoding, and redo of one page at a time.
//!
//! Bytes to records ([`WalSplitter`], [`split_run`]) and back ([`WalBuilder`]); records to their parts
//! ([`Record`]); what a record changes ([`effects()`]) and how a page looks afterwards ([`apply`]).
//! The crate does no I/O, knows no protocol, has no unsafe code, and looks into WAL with checked reads only.

mod builder;
mod checkpoint;
mod control;
mod effects;
mod error;
mod framing;
mod image;
mod mask;
mod page_header;
mod pglz;
mod raw_record;
mod reader;
mod record;
mod records;
mod redo;
mod rmgr;
mod slru;
mod splitter;
#[cfg(test)]
mod stream_tests;
mod v15;

pub use builder::WalBuilder;
pub use checkpoint::CheckpointState;
pub use control::{ClusterState, ControlFile, ControlFileError};
pub use effects::{Effects, MetaChange, PageEffect, RedoContext, effects};
pub use error::{RedoError, WalError};
pub use framing::WalLayout;
pub use image::restore_image;
pub use mask::mask_page;
pub use raw_record::{InRun, RawRecord, split_run};
pub use record::{BlockImage, BlockRef, Compression, Record};
pub use redo::{Page, RedoFault, apply};
pub use rmgr::Rmgr;
pub use slru::{SlruRange, SlruTruncation};
pub use splitter::{RecordRun, WalSplitter};
pub use v15::{Checkpoint, Parameters, RECORD_HEADER_BYTES, identify};
