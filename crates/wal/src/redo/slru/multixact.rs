//! Multixacts: where each one's members begin (offsets), and the members.
//!
//! `RecordNewMultiXact` of 15.18 also writes the *next* multixact's offset, which may be the first entry of
//! the next page. Servers of 15.18 and later log that page's creation before; older ones log it afterwards,
//! when they hand out the next multixact. 15.18 remembers, in the process, which page it has made ahead of its
//! record and skips the record then. A function of one page has no memory, but the page tells: one that holds
//! its first entry and nothing else was made ahead, and keeps that entry. Any other content is of the time before
//! the counter wrapped, and goes.

use crate::records::MultiXactCreation;
use crate::redo::Page;
use crate::slru::{
    FIRST_MULTIXACT, MEMBER_GROUP_BYTES, MEMBERS_PER_GROUP, MEMBERS_PER_PAGE, OFFSETS_PER_PAGE,
    next_multixact,
};
use crate::v15::kind::multixact as kind;
use crate::{Record, WalError};

/// Bytes of an entry of an offsets page.
const OFFSET_BYTES: usize = 4;

pub(super) fn apply_to_offsets(record: &Record<'_>, number: u32, page: &mut Page) -> Result<bool, WalError> {
    match record.kind() {
        kind::ZERO_OFFSETS_PAGE => {
            if record.main_reader().u32()? != number {
                return Ok(false);
            }
            if !was_made_ahead(number, page) {
                page.fill(0);
            }
            Ok(true)
        }
        kind::CREATE_ID => {
            let creation = MultiXactCreation::parse(record)?;
            let entries = [
                (creation.multi, creation.offset),
                (next_multixact(creation.multi), creation.next_offset_entry()),
            ];
            let mut is_changed = false;
            for (multi, offset) in entries {
                if multi / OFFSETS_PER_PAGE == number {
                    let at = (multi % OFFSETS_PER_PAGE) as usize * OFFSET_BYTES;
                    page[at..at + OFFSET_BYTES].copy_from_slice(&offset.to_le_bytes());
                    is_changed = true;
                }
            }
            Ok(is_changed)
        }
        _ => Ok(false),
    }
}

/// Whether the page has its first entry, and nothing else, from the multixact before it.
fn was_made_ahead(number: u32, page: &Page) -> bool {
    // On the first page the counter starts, and starts again where it wraps, with FIRST_MULTIXACT.
    let first = if number == 0 {
        FIRST_MULTIXACT as usize * OFFSET_BYTES
    } else {
        0
    };
    page[..first].iter().all(|byte| *byte == 0) && page[first + OFFSET_BYTES..].iter().all(|byte| *byte == 0)
}

pub(super) fn apply_to_members(record: &Record<'_>, number: u32, page: &mut Page) -> Result<bool, WalError> {
    match record.kind() {
        kind::ZERO_MEMBERS_PAGE => super::zero(record, number, page),
        kind::CREATE_ID => {
            let creation = MultiXactCreation::parse(record)?;
            let mut is_changed = false;
            for (nth, member) in (0u32..).zip(creation.members()) {
                let offset = creation.offset.wrapping_add(nth);
                if offset / MEMBERS_PER_PAGE == number {
                    set_member(page, offset, member.xid, member.status);
                    is_changed = true;
                }
            }
            Ok(is_changed)
        }
        _ => Ok(false),
    }
}

/// A group is four bytes of flags, one for each member, and four transaction ids.
fn set_member(page: &mut Page, offset: u32, xid: u32, status: u8) {
    let in_page = offset % MEMBERS_PER_PAGE;
    let group = (in_page / MEMBERS_PER_GROUP * MEMBER_GROUP_BYTES) as usize;
    let in_group = (in_page % MEMBERS_PER_GROUP) as usize;
    page[group + in_group] = status;
    let at = group + 4 + in_group * 4;
    page[at..at + 4].copy_from_slice(&xid.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use pg_quorum_types::{BLOCK_SIZE, PageKey, SlruKind};

    use super::*;
    use crate::redo::test_records;
    use crate::{RedoContext, Rmgr, apply, effects};

    const PAGE: u32 = 3;
    /// The last multixact of the page before.
    const LAST: u32 = PAGE * OFFSETS_PER_PAGE - 1;
    const OFFSET: u32 = 70_000;

    /// `xl_multixact_create` with two members.
    fn create(multi: u32, offset: u32) -> Record<'static> {
        let words = [multi, offset, 2, 700, 0, 701, 1];
        test_records::record(
            Rmgr::MultiXact,
            kind::CREATE_ID,
            &words.map(u32::to_le_bytes).concat(),
            &[],
        )
    }

    fn zero() -> Record<'static> {
        test_records::record(Rmgr::MultiXact, kind::ZERO_OFFSETS_PAGE, &PAGE.to_le_bytes(), &[])
    }

    /// The page after those of the records that change it.
    fn replay(records: &[Record<'_>], mut page: Page) -> Page {
        let key = PageKey::Slru {
            kind: SlruKind::MultiXactOffset,
            page: PAGE,
        };
        let ctx = RedoContext::default();
        for record in records {
            let changes = effects(record, &ctx).unwrap();
            if changes.pages.iter().any(|effect| effect.key == key) {
                apply(record, &key, &mut page, &ctx).unwrap();
            }
        }
        page
    }

    fn expected() -> Page {
        let mut page = [0; BLOCK_SIZE];
        for (entry, offset) in [OFFSET + 2, OFFSET + 4, OFFSET + 6].iter().enumerate() {
            page[entry * OFFSET_BYTES..][..OFFSET_BYTES].copy_from_slice(&offset.to_le_bytes());
        }
        page
    }

    /// Older minor releases log a page of offsets when its first multixact is made, after the record that, as it is
    /// replayed now, has already put an entry on it. That entry is all that tells where the members end.
    #[test]
    fn an_older_servers_page_is_made_after_its_first_entry_and_keeps_it() {
        let older = [
            create(LAST, OFFSET),
            zero(),
            create(LAST + 1, OFFSET + 2),
            create(LAST + 2, OFFSET + 4),
        ];
        assert_eq!(
            replay(&older[..2], [0; BLOCK_SIZE])[..4],
            (OFFSET + 2).to_le_bytes()
        );
        assert_eq!(replay(&older, [0; BLOCK_SIZE]), expected());
    }

    /// Newer servers log the page first. What is on it then is of the time before the counter wrapped.
    #[test]
    fn a_newer_servers_page_is_made_before_its_first_entry_and_is_emptied() {
        let newer = [
            zero(),
            create(LAST, OFFSET),
            create(LAST + 1, OFFSET + 2),
            create(LAST + 2, OFFSET + 4),
        ];
        for before in [[0; BLOCK_SIZE], [0x5A; BLOCK_SIZE]] {
            assert_eq!(replay(&newer, before), expected());
        }
    }

    /// Sessions that race ahead of each other log multixacts out of order.
    #[test]
    fn multixacts_out_of_order_leave_the_same_page() {
        let newer = [
            zero(),
            create(LAST + 1, OFFSET + 2),
            create(LAST, OFFSET),
            create(LAST + 2, OFFSET + 4),
        ];
        assert_eq!(replay(&newer, [0; BLOCK_SIZE]), expected());
    }
}
