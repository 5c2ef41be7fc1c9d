//! Deduplication (nbtxlog.c `btree_xlog_dedup`, nbtdedup.c, 15.18): runs of equal tuples become posting lists.

use pg_quorum_types::BLOCK_SIZE;

use super::page::{BTP_HAS_GARBAGE, BtreePage, HIGH_KEY};
use super::tuple::{self, MAX_TUPLE_BYTES, StoredTid, TID_BYTES};
use crate::redo::block::{BlockRedo, prepare};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::{PageLayout, max_align};
use crate::{BlockRef, Page, Record};

/// `BTMaxItemSize`: the limit that redo uses for a merged tuple.
const MAX_POSTING_BYTES: usize = ((BLOCK_SIZE - max_align(24 + 3 * 4 + 3 * 6) - 16) / 3) & !7;

pub(super) fn redo(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    if prepare(record, page)? == BlockRedo::Done {
        return Ok(());
    }
    let interval_count = usize::from(Fields::new(record.main).u16()?);
    let mut intervals = Fields::new(block.data);
    let mut new_page: Page = [0; BLOCK_SIZE];
    let old = BtreePage::of(page)?;
    old.empty_copy(&mut new_page);
    let mut next = HIGH_KEY;
    let first = old.first_data_key();
    if first > HIGH_KEY {
        new_page.add_index_item(next, old.page.item(HIGH_KEY)?)?;
        next += 1;
    }

    let mut merged = Merged::new();
    let mut offset = first;
    let mut interval = next_interval(&mut intervals, interval_count, 0)?;
    let mut intervals_done = 0;
    let last = old.page.max_offset();
    while offset <= last {
        let base = tuple::whole(old.page.item(offset)?)?;
        match interval.filter(|interval| interval.base == offset && interval.items > 1) {
            None => {
                new_page.add_index_item(next, base)?;
                offset += 1;
            }
            Some(interval) => {
                let end = offset.saturating_add(interval.items);
                let posting = merged.merge(old.page, offset..end)?;
                new_page.add_index_item(next, posting)?;
                offset = end;
            }
        }
        next += 1;
        if interval.is_some_and(|interval| interval.base < offset) {
            intervals_done += 1;
            interval = next_interval(&mut intervals, interval_count, intervals_done)?;
        }
    }

    if intervals_done != interval_count {
        return Err(RedoFault::Tuple {
            offset: last,
            reason: "the page ends before the intervals to merge do",
        });
    }
    let flags = old.flags();
    *page = new_page;
    BtreePage::of(page)?.set_flags(flags & !BTP_HAS_GARBAGE);
    page.set_lsn(record.end);
    Ok(())
}

/// `BTDedupInterval`: `items` tuples from line pointer `base` on become one.
#[derive(Clone, Copy)]
struct Interval {
    base: u16,
    items: u16,
}

fn next_interval(
    intervals: &mut Fields<'_>,
    count: usize,
    done: usize,
) -> Result<Option<Interval>, RedoFault> {
    if done == count {
        return Ok(None);
    }
    Ok(Some(Interval {
        base: intervals.u16()?,
        items: intervals.u16()?,
    }))
}

/// Room for one posting list under construction.
struct Merged {
    tids: [u8; MAX_POSTING_BYTES],
    tuple: [u8; MAX_TUPLE_BYTES],
}

impl Merged {
    fn new() -> Merged {
        Merged {
            tids: [0; MAX_POSTING_BYTES],
            tuple: [0; MAX_TUPLE_BYTES],
        }
    }

    /// `_bt_dedup_start_pending`, `_bt_dedup_save_htid`, `_bt_form_posting`.
    fn merge(&mut self, page: &Page, offsets: std::ops::Range<u16>) -> Result<&[u8], RedoFault> {
        let base = tuple::heap_tids(tuple::whole(page.item(offsets.start)?)?)?;
        let mut len = 0;
        for offset in offsets.clone() {
            let tids = tuple::heap_tids(tuple::whole(page.item(offset)?)?)?.tids;
            let end = len + tids.len();
            if max_align(base.key.len() + end) > MAX_POSTING_BYTES {
                return Err(RedoFault::Tuple {
                    offset,
                    reason: "makes a posting list too large",
                });
            }
            self.tids[len..end].copy_from_slice(tids);
            len = end;
        }
        let tids = self.tids[..len].chunks_exact(TID_BYTES).map(|bytes| {
            let mut tid: StoredTid = [0; TID_BYTES];
            tid.copy_from_slice(bytes);
            tid
        });
        let size = tuple::form_posting(base.key, tids, &mut self.tuple)?;
        Ok(&self.tuple[..size])
    }
}
