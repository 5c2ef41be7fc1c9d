//! Which fetched pages are kept once the cache is full.
//!
//! Room is dear: a chunk that is dropped gives up what a hundred misses have brought, most of it to be fetched again, and the
//! file system frees its blocks extent by extent. While all that is in the cache is in use, exchanging one page for another
//! gains nothing on average. So then only one in [`KEPT_ONE_IN`] fetched pages is kept, whatever it is: a page that is read
//! often gets in soon all the same, one that is read once hardly ever does, and there is an eighth of the drops. (Caches call it
//! probabilistic admission, or q-LRU; the lower the probability, the nearer it comes to keeping what is read most often.)

use super::BLOCKS_PER_CHUNK;
use super::evict::oldest;
use super::surroundings::Tick;
use super::table::ChunkTable;

/// Of the misses that find the cache full of what is in use, one in so many is kept; a power of two.
const KEPT_ONE_IN: u32 = 8;
/// A chunk that was not touched for so long is not in use any more: what comes takes its place at once.
const IN_USE_FOR: u32 = 5 * Tick::PER_SECOND;
/// The cache counts as full when it is no further from its limit than a few drops have taken it, and when this part of it
/// is free at most.
const FULL_WITHIN: u64 = 4 * BLOCKS_PER_CHUNK as u64;
const FULL_WITHIN_DIVISOR: u64 = 16;

/// Whether a page that was fetched for a lookup is to be kept: there is room, or something that is not in use any more
/// can go for it, or it is its turn.
pub fn is_worth_keeping(table: ChunkTable, limit: u64, now: Tick) -> bool {
    let margin = FULL_WITHIN.min(limit / FULL_WITHIN_DIVISOR);
    if table.cached_pages() + margin < limit {
        return true;
    }
    is_its_turn(table.count_miss_when_full())
        || oldest(table, now).is_some_and(|oldest| now.since(oldest.touched) >= IN_USE_FOR)
}

/// Steps of the golden ratio do not fall into step with a workload that misses here and there in turn.
fn is_its_turn(miss: u32) -> bool {
    const GOLDEN_STEP: u32 = 0x9E37_79B9;
    const _: () = assert!(KEPT_ONE_IN.is_power_of_two());
    miss.wrapping_mul(GOLDEN_STEP) >> (u32::BITS - KEPT_ONE_IN.ilog2()) == 0
}

#[cfg(test)]
mod tests {
    use super::super::ChunkKey;
    use super::super::table::tests::{fork, table};
    use super::*;

    const NOW: Tick = Tick(10_000);

    /// A table of two pages, touched at `touched`.
    fn in_use(touched: Tick) -> ChunkTable {
        let table = table(16, 100);
        for rel in [1, 2] {
            let held = table.hold(ChunkKey::of(fork(rel), 7)).unwrap();
            held.set_present(7);
            held.touch(touched);
        }
        table
    }

    #[test]
    fn everything_is_kept_while_there_is_room() {
        let table = in_use(NOW);
        assert!((0..100).all(|_| is_worth_keeping(table, 3, NOW)));
    }

    #[test]
    fn one_in_a_few_is_kept_when_the_cache_is_full_of_what_is_in_use() {
        let table = in_use(NOW);
        let kept = |misses: u32| (0..misses).filter(|_| is_worth_keeping(table, 2, NOW)).count();
        let kept = kept(8000);
        assert!((990..1010).contains(&kept), "{kept} of 8000");
    }

    /// Every lookup misses a page of the index and one of the table.
    #[test]
    fn turns_do_not_fall_into_step_with_what_is_missed_in_turn() {
        for period in 2..=16 {
            for place in 0..period {
                let kept = (0..8000)
                    .filter(|miss| is_its_turn(miss * period + place))
                    .count();
                assert!(
                    (900..1100).contains(&kept),
                    "{kept} of 8000 at {place} of {period}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_in_use_any_more_makes_room_at_once() {
        let table = in_use(Tick(NOW.0 - IN_USE_FOR));
        assert!((0..100).all(|_| is_worth_keeping(table, 2, NOW)));
    }
}
