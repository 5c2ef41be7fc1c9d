//! Which pages have not been changed behind an LSN: what a compute that keeps pages of before asks.
//!
//! The answer errs on one side only. A page is unchanged if its newest version is known and ends at or below the LSN, and
//! nothing behind the LSN hides it; one of which nothing is known may have been anything before it was truncated away.

use pg_quorum_types::{Lsn, PageKey, RelFork};

use super::cleanup::fork_pages;
use super::engine::Engine;
use super::error::DerivedError;
use super::meta_key::MetaRange;
use super::store::Space;

/// Blocks of one answer: one bit each.
pub const BLOCKS: u32 = u128::BITS;

/// What the memory says of a page.
struct InMemory {
    /// The last record that changes it.
    last_change: Option<Lsn>,
    hidden_below: Lsn,
}

/// The blocks from `first_block` on, at most [`BLOCKS`] of them, that no record has changed that ends above `since`: bit
/// `n` for block `first_block + n`. Of the log up to what is indexed, which must have reached `at`.
///
/// # Errors
/// `at` is not indexed; the store fails.
pub fn unchanged(
    engine: &Engine,
    fork: RelFork,
    first_block: u32,
    since: Lsn,
    at: Lsn,
) -> Result<u128, DerivedError> {
    let end_block = first_block.saturating_add(BLOCKS);
    let (in_memory, view) = {
        let state = engine.state.read();
        if at > state.indexed {
            return Err(engine.not_indexed(at, state.indexed));
        }
        let look = |block| {
            let key = PageKey::Relation { rel: fork, block };
            InMemory {
                last_change: state.index.last_change(&key),
                hidden_below: state.resets.hidden_page(&key, state.indexed),
            }
        };
        let in_memory: Vec<InMemory> = (first_block..end_block).map(look).collect();
        (in_memory, engine.store.view())
    };
    let mut newest: Vec<Option<Lsn>> = in_memory.iter().map(|page| page.last_change).collect();
    let range = range(fork, first_block, end_block);
    for version in view.versions(Space::Pages, &range.from, &range.to) {
        let version = version?;
        let key = version.key[..].try_into().ok().and_then(PageKey::from_bytes);
        let Some(PageKey::Relation { block, .. }) = key else {
            return Err(DerivedError::Damaged("the key of a page".to_owned()));
        };
        let newest = &mut newest[(block - first_block) as usize];
        *newest = (*newest).max(Some(version.lsn));
    }
    let is_unchanged = |(page, newest): (&InMemory, Option<Lsn>)| {
        newest.is_some_and(|newest| page.hidden_below <= newest && newest <= since)
    };
    let bits = in_memory.iter().zip(newest).map(is_unchanged);
    Ok((0..).zip(bits).fold(0, |all, (number, is_unchanged)| {
        all | u128::from(is_unchanged) << number
    }))
}

/// Stored keys of the blocks.
fn range(fork: RelFork, first_block: u32, end_block: u32) -> MetaRange {
    MetaRange {
        from: fork_pages(fork, first_block).from,
        to: fork_pages(fork, end_block).from,
    }
}
