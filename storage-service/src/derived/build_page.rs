//! Builds pages: base images, then records.
//!
//! Some pages are built together: their records are read in one pass over the log, each of them is read and decoded
//! once for all pages that it changes, and a page's records change one buffer in place.

use pg_quorum_types::{BLOCK_SIZE, Lsn};
use pg_quorum_wal::{Page, Record};

use super::error::DerivedError;
use super::record_log::RecordLog;
use super::state::{Plan, PlannedPage, PlannedRecord};
use super::store::{Space, StoreView};
use super::stored_page::StoredPage;

/// A page as of the LSN that was planned.
#[derive(Debug)]
pub struct BuiltPage {
    pub page: StoredPage,
    /// LSN of the last change in it, `None` if nothing of the page is known (it reads as zeros).
    pub version: Option<Lsn>,
    /// The plan has records of it.
    pub has_records: bool,
}

/// Memory that is kept from one call to the next.
#[derive(Default)]
pub struct Scratch {
    records: Vec<u8>,
    pages: Vec<Box<Page>>,
}

impl Scratch {
    /// A page's buffer, with anything in it.
    fn page(&mut self) -> Box<Page> {
        self.pages.pop().unwrap_or_else(|| Box::new([0; BLOCK_SIZE]))
    }

    /// Takes a buffer back that is not needed any more.
    pub fn give_back(&mut self, page: StoredPage) {
        if let StoredPage::Image(page) = page {
            self.pages.push(page);
        }
    }
}

/// A page under way.
struct Work {
    page: StoredPage,
    version: Option<Lsn>,
    has_records: bool,
}

/// What a plan's records say of a page.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// The end of the last record, and of the last one that sets the page as a whole: what comes before that does
    /// not matter.
    last: Option<Lsn>,
    last_full: Option<Lsn>,
}

/// Builds pages, in the plan's order. The view must be of the moment of the plan, or a later one.
///
/// # Errors
/// The store or the log cannot be read, or the plan is for an LSN that is not kept. A page that redo cannot build is
/// no error here: it is [`StoredPage::Unbuildable`].
pub fn build(
    plan: &Plan,
    view: &dyn StoreView,
    log: &dyn RecordLog,
    scratch: &mut Scratch,
) -> Result<Vec<BuiltPage>, DerivedError> {
    let mut seen = vec![Seen::default(); plan.pages.len()];
    for record in &plan.records {
        let seen = &mut seen[record.page as usize];
        seen.last = Some(record.entry.end);
        if record.entry.full {
            seen.last_full = seen.last;
        }
    }
    let mut works = Vec::with_capacity(plan.pages.len());
    let mut wanted_behind = Vec::with_capacity(plan.pages.len());
    for (page, seen) in plan.pages.iter().zip(&seen) {
        let (work, behind) = Work::begin(plan, page, seen, view, scratch)?;
        works.push(work);
        wanted_behind.push(behind);
    }
    apply_all(plan, &mut works, &wanted_behind, log, &mut scratch.records)?;
    Ok(works.into_iter().map(Work::finish).collect())
}

impl Work {
    /// Finds the base. The records that end behind the LSN that is returned are to be applied to it; of them only the
    /// first can be one that sets the page as a whole.
    fn begin(
        plan: &Plan,
        planned: &PlannedPage,
        seen: &Seen,
        view: &dyn StoreView,
        scratch: &mut Scratch,
    ) -> Result<(Work, Lsn), DerivedError> {
        let (mut page, base_lsn) = match seen.last_full {
            Some(_) if plan.unchanged_until.is_none() => (StoredPage::Zeros, None),
            _ => find_base(plan, planned, view, scratch)?,
        };
        let in_base = base_lsn.unwrap_or(Lsn::INVALID);
        let begins_full = seen.last_full.filter(|full| *full > in_base);
        let mut behind = begins_full.map_or(in_base, |full| Lsn(full.0 - 1));
        let version = seen.last.filter(|last| *last > behind).or(base_lsn);
        if let StoredPage::Unbuildable(_) = page {
            if begins_full.is_some() {
                page = StoredPage::Zeros;
            } else {
                behind = Lsn::MAX; // it stays as it is until a record sets it as a whole
            }
        }
        if page == StoredPage::Zeros && seen.last.is_some_and(|last| last > behind) {
            let mut zeros = scratch.page();
            zeros.fill(0);
            page = StoredPage::Image(zeros);
        }
        let work = Work {
            page,
            version,
            has_records: seen.last.is_some(),
        };
        Ok((work, behind))
    }

    fn apply(&mut self, plan: &Plan, planned: &PlannedRecord, record: &Record<'_>) {
        let StoredPage::Image(page) = &mut self.page else {
            return; // it is broken already
        };
        let key = &plan.pages[planned.page as usize].key;
        let context = plan.contexts.at(record.start);
        if let Err(error) = pg_quorum_wal::apply(record, key, page, &context) {
            // Nothing behind it sets the page as a whole.
            self.page = StoredPage::Unbuildable(format!("{error} [{}/{}]", record.rmgr, record.kind_name()));
        }
    }

    fn finish(self) -> BuiltPage {
        let page = match self.page {
            StoredPage::Image(page) => StoredPage::from_page(page),
            other => other,
        };
        BuiltPage {
            page,
            version: self.version,
            has_records: self.has_records,
        }
    }
}

/// The newest image that may be the base, or zeros.
fn find_base(
    plan: &Plan,
    planned: &PlannedPage,
    view: &dyn StoreView,
    scratch: &mut Scratch,
) -> Result<(StoredPage, Option<Lsn>), DerivedError> {
    let newest_of = plan.unchanged_until.unwrap_or(plan.at);
    let newest = view.newest(Space::Pages, &planned.key.to_bytes(), newest_of)?;
    let Some((lsn, bytes)) = newest.filter(|(lsn, _)| *lsn >= planned.hidden_below) else {
        return match plan.unchanged_until {
            Some(floor) => Err(DerivedError::TooOld {
                asked: plan.at,
                floor,
            }),
            None => Ok((StoredPage::Zeros, None)),
        };
    };
    if lsn > plan.at {
        return Err(DerivedError::TooOld {
            asked: plan.at,
            floor: newest_of,
        });
    }
    // One damaged image must not hold up all the others. Who reads this page asks another node.
    let page = StoredPage::from_bytes(&bytes, scratch.page()).unwrap_or_else(|error| {
        tracing::error!(key = %planned.key, %lsn, %error, "a stored page is damaged");
        StoredPage::Unbuildable(format!("the stored image of {} at {lsn}: {error}", planned.key))
    });
    Ok((page, Some(lsn)))
}

/// Applies the plan's records in order, each one of a page only if it ends behind the page's LSN in `wanted_behind`. A
/// record is read and decoded once for all pages that it changes.
fn apply_all(
    plan: &Plan,
    works: &mut [Work],
    wanted_behind: &[Lsn],
    log: &dyn RecordLog,
    buffer: &mut Vec<u8>,
) -> Result<(), DerivedError> {
    let is_wanted = |planned: &&PlannedRecord| planned.entry.end > wanted_behind[planned.page as usize];
    let mut last = Lsn::INVALID;
    let mut positions = plan.records.iter().filter(is_wanted).filter_map(|planned| {
        let is_another = std::mem::replace(&mut last, planned.entry.end) != planned.entry.end;
        is_another.then_some(planned.entry.position)
    });
    let mut wanted = plan.records.iter().filter(is_wanted).peekable();
    let mut outcome = Ok(());
    let read = log.read_each(&mut positions, buffer, &mut |bytes| {
        let Some(planned) = wanted.next() else {
            return false;
        };
        let entry = planned.entry;
        let mut record = Record::empty();
        if let Err(error) = record.read(entry.start, entry.end, bytes) {
            outcome = Err(error.into());
            return false;
        }
        works[planned.page as usize].apply(plan, planned, &record);
        while let Some(planned) = wanted.next_if(|other| other.entry.end == entry.end) {
            works[planned.page as usize].apply(plan, planned, &record);
        }
        true
    });
    read.map_err(|error| DerivedError::Log {
        at: wanted.next().map_or(Lsn::INVALID, |planned| planned.entry.start),
        problem: error.to_string(),
    })?;
    outcome
}
