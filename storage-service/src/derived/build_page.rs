//! Builds a page: base image, then records.

use pg_quorum_types::{BLOCK_SIZE, Lsn, PageKey};
use pg_quorum_wal::{Page, RawRecord, Record, RedoContext};

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

/// Builds a page. The view must be of the moment of the plan, or a later one.
///
/// # Errors
/// The store or the log cannot be read, or the plan is for an LSN that is not kept. A page that redo
/// cannot build is no error here: it is [`StoredPage::Unbuildable`].
pub fn build(plan: &PagePlan, view: &dyn StoreView, log: &dyn RecordLog) -> Result<BuiltPage, DerivedError> {
    let last_full = plan.records.iter().rposition(|entry| entry.full);
    let (mut page, base) = match last_full {
        Some(_) if plan.unchanged_until.is_none() => (StoredPage::Zeros, None),
        _ => find_base(plan, view)?,
    };
    let mut version = base;
    let from = last_full.unwrap_or(0);
    let pending = plan.records.iter().zip(&plan.contexts).skip(from);
    let mut pending = pending.filter(|(entry, _)| base.is_none_or(|base| entry.end > base));
    if let Some(first) = pending.next() {
        page = apply_all(
            plan.key,
            page,
            std::iter::once(first).chain(pending),
            log,
            &mut version,
        )?;
    }
    Ok(BuiltPage { page, version })
}

/// The newest image that may be the base, or zeros.
fn find_base(plan: &PagePlan, view: &dyn StoreView) -> Result<(StoredPage, Option<Lsn>), DerivedError> {
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
    let page = StoredPage::from_bytes(&bytes).unwrap_or_else(|error| {
        tracing::error!(key = %plan.key, %lsn, %error, "a stored page is damaged");
        StoredPage::Unbuildable(format!("the stored image of {} at {lsn}: {error}", plan.key))
    });
    Ok((page, Some(lsn)))
}

fn apply_all<'a>(
    key: PageKey,
    base: StoredPage,
    records: impl Iterator<Item = (&'a IndexEntry, &'a RedoContext)>,
    log: &dyn RecordLog,
    version: &mut Option<Lsn>,
) -> Result<StoredPage, DerivedError> {
    let (mut page, mut broken) = match base {
        StoredPage::Image(page) => (page, None),
        StoredPage::Zeros => (Box::new([0; BLOCK_SIZE]), None),
        StoredPage::Unbuildable(why) => (Box::new([0; BLOCK_SIZE]), Some(why)),
    };
    for (entry, context) in records {
        *version = Some(entry.end);
        if entry.full {
            broken = None;
        }
        if broken.is_some() {
            continue; // it stays as it is until a record sets it as a whole
        }
        let raw = read_record(entry, log)?;
        broken = apply_one(&Record::decode(&raw)?, &key, &mut page, context).err();
    }
    Ok(match broken {
        Some(why) => StoredPage::Unbuildable(why),
        None => StoredPage::from_page(&page),
    })
}

fn apply_one(
    record: &Record<'_>,
    key: &PageKey,
    page: &mut Page,
    context: &RedoContext,
) -> Result<(), String> {
    pg_quorum_wal::apply(record, key, page, context)
        .map_err(|error| format!("{error} [{}/{}]", record.rmgr, record.kind_name()))
}

fn read_record(entry: &IndexEntry, log: &dyn RecordLog) -> Result<RawRecord, DerivedError> {
    let bytes = log.read_at(entry.position).map_err(|error| DerivedError::Log {
        at: entry.start,
        problem: error.to_string(),
    })?;
    Ok(RawRecord {
        start: entry.start,
        end: entry.end,
        bytes,
    })
}
