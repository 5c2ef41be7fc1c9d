//! The pages that a record names.

use pg_quorum_types::ForkNumber;

use crate::Record;

use super::{Effects, PageEffect};

/// Every block reference is a page that may change, whoever replays it. The free space map is left out.
pub(super) fn add_referenced_blocks(record: &Record, effects: &mut Effects) {
    for block in &record.blocks {
        if block.rel.fork == ForkNumber::FreeSpaceMap {
            continue;
        }
        effects.pages.push(PageEffect {
            key: block.key(),
            full: block.is_full(),
            extends: true,
        });
    }
}
