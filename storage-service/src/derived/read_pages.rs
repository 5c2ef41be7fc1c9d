//! Pages and sizes as of an LSN.

use pg_quorum_types::{Lsn, PageKey, RelFork};
use pg_quorum_wal::Page;

use super::build_page::{Scratch, build};
use super::engine::{Counters, Engine};
use super::error::DerivedError;
use super::state::Plan;
use super::store::StoreView;
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

/// Pages that a thread takes at once: helpers are started for more only, since that costs as much as some pages do.
const PAGES_PER_TASK: usize = 32;

/// A page as of `at`. Pages of relations bear a checksum if the cluster has them.
///
/// # Errors
/// `at` is not kept or not indexed; the disk fails.
pub fn page(engine: &Engine, key: PageKey, at: Lsn) -> Result<ReadPage, DerivedError> {
    let mut pages = some_pages(engine, &[key], at, &mut Scratch::default())?;
    Ok(pages.pop().unwrap_or(ReadPage::Zeros))
}

/// Pages as of `at`, in the order of `keys`. Many of them are built by several threads.
///
/// # Errors
/// As for [`page`].
pub fn pages(engine: &Engine, keys: &[PageKey], at: Lsn) -> Result<Vec<ReadPage>, DerivedError> {
    let tasks: Vec<&[PageKey]> = keys.chunks(PAGES_PER_TASK).collect();
    let threads = &engine.settings.redo_threads;
    let pages = threads.run(
        &tasks,
        || true,
        |keys, scratch| some_pages(engine, keys, at, scratch),
    )?;
    Ok(pages.into_iter().flatten().collect())
}

fn some_pages(
    engine: &Engine,
    keys: &[PageKey],
    at: Lsn,
    scratch: &mut Scratch,
) -> Result<Vec<ReadPage>, DerivedError> {
    let mut attempt = 1;
    let built = loop {
        let (plan, view) = plan(engine, keys, at)?;
        match build(&plan, view.as_ref(), engine.log.as_ref(), scratch) {
            // The log may have been trimmed since the plan was made: then there are images by now.
            Err(DerivedError::Log { .. }) if attempt < ATTEMPTS => attempt += 1,
            result => break result?,
        }
    };
    let finished = keys.iter().zip(built).map(|(key, built)| {
        engine.unbuildable.note(*key, &built);
        finish(engine, *key, built.page)
    });
    Ok(finished.collect())
}

/// What pages are made of, and the store of the same moment.
fn plan(engine: &Engine, keys: &[PageKey], at: Lsn) -> Result<(Plan, Box<dyn StoreView>), DerivedError> {
    let state = engine.state.read();
    if at > state.indexed {
        return Err(engine.not_indexed(at, state.indexed));
    }
    Ok((state.plan(keys, at), engine.store.view()))
}

fn finish(engine: &Engine, key: PageKey, page: StoredPage) -> ReadPage {
    match page {
        StoredPage::Zeros => ReadPage::Zeros,
        StoredPage::Unbuildable(why) => {
            Counters::add(&engine.counters.pages_failed, 1);
            ReadPage::Failed(why)
        }
        StoredPage::Image(mut page) => {
            if let PageKey::Relation { block, .. } = key
                && engine.facts().data_checksums
            {
                set_page_checksum(&mut page, block);
            }
            Counters::add(&engine.counters.pages_served, 1);
            ReadPage::Page(page)
        }
    }
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
