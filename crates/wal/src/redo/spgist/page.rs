//! An SP-GiST page: its special space (`SpGistPageOpaqueData`, spgist_private.h, 15.18) and what all records do
//! to its items.
//!
//! ```text
//! 0 flags   2 nRedirection   4 nPlaceholder   6 spgist_page_id
//! ```

use super::tuple::{self, DeadTuple, TupleState};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::compact::{delete_index_item, delete_index_items};
use crate::redo::error::RedoFault;
use crate::redo::fields::{Fields, U16Array};
use crate::redo::index_tuple::StoredTid;
use crate::redo::page::{MAX_INDEX_TUPLES, PageLayout};
use crate::{Page, Record};

/// `sizeof(SpGistPageOpaqueData)`.
const OPAQUE_BYTES: usize = 8;
/// `SPGIST_PAGE_ID`.
const PAGE_ID: u16 = 0xFF82;

const SPGIST_LEAF: u16 = 1 << 2;
const SPGIST_NULLS: u16 = 1 << 3;

/// What a page that a record makes anew is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PageUse {
    pub(super) is_leaf: bool,
    pub(super) stores_nulls: bool,
}

/// Brings the page into the state that the record's change starts from: empty (`SpGistInitPage`) if it is
/// `new`, otherwise as it is.
pub(super) fn init_or_prepare(
    record: &Record<'_>,
    page: &mut Page,
    is_new: bool,
    page_use: PageUse,
) -> Result<BlockRedo, RedoFault> {
    if !is_new {
        return prepare(record, page);
    }
    let leaf = if page_use.is_leaf { SPGIST_LEAF } else { 0 };
    let nulls = if page_use.stores_nulls { SPGIST_NULLS } else { 0 };
    page.init(OPAQUE_BYTES);
    let opaque = usize::from(page.special());
    page.put_u16(opaque, leaf | nulls);
    page.put_u16(opaque + 6, PAGE_ID);
    Ok(BlockRedo::Needed)
}

/// The counters in the special space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counter {
    /// `nRedirection`.
    Redirects = 2,
    /// `nPlaceholder`.
    Placeholders = 4,
}

/// Adds `by` to a counter. Like the writer's, it wraps: that is asserted only in PostgreSQL, and what was miscounted
/// stays miscounted in the same way.
pub(super) fn count(page: &mut Page, counter: Counter, by: i32) -> Result<(), RedoFault> {
    let opaque = usize::from(page.special());
    page.bytes(opaque, OPAQUE_BYTES)?;
    let at = opaque + counter as usize;
    page.put_u16(at, page.u16_at(at).wrapping_add(by as u16));
    Ok(())
}

/// The item at `offset` is replaced, and keeps its number.
pub(super) fn replace_item(page: &mut Page, offset: u16, item: &[u8]) -> Result<(), RedoFault> {
    delete_index_item(page, offset)?;
    page.add_index_item(offset, item)?;
    Ok(())
}

/// `addOrReplaceTuple`: a new item behind the last one, or instead of a placeholder.
pub(super) fn add_or_replace(page: &mut Page, offset: u16, item: &[u8]) -> Result<(), RedoFault> {
    if offset <= page.max_offset() {
        if tuple::state(page.item(offset)?)? != TupleState::Placeholder {
            return Err(RedoFault::Tuple {
                offset,
                reason: "is to be replaced and is no placeholder",
            });
        }
        count(page, Counter::Placeholders, -1)?;
        delete_index_item(page, offset)?;
    }
    page.add_index_item(offset, item)?;
    Ok(())
}

/// `spgPageIndexMultiDelete`: dead tuples take the places of the items at `offsets`, which are in no order. The
/// one that is listed first gets `first`, the others get `rest`.
pub(super) fn replace_by_dead(
    page: &mut Page,
    offsets: U16Array<'_>,
    first: DeadTuple,
    rest: DeadTuple,
) -> Result<(), RedoFault> {
    let Some(first_offset) = offsets.iter().next() else {
        return Ok(());
    };
    let mut sorted = [0; MAX_INDEX_TUPLES];
    let sorted = sorted.get_mut(..offsets.len()).ok_or(RedoFault::LinePointer {
        offset: first_offset,
        reason: "is listed among more items than a page can have",
    })?;
    for (place, offset) in sorted.iter_mut().zip(offsets.iter()) {
        *place = offset;
    }
    sorted.sort_unstable();
    delete_index_items(page, sorted.iter().copied())?;
    for offset in sorted.iter().copied() {
        let dead = if offset == first_offset { first } else { rest };
        page.add_index_item(offset, &dead.bytes())?;
        match dead {
            DeadTuple::Redirect { .. } => count(page, Counter::Redirects, 1)?,
            DeadTuple::Placeholder => count(page, Counter::Placeholders, 1)?,
            DeadTuple::Dead => {}
        }
    }
    Ok(())
}

/// `spgxlogState`: what the writer knew of its index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WriterState {
    xid: u32,
    /// Nobody can be under way to a tuple that goes. Builds write no such records in 15; earlier versions did.
    is_build: bool,
}

impl WriterState {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<WriterState, RedoFault> {
        fields.align(4);
        let state = WriterState {
            xid: fields.u32()?,
            is_build: fields.u8()? != 0,
        };
        fields.align(4);
        Ok(state)
    }

    /// What a tuple that moves to `to` leaves behind.
    pub(super) fn tuple_left_behind(self, to: StoredTid) -> DeadTuple {
        if self.is_build {
            DeadTuple::Placeholder
        } else {
            DeadTuple::Redirect { to, xid: self.xid }
        }
    }
}

/// Where the downlink to a tuple is: a node of an inner tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Downlink {
    /// Of the inner tuple; 0 for none.
    pub(super) offset: u16,
    node: u16,
}

impl Downlink {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Downlink, RedoFault> {
        fields.align(2);
        Ok(Downlink {
            offset: fields.u16()?,
            node: fields.u16()?,
        })
    }

    /// Points it to `to`, on a page in the midst of its change.
    pub(super) fn point_to(self, page: &mut Page, to: StoredTid) -> Result<(), RedoFault> {
        tuple::set_node_link(page.item_mut(self.offset)?, self.node, to)
    }

    /// Points it to `to`, on a page that changes in no other way.
    pub(super) fn redo(self, record: &Record<'_>, page: &mut Page, to: StoredTid) -> Result<(), RedoFault> {
        if prepare(record, page)? == BlockRedo::Done {
            return Ok(());
        }
        self.point_to(page, to)?;
        page.set_lsn(record.end);
        Ok(())
    }
}
