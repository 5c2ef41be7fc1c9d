//! Changes to a posting tree's leaf (ginxlog.c `ginRedoRecompress`, `ginRedoVacuumDataLeafPage`, 15.18).
//!
//! A leaf is a row of posting lists, which PostgreSQL calls segments; a record lists what happens to them, by
//! rising number. Bytes behind the last list keep what was there.

use super::page::{DATA_AT, GIN_COMPRESSED, GinPage};
use super::posting_list::{PostingList, TidResult, encode, merge, stored_tids};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::index_tuple::TID_BYTES;
use crate::redo::page::PageLayout;
use crate::{BlockRef, Page, Record};

/// `GIN_SEGMENT_*`.
mod action {
    pub(super) const DELETE: u8 = 1;
    pub(super) const INSERT: u8 = 2;
    pub(super) const REPLACE: u8 = 3;
    pub(super) const ADD_ITEMS: u8 = 4;
}

/// Block 0 of VACUUM_DATA_LEAF_PAGE.
pub(super) fn vacuum(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let mut leaf = GinPage::of(page)?;
    leaf.check_is_data(true)?;
    leaf.check_is_leaf(true)?;
    recompress(&mut leaf, block.data)?;
    page.set_lsn(record.end);
    Ok(())
}

/// `ginRedoRecompress`: carries out the actions of a `ginxlogRecompressDataLeaf`.
///
/// PostgreSQL writes nothing in front of the first list that changes; here those lists are put where they are.
pub(super) fn recompress(leaf: &mut GinPage<'_>, data: &[u8]) -> Result<(), RedoFault> {
    if !leaf.is_compressed() {
        convert_to_compressed(leaf)?;
    }
    let before = *leaf.page;
    let mut old = Lists::of(&before, leaf)?;
    let mut new = Writer::new(leaf);
    let mut data = Fields::new(data);
    let action_count = data.u16()?;
    if action_count == 0 {
        return Err(RedoFault::PostingList("no action on any"));
    }
    for _ in 0..action_count {
        let number = data.u8()?;
        let action = data.u8()?;
        if usize::from(number) < old.number {
            return Err(RedoFault::PostingList("actions do not rise"));
        }
        new.put(old.skip_to(usize::from(number))?)?;
        match action {
            action::DELETE => {
                old.next()?;
            }
            action::INSERT => new.put(list_in_record(&mut data)?)?,
            action::REPLACE => {
                old.next()?;
                new.put(list_in_record(&mut data)?)?;
            }
            action::ADD_ITEMS => {
                let count = usize::from(data.u16()?);
                let added = stored_tids(data.take(count * TID_BYTES)?);
                new.put_encoded(merge(added, old.next()?.items()))?;
            }
            _ => return Err(RedoFault::PostingList("unknown action")),
        }
    }
    data.finish()?;
    new.put(old.rest)?;
    let end = new.at;
    leaf.set_end_of_data(end);
    Ok(())
}

/// A posting list at an even offset of the record, with its padding.
fn list_in_record<'a>(data: &mut Fields<'a>) -> Result<&'a [u8], RedoFault> {
    let mut ahead = *data;
    data.take(PostingList::at(ahead.rest())?.size())
}

/// A leaf in the format before 9.4, which pg_upgrade keeps, has bare TIDs and no `pd_lower`. They become one
/// posting list.
fn convert_to_compressed(leaf: &mut GinPage<'_>) -> Result<(), RedoFault> {
    let count = usize::from(leaf.item_count());
    let mut end = DATA_AT;
    if count > 0 {
        let before = *leaf.page;
        let tids = before.bytes(DATA_AT, count * TID_BYTES)?;
        let mut writer = Writer::new(leaf);
        writer.put_encoded(stored_tids(tids))?;
        end = writer.at;
    }
    leaf.set_end_of_data(end);
    leaf.set_flags(leaf.flags() | GIN_COMPRESSED);
    leaf.set_item_count(0);
    Ok(())
}

/// The posting lists that have not been dealt with yet.
struct Lists<'a> {
    rest: &'a [u8],
    /// The number of the first one of `rest`, from zero on.
    number: usize,
}

impl<'a> Lists<'a> {
    /// All lists of `page`, which is a copy of `leaf`.
    fn of(page: &'a Page, leaf: &GinPage<'_>) -> Result<Lists<'a>, RedoFault> {
        let end = usize::from(page.lower());
        let rest =
            page.get(DATA_AT..end)
                .filter(|_| end <= leaf.data_end())
                .ok_or(RedoFault::PagePointers {
                    lower: page.lower(),
                    upper: page.upper(),
                    special: page.special(),
                })?;
        Ok(Lists { rest, number: 0 })
    }

    fn next(&mut self) -> Result<PostingList<'a>, RedoFault> {
        let list = PostingList::at(self.rest)?;
        self.rest = &self.rest[list.size()..];
        self.number += 1;
        Ok(list)
    }

    /// The lists in front of list `number`.
    fn skip_to(&mut self, number: usize) -> Result<&'a [u8], RedoFault> {
        let before = self.rest;
        while self.number < number {
            self.next()?;
        }
        Ok(&before[..before.len() - self.rest.len()])
    }
}

/// Puts posting lists on a leaf, one behind the other.
struct Writer<'a> {
    page: &'a mut Page,
    at: usize,
    room_end: usize,
}

impl<'a> Writer<'a> {
    fn new<'b: 'a>(leaf: &'a mut GinPage<'b>) -> Writer<'a> {
        let room_end = leaf.data_end();
        Writer {
            page: leaf.page,
            at: DATA_AT,
            room_end,
        }
    }

    fn put(&mut self, lists: &[u8]) -> Result<(), RedoFault> {
        let end = self.at + lists.len();
        if end > self.room_end {
            return Err(RedoFault::NoRoom {
                size: lists.len(),
                lower: self.page.lower(),
                upper: self.page.upper(),
            });
        }
        self.page[self.at..end].copy_from_slice(lists);
        self.at = end;
        Ok(())
    }

    fn put_encoded(&mut self, items: impl Iterator<Item = TidResult>) -> Result<(), RedoFault> {
        self.at += encode(items, &mut self.page[self.at..self.room_end])?;
        Ok(())
    }
}
