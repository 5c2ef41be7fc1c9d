//! Redo: how a record changes one page.
//!
//! A pure function of the record, the page's name and the page. Each module names the PostgreSQL function
//! that it mirrors, with version. A page that does not exist yet is given as zeros.

use pg_quorum_types::{BLOCK_SIZE, PageKey};

use crate::{Record, RedoContext, RedoError};

/// A page's bytes.
pub type Page = [u8; BLOCK_SIZE];

/// Brings `page` from the state before `record` to the state after it.
///
/// # Errors
/// A page that the record does not change, a resource manager that has no redo here, a record that
/// does not fit the page. The page's content is not defined then.
pub fn apply(record: &Record, key: &PageKey, page: &mut Page, ctx: &RedoContext) -> Result<(), RedoError> {
    match *key {
        PageKey::Relation { .. } => apply_to_relation(record, key, page, ctx),
        PageKey::Slru { .. } => Err(unsupported(record, key)),
    }
}

/// Dispatches to the redo of the record's resource manager.
fn apply_to_relation(
    record: &Record,
    key: &PageKey,
    _page: &mut Page,
    _ctx: &RedoContext,
) -> Result<(), RedoError> {
    Err(unsupported(record, key))
}

fn unsupported(record: &Record, key: &PageKey) -> RedoError {
    RedoError::UnsupportedResourceManager {
        lsn: record.start,
        rmgr: record.rmgr,
        key: *key,
    }
}
