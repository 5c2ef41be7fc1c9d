//! Redo of resource manager Generic (generic_xlog.c `generic_redo`, 15.18): byte ranges to overwrite.

use super::block::{BlockRedo, prepare};
use super::error::RedoFault;
use super::fields::Fields;
use super::page::PageLayout;
use crate::{BlockRef, Page, Record};

pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut delta = Fields::new(block.data);
    while delta.remaining() > 0 {
        let at = usize::from(delta.u16()?);
        let len = usize::from(delta.u16()?);
        let bytes = delta.take(len)?;
        page.bytes_mut(at, bytes.len())?.copy_from_slice(bytes);
    }
    // The delta says nothing of the free space in the middle, which the writer zeroed.
    let (lower, upper) = (usize::from(page.lower()), usize::from(page.upper()));
    page.bytes_mut(lower, upper.saturating_sub(lower))?.fill(0);
    page.set_lsn(record.end);
    Ok(())
}
