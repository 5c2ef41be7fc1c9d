//! Pages and sizes as of an LSN.

use pg_quorum_types::{ForkNumber, Lsn, PageKey, RelFork};
use pg_quorum_wal::Page;

use super::build_page::build;
use super::engine::{Counters, Engine};
use super::error::DerivedError;
use super::stored_page::{StoredPage, set_page_checksum};

/// One page of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadPage {
    Page(Box<Page>),
    /// All zeros.
    Zeros,
    /// It cannot be built; names record and LSN.
    Failed(String),
}

/// Attempts to build a page while the background takes away what it is built from.
const ATTEMPTS: usize = 5;

/// A page as of `at`. Pages of relations bear a checksum if the cluster has them.
///
/// # Errors
/// `at` is not kept or not indexed; the disk fails.
pub fn page(engine: &Engine, key: PageKey, at: Lsn) -> Result<ReadPage, DerivedError> {
    let mut attempt = 1;
    let built = loop {
        let (plan, view) = {
            let state = engine.state.read();
            if at > state.indexed {
                return Err(engine.not_indexed(at, state.indexed));
            }
            (state.plan(key, at), engine.store.view())
        };
        match build(&plan, view.as_ref(), engine.log.as_ref()) {
            // Its log may have been trimmed since the plan was made: then there is an image by now.
            Err(DerivedError::Log { .. }) if attempt < ATTEMPTS => attempt += 1,
            result => break result?,
        }
    };
    engine.unbuildable.note(key, &built);
    Ok(match built.page {
        StoredPage::Zeros => ReadPage::Zeros,
        StoredPage::Unbuildable(why) => {
            Counters::add(&engine.counters.pages_failed, 1);
            ReadPage::Failed(why)
        }
        StoredPage::Image(mut page) => {
            if let PageKey::Relation { block, rel } = key
                && engine.facts().data_checksums
                && rel.fork != ForkNumber::FreeSpaceMap
            {
                set_page_checksum(&mut page, block);
            }
            Counters::add(&engine.counters.pages_served, 1);
            ReadPage::Page(page)
        }
    })
}

/// Blocks of a fork as of `at`, `None` if it does not exist.
///
/// # Errors
/// As for [`page`].
pub fn size(engine: &Engine, fork: RelFork, at: Lsn) -> Result<Option<u32>, DerivedError> {
    let state = engine.state.read();
    if at > state.indexed {
        return Err(engine.not_indexed(at, state.indexed));
    }
    if at < state.applied {
        return Err(DerivedError::TooOld {
            asked: at,
            floor: state.applied,
        });
    }
    let view = engine.store.view();
    state.size(view.as_ref(), fork, at)
}
