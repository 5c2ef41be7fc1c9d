//! The left half of a split page, when its parent gets to know of the right half (ginxlog.c
//! `ginRedoClearIncompleteSplit`, 15.18). The split itself comes as images.

use super::page::{GIN_INCOMPLETE_SPLIT, GinPage};
use super::{INSERT_IS_LEAF, InsertFields};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::PageLayout;
use crate::{Page, Record};

/// Block 1 of INSERT.
pub(super) fn finish_by_insertion(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    match InsertFields::read(record)?.children {
        Some(_) => clear_incomplete_split(record, page),
        None => Err(RedoFault::UnrelatedPage),
    }
}

/// Block 3 of SPLIT: the parent had no room.
pub(super) fn finish_by_split_of_parent(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    /// In `ginxlogSplit`, behind the relation and three block numbers.
    const FLAGS_AT: usize = 24;
    let mut fields = Fields::new(record.main);
    fields.take(FLAGS_AT)?;
    if fields.u16()? & INSERT_IS_LEAF != 0 {
        return Err(RedoFault::UnrelatedPage);
    }
    clear_incomplete_split(record, page)
}

fn clear_incomplete_split(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut child = GinPage::of(page)?;
    child.set_flags(child.flags() & !GIN_INCOMPLETE_SPLIT);
    page.set_lsn(record.end);
    Ok(())
}
