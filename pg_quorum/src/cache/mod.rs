//! The local page cache: which blocks of the md files in PGDATA hold their pages.
//!
//! The md files are sparse and have the right length; a block that nobody has put there since the attach is
//! *absent* and comes from storage. Presence is kept by chunk (128 blocks, 1 MiB) in a table that all
//! processes share.
//!
//! **One chunk, one protocol.** Local file I/O on a chunk happens under a *hold* on its entry:
//!
//! ```text
//!   shared hold      read, write, extend through md.c; sets bits of blocks that were written
//!   exclusive hold   installs fetched pages; clears bits (truncate, unlink, database-level operations)
//!   no hold          waiting for storage: nothing that a truncation in a critical section could wait for
//! ```
//!
//! Whatever clears bits raises the entry's generation. A fetched page is installed only if the generation is
//! the one that was seen before the request and the block's bit is still clear: so a late answer never
//! overwrites a newer page, nor lengthens a truncated file. Holds last for local file I/O only and are
//! released by an ERROR (guards) and by a process's exit ([`release_at_exit`]).
//!
//! **The cache has a limit.** A chunk that has not been used for long is dropped: under an exclusive hold, taken only if
//! nobody else has one, its bits are cleared and its blocks' disk space is given back ([`make_room`]). What may not be
//! dropped is judged when a page is written ([`Written`]). The entry remembers the insert LSN of the drop: the blocks
//! are asked for as of that LSN or later. Once the cache is full of what is in use, a page that a lookup has fetched is
//! used without being kept, but for one in a few ([`is_worth_keeping`]).
//!
//! **A crash leaves most of it.** What the server has left in the md files is *kept*: a chunk's kept blocks become present
//! when a segment has said that the log has not changed them since the last checkpoint (module `kept` has the proof).
//!
//! What this module does not know: PostgreSQL's functions and file descriptors (`pg::smgr` has them), and
//! where pages come from (`shared::Ticket`).

mod admit;
mod entry;
mod evict;
mod kept;
mod pinned;
mod scans;
mod surroundings;
mod table;

use pg_quorum_types::RelFork;

pub use admit::is_worth_keeping;
pub use entry::ChunkEntry;
pub use evict::{drop_all, make_room};
pub use kept::{Crash, Kept};
pub use pinned::{SEQUENCE_MAGIC, SEQUENCE_SPECIAL_BYTES, Written};
pub use scans::Scans;
pub use surroundings::{Ended, Running, Surroundings, Tick};
pub use table::{ChunkTable, Header, Held, Parts, Seen, Usage, release_at_exit};

/// Blocks of a chunk: 1 MiB of pages.
pub const BLOCKS_PER_CHUNK: u32 = 128;

/// A chunk's name: a fork, and which 128 blocks of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkKey {
    pub fork: RelFork,
    pub chunk: u32,
}

impl ChunkKey {
    /// The chunk that holds `block`.
    pub fn of(fork: RelFork, block: u32) -> ChunkKey {
        ChunkKey {
            fork,
            chunk: block / BLOCKS_PER_CHUNK,
        }
    }

    /// The first block behind the chunk; saturates at the largest block number.
    pub fn end_block(self) -> u32 {
        (self.chunk + 1).saturating_mul(BLOCKS_PER_CHUNK)
    }
}
