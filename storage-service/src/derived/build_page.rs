//! Builds pages: base images, then records.
//!
//! Some pages are built together: their records are read in one pass over the log, each of them is read and decoded
//! once for all pages that it changes, and a page's records change one buffer in place.

use pg_quorum_types::{BLOCK_SIZE, Lsn};
use pg_quorum_wal::{Page, Record};

use super::error::DerivedError;
use super::index::IndexEntry;
use super::record_log::RecordLog;
use super::state::PagePlan;
use super::store::{Space, StoreView};
use super::stored_page::StoredPage;

/// A page as of the LSN that was planned.
#[derive(Debug)]
pub struct BuiltPage {
    pub page: StoredPage,
    /// LSN of the last change in it, `None` if nothing of the page is known (it reads as zeros).
    pub version: Option<Lsn>,
}

/// Memory that is kept from one call to the next.
#[derive(Default)]
pub struct Scratch {
    records: Vec<u8>,
    steps: Vec<Step>,
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

/// One record's change of one page.
#[derive(Clone, Copy)]
struct Step {
    end: Lsn,
    /// Index of the page.
    page: u32,
    /// Index among the page's pending records.
    record: u32,
}

/// A page under way.
struct Work<'a> {
    plan: &'a PagePlan,
    /// What is to be applied to the base.
    pending: &'a [IndexEntry],
    /// An image, once there is a record to be applied.
    page: StoredPage,
    version: Option<Lsn>,
}

/// Builds pages, in the plans' order. The view must be of the moment of the plans, or a later one.
///
/// # Errors
/// The store or the log cannot be read, or a plan is for an LSN that is not kept. A page that redo cannot build is
/// no error here: it is [`StoredPage::Unbuildable`].
pub fn build(
    plans: &[PagePlan],
    view: &dyn StoreView,
    log: &dyn RecordLog,
    scratch: &mut Scratch,
) -> Result<Vec<BuiltPage>, DerivedError> {
    let works = plans.iter().map(|plan| Work::begin(plan, view, scratch));
    let mut works = works.collect::<Result<Vec<Work<'_>>, DerivedError>>()?;
    let Scratch { records, steps, .. } = scratch;
    steps.clear();
    for (page, work) in (0..).zip(&works) {
        let step = |(record, entry): (u32, &IndexEntry)| Step {
            end: entry.end,
            page,
            record,
        };
        steps.extend((0..).zip(work.pending).map(step));
    }
    if works.len() > 1 {
        // Runs in order, one behind the other: a stable sort is a merge.
        steps.sort_by_key(|step| step.end);
    }
    apply_all(&mut works, steps, log, records)?;
    Ok(works.into_iter().map(Work::finish).collect())
}

impl<'a> Work<'a> {
    /// Finds the base, and what is pending on it. Of that only the first record can be one that sets the page as a
    /// whole: those before the last such one do not matter.
    fn begin(
        plan: &'a PagePlan,
        view: &dyn StoreView,
        scratch: &mut Scratch,
    ) -> Result<Work<'a>, DerivedError> {
        let last_full = plan.records.iter().rposition(|entry| entry.full);
        let (mut page, base_lsn) = match last_full {
            Some(_) if plan.unchanged_until.is_none() => (StoredPage::Zeros, None),
            _ => find_base(plan, view, scratch)?,
        };
        let pending = &plan.records[last_full.unwrap_or(0)..];
        let in_base = pending.partition_point(|entry| base_lsn.is_some_and(|base| entry.end <= base));
        let mut pending = &pending[in_base..];
        let version = pending.last().map(|last| last.end).or(base_lsn);
        if let StoredPage::Unbuildable(_) = page {
            if pending.first().is_some_and(|entry| entry.full) {
                page = StoredPage::Zeros;
            } else {
                pending = &[]; // it stays as it is until a record sets it as a whole
            }
        }
        if page == StoredPage::Zeros && !pending.is_empty() {
            let mut zeros = scratch.page();
            zeros.fill(0);
            page = StoredPage::Image(zeros);
        }
        Ok(Work {
            plan,
            pending,
            page,
            version,
        })
    }

    fn apply(&mut self, record: &Record<'_>) {
        let StoredPage::Image(page) = &mut self.page else {
            return; // it is broken already
        };
        let context = self.plan.contexts.at(record.start);
        if let Err(error) = pg_quorum_wal::apply(record, &self.plan.key, page, &context) {
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
        }
    }
}

/// The newest image that may be the base, or zeros.
fn find_base(
    plan: &PagePlan,
    view: &dyn StoreView,
    scratch: &mut Scratch,
) -> Result<(StoredPage, Option<Lsn>), DerivedError> {
    let newest_of = plan.unchanged_until.unwrap_or(plan.at);
    let newest = view.newest(Space::Pages, &plan.key.to_bytes(), newest_of)?;
    let Some((lsn, bytes)) = newest.filter(|(lsn, _)| *lsn >= plan.hidden_below) else {
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
        tracing::error!(key = %plan.key, %lsn, %error, "a stored page is damaged");
        StoredPage::Unbuildable(format!("the stored image of {} at {lsn}: {error}", plan.key))
    });
    Ok((page, Some(lsn)))
}

/// Applies the steps in order. Steps of one record stand together.
fn apply_all(
    works: &mut [Work<'_>],
    steps: &[Step],
    log: &dyn RecordLog,
    buffer: &mut Vec<u8>,
) -> Result<(), DerivedError> {
    let entry_of = |works: &[Work<'_>], step: &Step| works[step.page as usize].pending[step.record as usize];
    let positions: Vec<_> = steps
        .chunk_by(|one, other| one.end == other.end)
        .map(|steps| entry_of(works, &steps[0]).position)
        .collect();
    let mut records = steps.chunk_by(|one, other| one.end == other.end);
    let mut outcome = Ok(());
    let read = log.read_each(&mut positions.into_iter(), buffer, &mut |bytes| {
        if let Some(steps) = records.next() {
            outcome = apply_one(works, steps, bytes);
        }
        outcome.is_ok()
    });
    read.map_err(|error| DerivedError::Log {
        at: records
            .next()
            .map_or(Lsn::INVALID, |steps| entry_of(works, &steps[0]).start),
        problem: error.to_string(),
    })?;
    outcome
}

/// Applies one record to all pages that it changes.
fn apply_one(works: &mut [Work<'_>], steps: &[Step], bytes: &[u8]) -> Result<(), DerivedError> {
    let entry = works[steps[0].page as usize].pending[steps[0].record as usize];
    let record = Record::parse(entry.start, entry.end, bytes)?;
    for step in steps {
        works[step.page as usize].apply(&record);
    }
    Ok(())
}
