//! Hostile input for everything that reads bytes from elsewhere, and what must hold on any of it.
//!
//! Each function of [`TARGETS`] takes any bytes and panics if a promise is broken: a decoder or a redo routine that
//! panics, hangs or makes more of its input than the input can hold, an error that does not say where. Fuzzers
//! (`fuzz/`) and tests of this crate run the same functions, so that a finding is a file that stays with the tests.
//!
//! What an input means is this crate's business: see [`RecordCase`] for records, and the targets for the rest.

mod bytes_in;
mod pages;
mod record_case;
mod redo;
mod stored;
mod wal;

pub use record_case::{CaseBlock, CaseImage, RecordCase, StartPage};
pub use redo::{apply, check_case, decode, image};
pub use stored::{control, segment_meta};
pub use wal::{as_wal, split};

use pg_quorum_types::{ClusterFacts, Lsn};

/// Looks at any bytes; panics if a promise is broken.
pub type Target = fn(&[u8]);

/// What is fuzzed, under the names of the fuzzers.
pub const TARGETS: [(&str, Target); 6] = [
    ("apply", apply),
    ("control", control),
    ("decode", decode),
    ("image", image),
    ("segment_meta", segment_meta),
    ("split", split),
];

/// The cluster that the WAL here is of.
pub const FACTS: ClusterFacts = ClusterFacts {
    system_identifier: 7_400_000_000_000_000_000,
    timeline: 1,
    wal_segment_bytes: 1 << 20,
    data_checksums: false,
    pg_control_version: 1300,
    catalog_version: 202_209_061,
    pg_major: 15,
};

/// Where records stand that are not part of a stream: above the LSN of any page of a young cluster.
pub const RECORD_START: Lsn = Lsn(0x40_0000_0028);
