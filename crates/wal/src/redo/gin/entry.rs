//! Insertion into the entry tree (ginxlog.c `ginRedoInsertEntry`, 15.18).

use super::page::GinPage;
use super::{Children, NO_BLOCK};
use crate::redo::compact::delete_index_item;
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::heap_tuple::TupleId;
use crate::redo::index_tuple;
use crate::redo::page::PageLayout;

/// `ginxlogInsertEntry`: a leaf's tuple replaces the one at its place if the record says so; an
/// internal page's tuple takes the downlink of the one at its place, which gets the right half.
pub(super) fn insert(
    page: &mut GinPage<'_>,
    children: Option<Children>,
    data: &[u8],
) -> Result<(), RedoFault> {
    let mut fields = Fields::new(data);
    let offset = fields.u16()?;
    let replaces = fields.u8()? != 0;
    fields.align(2);
    let rest = fields.rest();
    let tuple = index_tuple::whole(rest)?;
    if tuple.len() < rest.len() {
        return Err(RedoFault::RecordTooLong {
            extra: rest.len() - tuple.len(),
        });
    }
    if let Some(children) = children.filter(|children| children.right != NO_BLOCK) {
        set_downlink(page, offset, children.right)?;
    }
    if replaces {
        page.check_is_leaf(true)?;
        delete_index_item(page.page, offset)?;
    }
    page.page.add_index_item(offset, tuple)?;
    Ok(())
}

/// `GinSetDownlink`.
fn set_downlink(page: &mut GinPage<'_>, offset: u16, block: u32) -> Result<(), RedoFault> {
    let item = page.page.item_id(offset)?;
    let downlink = TupleId { block, offset: 0 }.to_bytes();
    page.page
        .bytes_mut(item.offset(), item.len())?
        .get_mut(..downlink.len())
        .ok_or(RedoFault::LinePointer {
            offset,
            reason: "has no room for a downlink",
        })?
        .copy_from_slice(&downlink);
    Ok(())
}
