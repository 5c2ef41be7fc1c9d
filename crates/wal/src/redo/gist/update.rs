//! Items of one page go, come, or are replaced (gistxlog.c `gistRedoPageUpdateRecord`, 15.18).

use super::page::{F_TUPLES_DELETED, GistPage, append};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::compact::{delete_index_items, overwrite_index_item};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple;
use crate::redo::page::PageLayout;
use crate::{BlockRef, Page, Record};

/// Block 0 of PAGE_UPDATE: `gistxlogPageUpdate` counts what the block's data has, offsets to delete first,
/// then tuples to insert.
pub(super) fn items(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut counts = Fields::new(record.main);
    let delete_count = usize::from(counts.u16()?);
    let insert_count = usize::from(counts.u16()?);
    let mut data = Fields::new(block.data);
    let mut to_append = insert_count;
    if delete_count == 1 && insert_count == 1 {
        // Where the item stands on the page depends on how it was replaced.
        let offset = data.u16()?;
        overwrite_index_item(page, offset, index_tuple::read(&mut data)?)?;
        to_append = 0;
    } else if delete_count > 0 {
        delete_index_items(page, data.u16_array(delete_count)?)?;
        let mut gist_page = GistPage::of(page)?;
        if gist_page.is_leaf() {
            gist_page.set_flags(F_TUPLES_DELETED);
        }
    }
    for _ in 0..to_append {
        append(page, index_tuple::read(&mut data)?)?;
    }
    data.finish()?;
    page.set_lsn(record.end);
    Ok(())
}
