//! Pages of transaction state: made, filled, truncated.

use pg_quorum_types::{PageKey, SlruKind};

use crate::records::{MultiXactCreation, MultiXactTruncation};
use crate::slru::{
    MEMBERS_PER_PAGE, OFFSETS_PER_PAGE, PAGES_PER_FILE, SlruRange, SlruTruncation, next_multixact,
    previous_multixact,
};
use crate::v15::kind::{clog, commit_ts, multixact};
use crate::{Record, WalError};

use super::{Effects, MetaChange, unknown};

/// `clog_redo`, 15.18.
pub(super) fn add_clog(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    match record.kind() {
        clog::ZEROPAGE => add_zeroed(record, SlruKind::Clog, effects),
        clog::TRUNCATE => add_truncated_before(record, SlruKind::Clog, effects),
        _ => Err(unknown(record)),
    }
}

/// `commit_ts_redo`, 15.18.
pub(super) fn add_commit_ts(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    match record.kind() {
        commit_ts::ZEROPAGE => add_zeroed(record, SlruKind::CommitTs, effects),
        commit_ts::TRUNCATE => add_truncated_before(record, SlruKind::CommitTs, effects),
        _ => Err(unknown(record)),
    }
}

/// `multixact_redo`, 15.18.
pub(super) fn add_multixact(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    match record.kind() {
        multixact::ZERO_OFFSETS_PAGE => {
            // Not "full": redo keeps what an older minor release's CREATE_ID has left on it.
            let kind = SlruKind::MultiXactOffset;
            let page = record.main_reader().u32()?;
            effects.add_page(PageKey::Slru { kind, page }, false);
        }
        multixact::ZERO_MEMBERS_PAGE => add_zeroed(record, SlruKind::MultiXactMember, effects)?,
        multixact::CREATE_ID => add_creation(&MultiXactCreation::parse(record)?, effects),
        multixact::TRUNCATE_ID => add_multixact_truncation(&MultiXactTruncation::parse(record)?, effects),
        _ => return Err(unknown(record)),
    }
    Ok(())
}

/// `RecordNewMultiXact`: the multixact's offset, the next one's, the members.
fn add_creation(creation: &MultiXactCreation<'_>, effects: &mut Effects) {
    for multi in [creation.multi, next_multixact(creation.multi)] {
        let kind = SlruKind::MultiXactOffset;
        let page = multi / OFFSETS_PER_PAGE;
        effects.add_page(PageKey::Slru { kind, page }, false);
    }
    let mut at = 0;
    while at < creation.member_count() {
        let kind = SlruKind::MultiXactMember;
        let offset = creation.offset.wrapping_add(at);
        let page = offset / MEMBERS_PER_PAGE;
        effects.push_page(PageKey::Slru { kind, page }, false);
        // To the first member of the next page; the last page ends early, where offsets wrap to 0.
        let to_page_end = MEMBERS_PER_PAGE - offset % MEMBERS_PER_PAGE;
        let to_wrap = u64::from(u32::MAX - offset) + 1;
        at = at.saturating_add(u64::from(to_page_end).min(to_wrap) as u32);
    }
}

/// `PerformMembersTruncation`, `PerformOffsetsTruncation`.
fn add_multixact_truncation(truncation: &MultiXactTruncation, effects: &mut Effects) {
    let file_of_member = |offset: u32| offset / MEMBERS_PER_PAGE / PAGES_PER_FILE;
    effects.meta.push(MetaChange::SlruTruncated(SlruTruncation {
        kind: SlruKind::MultiXactMember,
        range: SlruRange::Files {
            first: file_of_member(truncation.first_member),
            end: file_of_member(truncation.end_member),
        },
    }));
    effects.meta.push(MetaChange::SlruTruncated(SlruTruncation {
        kind: SlruKind::MultiXactOffset,
        range: SlruRange::Before {
            cutoff_page: previous_multixact(truncation.oldest_multi) / OFFSETS_PER_PAGE,
        },
    }));
}

/// A record that begins with the number of a page: it is all zeros.
fn add_zeroed(record: &Record<'_>, kind: SlruKind, effects: &mut Effects) -> Result<(), WalError> {
    let page = record.main_reader().u32()?;
    effects.add_page(PageKey::Slru { kind, page }, true);
    Ok(())
}

/// A record that begins with the number of the first page that stays.
fn add_truncated_before(record: &Record<'_>, kind: SlruKind, effects: &mut Effects) -> Result<(), WalError> {
    let cutoff_page = record.main_reader().u32()?;
    effects.meta.push(MetaChange::SlruTruncated(SlruTruncation {
        kind,
        range: SlruRange::Before { cutoff_page },
    }));
    Ok(())
}
