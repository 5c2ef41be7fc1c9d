//! Where in a free space map a heap block is (freespace.c, fsmpage.c; 15.18).

use pg_quorum_types::BLOCK_SIZE;

/// `SlotsPerFSMPage`: heap blocks of a page of the lowest level, and children of one above it. The nodes of a page
/// (`NodesPerPage`) stand behind the page's header and `fp_next_slot`; those that are no leaves are one less than half a
/// page.
const SLOTS_PER_PAGE: u32 = (BLOCK_SIZE - 24 - 4 - (BLOCK_SIZE / 2 - 1)) as u32;
const _: () = assert!(SLOTS_PER_PAGE == 4069);

/// `FSM_TREE_DEPTH`.
const LEVELS: u32 = 3;

/// `FreeSpaceMapPrepareTruncateRel`: the most blocks that a heap of so many blocks leaves its map. Slots of heap blocks
/// that are gone stay on the map's last page: it is a hint, and a server looks whether a block exists before it takes it
/// (`fsm_does_block_exist`).
pub(super) fn blocks_of_map(heap_blocks: u32) -> u32 {
    let page = block_of_leaf(heap_blocks / SLOTS_PER_PAGE);
    page + u32::from(!heap_blocks.is_multiple_of(SLOTS_PER_PAGE))
}

/// `fsm_logical_to_physical` for the lowest level: each page stands before its first child.
fn block_of_leaf(leaf: u32) -> u32 {
    let pages_up_to_it = |level| leaf / SLOTS_PER_PAGE.pow(level) + 1;
    (0..LEVELS).map(pages_up_to_it).sum::<u32>() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_keeps_the_pages_that_its_heap_needs_and_those_above_them() {
        // The two upper pages stay, as those of an empty heap's map do.
        assert_eq!(blocks_of_map(0), 2);
        assert_eq!(blocks_of_map(1), 3);
        assert_eq!(blocks_of_map(SLOTS_PER_PAGE), 3);
        assert_eq!(blocks_of_map(SLOTS_PER_PAGE + 1), 4);
        // The first heap block behind the children of one page of the middle level: another such page comes before it.
        let middle = SLOTS_PER_PAGE * SLOTS_PER_PAGE;
        assert_eq!(blocks_of_map(middle), 2 + SLOTS_PER_PAGE + 1);
        assert_eq!(blocks_of_map(middle + 1), 2 + SLOTS_PER_PAGE + 2);
        assert!(blocks_of_map(u32::MAX) > u32::MAX / SLOTS_PER_PAGE);
    }
}
