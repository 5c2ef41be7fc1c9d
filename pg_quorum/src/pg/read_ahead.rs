//! Requests for pages that this process has begun before it needs them: ahead of scans, and on the advice of
//! `smgr_prefetch`.
//!
//! A request is of blocks of one chunk, and carries what the chunk looked like when it was begun: when the pages come,
//! they are installed only if that is still so. Nothing waits here and nothing is installed here; that is done by the
//! read that needs a block, which takes the request over. What nobody has needed by the end of the transaction, or of
//! the process, is given up.

use std::cell::RefCell;
use std::ops::Range;

use pg_quorum_types::{Lsn, RelFork};

use super::presence_file::table;
use super::wal;
use crate::cache::{ChunkKey, Held, Scans, Seen};
use crate::shared::{self, MAX_BLOCKS_PER_REQUEST, Ticket};

/// Absent blocks of one chunk: what one request asks for. At least one.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    list: [u32; MAX_BLOCKS_PER_REQUEST],
    count: usize,
}

impl Blocks {
    pub fn one(block: u32) -> Blocks {
        Blocks {
            list: [block; MAX_BLOCKS_PER_REQUEST],
            count: 1,
        }
    }

    /// `block` and the absent ones that follow it without a gap, before `end` and in its chunk.
    pub fn absent_from(held: &Held, block: u32, end: u32) -> Blocks {
        let mut blocks = Blocks::one(block);
        let end = end.min(held.key().end_block());
        for next in block + 1..end {
            if blocks.is_full() || held.is_in_file(next) {
                break;
            }
            blocks.push(next);
        }
        blocks
    }

    pub fn as_slice(&self) -> &[u32] {
        &self.list[..self.count]
    }

    /// From the first to behind the last; of blocks in ascending order.
    fn range(&self) -> Range<u32> {
        self.list[0]..self.list[self.count - 1] + 1
    }

    fn is_full(&self) -> bool {
        self.count == MAX_BLOCKS_PER_REQUEST
    }

    fn push(&mut self, block: u32) {
        self.list[self.count] = block;
        self.count += 1;
    }
}

/// What is asked for, and as of when.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub fork: RelFork,
    pub blocks: Blocks,
    /// They were not changed behind it. Invalid: they have not been here since the attach.
    pub dropped_at: Lsn,
    pub seen: Seen,
}

impl Wanted {
    /// Ends the hold on the blocks' chunk.
    pub fn new(fork: RelFork, blocks: Blocks, held: Held) -> Wanted {
        Wanted {
            fork,
            blocks,
            dropped_at: held.not_modified_since(),
            seen: held.leave(),
        }
    }

    /// Without the blocks behind the fork's end; the first one is before it.
    pub fn before(mut self, nblocks: u32) -> Wanted {
        let inside = self
            .blocks
            .as_slice()
            .iter()
            .take_while(|block| **block < nblocks);
        self.blocks.count = inside.count().max(1);
        self
    }

    /// What to tell storage. Storage waits for the log up to there, so this sees to it that it has been written.
    pub fn not_modified_since(&self) -> Lsn {
        wal::ensure_written(self.dropped_at);
        self.dropped_at.max(shared::state().read_floor())
    }

    fn has(&self, fork: RelFork, block: u32) -> bool {
        self.fork == fork && self.blocks.as_slice().contains(&block)
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct InFlight {
    pub wanted: Wanted,
    pub ticket: Ticket,
    /// [`Ahead::misses`] then.
    begun: u64,
}

#[derive(Debug, Default)]
struct Ahead {
    scans: Scans,
    /// In the order in which they were begun.
    in_flight: Vec<InFlight>,
    /// Advised blocks of one chunk that have not been asked for: there may be more of them at once.
    gathered: Option<Wanted>,
    misses: u64,
    /// What was read last and found.
    last_hit: Option<(RelFork, u32)>,
}

/// Misses of the process until a page that it has asked for is not worth its place any more.
const STALE_AFTER_MISSES: u64 = 64;

impl Ahead {
    /// What is under way, and what is about to be.
    fn wanted(&self) -> impl Iterator<Item = &Wanted> {
        let in_flight = self.in_flight.iter().map(|request| &request.wanted);
        in_flight.chain(&self.gathered)
    }

    fn has(&self, fork: RelFork, block: u32) -> bool {
        self.wanted().any(|wanted| wanted.has(fork, block))
    }

    /// Lets go of answers that nobody has wanted for long: others have brought the pages, or a scan has ended early.
    fn give_up_stale(&mut self) {
        let misses = self.misses;
        self.in_flight
            .retain(|request| misses - request.begun < STALE_AFTER_MISSES || !request.ticket.is_answered());
    }
}

thread_local! {
    static AHEAD: RefCell<Ahead> = RefCell::default();
}

/// Whether a miss of `block` goes on with a scan: with one that misses, or with one that has come to the end of what is
/// present. That the block before it is present says nothing, lookups find it so in a cache of a part of the data.
pub fn is_scan(fork: RelFork, block: u32) -> bool {
    let previous = block.checked_sub(1).map(|previous| (fork, previous));
    AHEAD.with_borrow(|ahead| {
        ahead.scans.expect(fork, block) || (previous.is_some() && ahead.last_hit == previous)
    })
}

/// A read has found `block`.
pub fn after_hit(fork: RelFork, block: u32) {
    AHEAD.with_borrow_mut(|ahead| ahead.last_hit = Some((fork, block)));
}

/// The request that brings `block`, which is the caller's from now on.
pub fn take(fork: RelFork, block: u32) -> Option<InFlight> {
    AHEAD.with_borrow_mut(|ahead| {
        let index = ahead
            .in_flight
            .iter()
            .position(|request| request.wanted.has(fork, block))?;
        Some(ahead.in_flight.remove(index))
    })
}

/// The caller is about to wait for `blocks`, the first of which it needs: asks for more if that is a scan. `nblocks`
/// says how many blocks the fork has; it is asked after the chunk was looked at, so that a truncation in between
/// raises the generation that the answer is checked against.
pub fn after_miss(fork: RelFork, block: u32, blocks: &Blocks, nblocks: impl Fn() -> u32) {
    let brought = block..blocks.range().end.max(block + 1);
    let ahead = AHEAD.with_borrow_mut(|ahead| {
        ahead.misses += 1;
        ahead.scans.on_miss(fork, brought)
    });
    let mut next = ahead.start;
    let end = if ahead.is_empty() {
        0
    } else {
        ahead.end.min(nblocks())
    };
    while next < end {
        let Ok(held) = table().hold(ChunkKey::of(fork, next)) else {
            return;
        };
        let is_known = held.is_in_file(next) || AHEAD.with_borrow(|ahead| ahead.has(fork, next));
        if is_known {
            next += 1;
            continue;
        }
        let blocks = Blocks::absent_from(&held, next, end);
        let wanted = Wanted::new(fork, blocks, held);
        let nblocks = nblocks();
        if next >= nblocks {
            return;
        }
        let wanted = wanted.before(nblocks);
        if !begin(wanted) {
            AHEAD.with_borrow_mut(|ahead| ahead.scans.stopped_at(fork, next));
            return;
        }
        let count = wanted.blocks.as_slice().len() as u64;
        shared::add(&shared::state().counters.pages_read_ahead, count);
        next = wanted.blocks.range().end;
    }
}

/// Begins a request. False: this process has as many as it may have.
fn begin(wanted: Wanted) -> bool {
    let not_modified_since = wanted.not_modified_since();
    AHEAD.with_borrow_mut(|ahead| {
        ahead.give_up_stale();
        let ticket = Ticket::begin_ahead(
            wanted.fork,
            wanted.blocks.as_slice(),
            not_modified_since,
            ahead.in_flight.len(),
        );
        let Some(ticket) = ticket else { return false };
        let begun = ahead.misses;
        ahead.in_flight.push(InFlight {
            wanted,
            ticket,
            begun,
        });
        true
    })
}

/// Whether blocks of the fork are being asked for.
pub fn is_under_way(fork: RelFork) -> bool {
    AHEAD.with_borrow(|ahead| ahead.wanted().any(|wanted| wanted.fork == fork))
}

/// `block`, which is absent, will be needed soon. It is asked for together with others of its chunk, when it is read
/// at the latest; not if the fork, which has `nblocks` blocks, ends before it.
pub fn advise(fork: RelFork, block: u32, nblocks: impl Fn() -> u32) {
    if AHEAD.with_borrow(|ahead| ahead.has(fork, block)) {
        return;
    }
    let key = ChunkKey::of(fork, block);
    let Ok(held) = table().hold(key) else { return };
    if held.is_in_file(block) {
        return;
    }
    let wanted = Wanted::new(fork, Blocks::one(block), held);
    if block >= nblocks() {
        return;
    }
    let joined = AHEAD.with_borrow_mut(|ahead| {
        let gathered = ahead.gathered.as_mut().filter(|gathered| {
            // Another generation has another `dropped_at`.
            gathered.seen == wanted.seen && gathered.dropped_at == wanted.dropped_at
        });
        gathered.is_some_and(|gathered| {
            gathered.blocks.push(block);
            true
        })
    });
    if !joined {
        send_gathered();
        AHEAD.with_borrow_mut(|ahead| ahead.gathered = Some(wanted));
    } else if AHEAD.with_borrow(|ahead| ahead.gathered.is_some_and(|gathered| gathered.blocks.is_full())) {
        send_gathered();
    }
}

/// A read of `block` begins. Asks for the blocks that were advised if it is one of them, or if they are as many as
/// requests are under way: few at a time while there is nothing to wait for, more together when there is.
pub fn before_read(fork: RelFork, block: u32) {
    let is_due = AHEAD.with_borrow(|ahead| {
        let is_due = |wanted: &Wanted| {
            wanted.has(fork, block) || wanted.blocks.as_slice().len() >= ahead.in_flight.len()
        };
        ahead.gathered.as_ref().is_some_and(is_due)
    });
    if is_due {
        send_gathered();
    }
}

/// Asks for the blocks that were advised. Without a slot they are forgotten.
fn send_gathered() {
    let gathered = AHEAD.with_borrow_mut(|ahead| ahead.gathered.take());
    let Some(wanted) = gathered else { return };
    if begin(wanted) {
        let count = wanted.blocks.as_slice().len() as u64;
        shared::add(&shared::state().counters.pages_prefetched, count);
    }
}

/// Nobody needs any of it any more: at the end of a transaction and of the process.
pub fn give_up() {
    AHEAD.with_borrow_mut(|ahead| *ahead = Ahead::default());
}
