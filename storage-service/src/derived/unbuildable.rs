//! Pages that cannot be built here, and the copies that peers gave of them.
//!
//! A page is refused, never guessed, when a record does not fit it or its stored image is damaged. What is noted here
//! the node reports, and asks its peers for: their disks hold other bytes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pg_quorum_types::{Lsn, PageKey};
use pg_quorum_wal::Page;

use super::build_page::{BuiltPage, Scratch, build};
use super::engine::{Counters, Engine};
use super::error::DerivedError;
use super::store::{Batch, Space};
use super::stored_page::StoredPage;

/// Pages that are kept in mind. With more of them the disk is beyond this kind of repair; each is still refused, and
/// noted when it is read again.
const LIMIT: usize = 10_000;

/// One page that cannot be built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnbuildablePage {
    pub key: PageKey,
    /// Its last change that is known here: a copy must not be older.
    pub changed: Lsn,
    pub why: String,
}

/// See the module.
#[derive(Default)]
pub struct UnbuildablePages {
    pages: Mutex<BTreeMap<PageKey, (Lsn, String)>>,
    /// Spares the many good pages the lock.
    is_any: AtomicBool,
}

impl UnbuildablePages {
    /// Notes what came of building `key`: that it cannot be built, or that it can again.
    pub fn note(&self, key: PageKey, built: &BuiltPage) {
        let StoredPage::Unbuildable(why) = &built.page else {
            if self.is_any.load(Ordering::Acquire) {
                let mut pages = self.pages.lock();
                pages.remove(&key);
                self.is_any.store(!pages.is_empty(), Ordering::Release);
            }
            return;
        };
        let mut pages = self.pages.lock();
        self.is_any.store(true, Ordering::Release);
        let changed = built.version.unwrap_or(Lsn::INVALID);
        let is_full = pages.len() >= LIMIT;
        match pages.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().0 = known.get().0.max(changed),
            Entry::Vacant(_) if is_full => {}
            Entry::Vacant(free) => {
                tracing::error!(%key, why, "a page cannot be built here: it is refused");
                free.insert((changed, why.clone()));
            }
        }
    }

    /// The first `limit` of them, and how many there are.
    pub fn first(&self, limit: usize) -> (Vec<UnbuildablePage>, usize) {
        let pages = self.pages.lock();
        let page = |(key, (changed, why)): (&PageKey, &(Lsn, String))| UnbuildablePage {
            key: *key,
            changed: *changed,
            why: why.clone(),
        };
        (pages.iter().take(limit).map(page).collect(), pages.len())
    }
}

/// Takes a peer's copy of a page as of `at` in, if the page still cannot be built here. Returns whether it was taken.
///
/// `at` must be durable in the quorum: no cut undoes what is stored. Reads below `at` are refused as before.
///
/// # Errors
/// `at` is not indexed or not kept any more; the store fails.
pub fn take_copy(engine: &Engine, key: PageKey, copy: &Page, at: Lsn) -> Result<bool, DerivedError> {
    let (plan, view) = {
        let state = engine.state.read();
        let durable = { *engine.view.borrow() };
        let known = state.indexed.min(durable.vdl).min(durable.scl);
        if at > known {
            return Err(engine.not_indexed(at, known));
        }
        (state.plan(&[key], at), engine.store.view())
    };
    let built = build(&plan, view.as_ref(), engine.log.as_ref(), &mut Scratch::default())?;
    let is_unbuildable = |built: &BuiltPage| matches!(built.page, StoredPage::Unbuildable(_));
    for built in &built {
        engine.unbuildable.note(key, built);
    }
    // A record that sets the page as a whole and is not persisted would be preferred to the copy.
    let is_full_pending = plan.records.iter().any(|record| record.entry.full);
    if is_full_pending || !built.iter().all(is_unbuildable) {
        return Ok(false);
    }
    let mut batch = Batch::default();
    let image = StoredPage::from_page(Box::new(*copy));
    batch.put(Space::Pages, &key.to_bytes(), at, image.to_bytes());
    engine.store.commit(batch)?;
    let mended = BuiltPage {
        page: image,
        version: Some(at),
        has_records: false,
    };
    engine.unbuildable.note(key, &mended);
    Counters::add(&engine.counters.pages_mended, 1);
    tracing::info!(%key, %at, "a peer's copy replaces a page that could not be built here");
    Ok(true)
}
