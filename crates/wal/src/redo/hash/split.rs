//! Splits of buckets (hash_xlog.c, 15.18). The tuples that move come as images (SPLIT_PAGE).

use super::page::{HashPage, LH_BUCKET_NEEDS_SPLIT_CLEANUP, NewPage};
use crate::redo::block::change_if_needed;
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::PageLayout;
use crate::{Page, Record};

/// `xl_hash_split_allocate_page`, but for what changes in the metapage.
struct AllocateFields {
    /// The highest bucket from now on.
    new_bucket: u32,
    old_flags: u16,
    new_flags: u16,
}

impl AllocateFields {
    fn read(record: &Record<'_>) -> Result<AllocateFields, RedoFault> {
        let mut fields = Fields::new(record.main);
        Ok(AllocateFields {
            new_bucket: fields.u32()?,
            old_flags: fields.u16()?,
            new_flags: fields.u16()?,
        })
    }
}

/// `hash_xlog_split_allocate_page`, block 0: the first page of the bucket to be split.
pub(super) fn begin(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let fields = AllocateFields::read(record)?;
        let mut old = HashPage::of(page)?;
        old.set_flags(fields.old_flags);
        old.set_previous(fields.new_bucket);
        Ok(())
    })
}

/// `hash_xlog_split_allocate_page`, block 1: the first page of the new bucket.
pub(super) fn init_new_bucket(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let fields = AllocateFields::read(record)?;
    let new = NewPage {
        previous: fields.new_bucket,
        bucket: fields.new_bucket,
        flags: fields.new_flags,
    };
    HashPage::init(page, &new);
    page.set_lsn(record.end);
    Ok(())
}

/// `hash_xlog_split_complete`, block 0.
pub(super) fn complete_old(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let old_flags = Fields::new(record.main).u16()?;
        HashPage::of(page)?.set_flags(old_flags);
        Ok(())
    })
}

/// `hash_xlog_split_complete`, block 1.
pub(super) fn complete_new(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        let mut fields = Fields::new(record.main);
        let _old_flags = fields.u16()?;
        HashPage::of(page)?.set_flags(fields.u16()?);
        Ok(())
    })
}

/// `hash_xlog_split_cleanup`: the old bucket has none of the moved tuples any more.
pub(super) fn cleaned_up(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    change_if_needed(record, page, |page| {
        HashPage::of(page)?.clear_flags(LH_BUCKET_NEEDS_SPLIT_CLEANUP);
        Ok(())
    })
}
