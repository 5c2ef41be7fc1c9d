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
pub(crate) mod test_records;
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
pub fn apply(
    record: &Record<'_>,
    key: &PageKey,
    page: &mut Page,
    ctx: &RedoContext,
) -> Result<(), RedoError> {
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
        PageKey::Slru { kind, page: number } => match slru::apply(record, kind, number, page, ctx) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RedoError::NotAffected {
                lsn: record.start,
                key: *key,
            }),
            Err(error) => Err(RedoError::Malformed { key: *key, error }),
        },
    }
}

#[cfg(test)]
mod tests {
    use pg_quorum_types::{Lsn, SlruKind};

    use super::*;
    use crate::{Rmgr, WalError};

    #[test]
    fn an_error_names_the_record_and_the_page() {
        let commit = test_records::record(Rmgr::Transaction, 0, &[], &[]);
        let key = PageKey::Slru {
            kind: SlruKind::Clog,
            page: 0,
        };
        let error = apply(&commit, &key, &mut [0; BLOCK_SIZE], &RedoContext::default()).unwrap_err();
        let RedoError::Malformed {
            key: named,
            error: cause,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*named, key);
        assert!(matches!(
            cause,
            WalError::ShortRecord {
                lsn: Lsn(0x200_0028),
                ..
            }
        ));
        assert!(
            error
                .to_string()
                .starts_with("pg_xact page 0: WAL record at 0/2000028"),
            "{error}"
        );
    }
}
