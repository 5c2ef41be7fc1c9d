//! Redo: how a record changes one page.
//!
//! A pure function of the record, the page's name and the page. Each module names the PostgreSQL function
//! that it mirrors, with version. A page that does not exist yet is given as zeros.

pub(crate) mod block;
pub(crate) mod brin;
pub(crate) mod btree;
pub(crate) mod compact;
mod error;
pub(crate) mod fields;
mod generic;
pub(crate) mod gin;
pub(crate) mod gist;
pub(crate) mod hash;
pub(crate) mod heap;
pub(crate) mod heap2;
pub(crate) mod heap_tuple;
#[cfg(test)]
mod hostile;
pub(crate) mod index_tuple;
pub(crate) mod page;
mod relation;
mod sequence;
mod slru;
pub(crate) mod spgist;
#[cfg(test)]
mod test_records;
pub(crate) mod visibility_map;

use pg_quorum_types::{BLOCK_SIZE, PageKey};

pub use error::RedoFault;

use crate::{Record, RedoContext, RedoError};

/// A page's bytes.
pub type Page = [u8; BLOCK_SIZE];

/// Brings `page` from the state before `record` to the state after it.
///
/// # Errors
/// A page that the record does not change, a record that does not fit the page. The page's content is not
/// defined then.
pub fn apply(record: &Record, key: &PageKey, page: &mut Page, ctx: &RedoContext) -> Result<(), RedoError> {
    match *key {
        PageKey::Relation { rel, block } => {
            relation::apply(record, rel, block, page, ctx).map_err(|fault| match fault {
                RedoFault::UnrelatedPage => RedoError::NotAffected {
                    lsn: record.start,
                    key: *key,
                },
                fault => RedoError::DoesNotFit {
                    lsn: record.start,
                    key: *key,
                    fault,
                },
            })
        }
        PageKey::Slru { kind, page: number } => match slru::apply(record, kind, number, page, ctx)? {
            true => Ok(()),
            false => Err(RedoError::NotAffected {
                lsn: record.start,
                key: *key,
            }),
        },
    }
}
