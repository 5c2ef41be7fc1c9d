//! Creation and truncation of relation files.

use pg_quorum_types::{ForkNumber, PageKey, RelFork};

use crate::redo::visibility_map::{HEAP_BLOCKS_PER_PAGE, page_with_tail_bits};
use crate::v15::kind::storage as kind;
use crate::{Record, WalError};

use super::{Effects, MetaChange, PageEffect, free_space, unknown};

/// `SMGR_TRUNCATE_HEAP`.
const TRUNCATE_HEAP: i32 = 0x0001;
/// `SMGR_TRUNCATE_VM`.
const TRUNCATE_VISIBILITY_MAP: i32 = 0x0002;
/// `SMGR_TRUNCATE_FSM`.
const TRUNCATE_FREE_SPACE_MAP: i32 = 0x0004;

/// `smgr_redo`, 15.18.
pub(super) fn add(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    match record.kind() {
        kind::CREATE => add_creation(record, effects),
        kind::TRUNCATE => add_truncation(record, effects),
        _ => Err(unknown(record)),
    }
}

/// `xl_smgr_create`: rnode | forkNum i32.
fn add_creation(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    let mut reader = record.main_reader();
    let rel = reader.rel_file_node()?;
    let number = reader.i32()?;
    let fork = u8::try_from(number)
        .ok()
        .and_then(ForkNumber::from_number)
        .ok_or_else(|| reader.bad("a fork that does not exist"))?;
    effects.meta.push(MetaChange::RelationCreated {
        fork: RelFork { rel, fork },
    });
    Ok(())
}

/// `xl_smgr_truncate`: blkno u32 | rnode | flags i32. `smgr_redo` makes the main fork first if it is missing:
/// because the relation is dropped later in the log. Here nothing is replayed over a later state.
fn add_truncation(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    let mut reader = record.main_reader();
    let blocks = reader.u32()?;
    let rel = reader.rel_file_node()?;
    let flags = reader.i32()?;
    let mut truncated = |fork, blocks| {
        let fork = RelFork { rel, fork };
        effects.meta.push(MetaChange::RelationTruncated { fork, blocks });
    };
    if flags & TRUNCATE_HEAP != 0 {
        truncated(ForkNumber::Main, blocks);
    }
    if flags & TRUNCATE_FREE_SPACE_MAP != 0 {
        truncated(ForkNumber::FreeSpaceMap, free_space::blocks_of_map(blocks));
    }
    if flags & TRUNCATE_VISIBILITY_MAP != 0 {
        let fork = ForkNumber::VisibilityMap;
        add_map_truncation(RelFork { rel, fork }, blocks, effects);
    }
    Ok(())
}

/// `visibilitymap_prepare_truncate`: the last page that stays loses the bits of heap blocks that go. A map
/// that does not exist, or ends before that page, is left as it is.
fn add_map_truncation(map: RelFork, heap_blocks: u32, effects: &mut Effects) {
    let whole_pages = heap_blocks / HEAP_BLOCKS_PER_PAGE;
    let tail = page_with_tail_bits(heap_blocks);
    effects.meta.push(MetaChange::RelationTruncated {
        fork: map,
        blocks: whole_pages + u32::from(tail.is_some()),
    });
    if let Some(block) = tail {
        effects.pages.push(PageEffect {
            key: PageKey::Relation { rel: map, block },
            full: false,
            extends: false,
        });
    }
}
