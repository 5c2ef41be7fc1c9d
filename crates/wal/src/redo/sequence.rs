//! Redo of resource manager Sequence (sequence.c `seq_redo`, 15.18): the page made anew around one tuple.

use super::error::RedoFault;
use super::fields::Fields;
use super::page::PageLayout;
use crate::{Page, Record};

/// `SEQ_MAGIC`, in the special space.
const MAGIC: u32 = 0x1717;
/// `sizeof(xl_seq_rec)`: the relation.
const HEADER_BYTES: usize = 12;

pub(super) fn redo(record: &Record<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = Fields::new(record.main);
    fields.take(HEADER_BYTES)?;
    page.init(size_of::<u32>());
    page.put_u32(usize::from(page.special()), MAGIC);
    page.add_index_item(1, fields.rest())?;
    page.set_lsn(record.end);
    Ok(())
}
