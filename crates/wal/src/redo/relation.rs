//! Redo of one page of a relation: its image, or the change of the record's resource manager.

use pg_quorum_types::{ForkNumber, RelFork};

use super::error::RedoFault;
use super::fields::Fields;
use super::page::PageLayout;
use super::{brin, btree, generic, gin, gist, hash, heap, heap2, sequence, spgist, visibility_map};
use crate::image::restore_image;
use crate::v15::kind;
use crate::{BlockRef, Page, Record, RedoContext, Rmgr};

/// Brings block `block` of `rel` from before `record` to after it.
pub(super) fn apply(
    record: &Record<'_>,
    rel: RelFork,
    block: u32,
    page: &mut Page,
    ctx: &RedoContext,
) -> Result<(), RedoFault> {
    match record.block_of(rel, block) {
        Some(reference) => apply_to_referenced(record, reference, page, ctx),
        None if rel.fork != ForkNumber::VisibilityMap => Err(RedoFault::UnrelatedPage),
        None if record.rmgr == Rmgr::Storage => truncate_map(record, rel, block, page),
        None => visibility_map::apply_implied_clears(record, rel, block, page),
    }
}

/// A page that the record names (`XLogReadBufferForRedoExtended`, xlogutils.c, 15.18).
fn apply_to_referenced(
    record: &Record<'_>,
    block: &BlockRef<'_>,
    page: &mut Page,
    ctx: &RedoContext,
) -> Result<(), RedoFault> {
    if let Some(image) = block.applied_image() {
        restore_image(image, page)?;
        // A page that was never initialised cannot bear an LSN.
        if !page.is_new() {
            page.set_lsn(record.end);
        }
        return match record.rmgr {
            // The one resource manager that changes a page after its image was restored.
            Rmgr::Gist => gist::redo_restored(record, block, page),
            _ => Ok(()),
        };
    }
    match record.rmgr {
        Rmgr::Heap => heap::redo(record, block, page),
        Rmgr::Heap2 => heap2::redo(record, block, page, ctx),
        Rmgr::Btree => btree::redo(record, block, page),
        Rmgr::Hash => hash::redo(record, block, page),
        Rmgr::Brin => brin::redo(record, block, page),
        Rmgr::Gin => gin::redo(record, block, page),
        Rmgr::Gist => gist::redo(record, block, page),
        Rmgr::SpGist => spgist::redo(record, block, page),
        Rmgr::Sequence => sequence::redo(record, page),
        Rmgr::Generic => generic::redo(record, block, page),
        // A hint bit's record may come without its image, when full-page writes are off.
        Rmgr::Xlog if record.kind() == kind::xlog::FPI_FOR_HINT && block.image.is_none() => Ok(()),
        Rmgr::Xlog => Err(RedoFault::Image("there is none to restore")),
        Rmgr::Transaction
        | Rmgr::Storage
        | Rmgr::Clog
        | Rmgr::Database
        | Rmgr::Tablespace
        | Rmgr::MultiXact
        | Rmgr::RelMap
        | Rmgr::Standby
        | Rmgr::CommitTs
        | Rmgr::ReplicationOrigin
        | Rmgr::LogicalMessage => Err(RedoFault::UnrelatedPage),
    }
}

/// `xl_smgr_truncate`: `smgr_redo` (storage.c, 15.18) on the last page that the map keeps.
fn truncate_map(record: &Record<'_>, map: RelFork, map_block: u32, page: &mut Page) -> Result<(), RedoFault> {
    const TRUNCATE_MAP: u32 = 0x0002;
    let mut fields = Fields::new(record.main);
    let heap_blocks = fields.u32()?;
    let rel = fields.rel_file_node()?;
    let flags = fields.u32()?;
    let is_last_page = rel == map.rel
        && flags & TRUNCATE_MAP != 0
        && visibility_map::page_with_tail_bits(heap_blocks) == Some(map_block);
    if record.kind() != kind::storage::TRUNCATE || !is_last_page {
        return Err(RedoFault::UnrelatedPage);
    }
    visibility_map::clear_tail_bits(heap_blocks, page);
    Ok(())
}
