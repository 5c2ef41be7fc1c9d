//! Reading pages: one segment at a time, the fastest one that can answer.
//!
//! A read needs no quorum: a segment answers only under the reader's own epoch, so whichever answers is
//! right. What is left is to ask the one that answers soonest: the one with the lowest observed latency; now
//! and then another one, so that the estimates stay true; a second one when the first takes longer than it
//! does nineteen times out of twenty; the next one on any error.
//!
//! Dropping the future of a read cancels it. A [`PageReader`] may be shared by many tasks.

mod choose;
mod latency;
mod questions;
mod read;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use pg_quorum_types::{Lsn, RelFork, SegmentMember};

use self::choose::Standing;
pub use self::read::PageError;
use self::stream::PageStream;
use crate::channel::Node;
use crate::{Attachment, ConfigError, LatencyStats, Timeouts, Transport};

/// What is asked for: blocks of one fork as of an LSN in `[not_modified_since, lsn]`.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    pub fork: RelFork,
    pub blocks: &'a [u32],
    pub lsn: Lsn,
    pub not_modified_since: Lsn,
    /// How long to go on asking one segment after the other.
    pub patience: Duration,
}

/// Which of the 128 blocks from `first_block` on no record has changed that ends above `since`, in a log up to `lsn` or
/// further.
#[derive(Clone, Copy, Debug)]
pub struct UnchangedRequest {
    pub fork: RelFork,
    pub first_block: u32,
    pub since: Lsn,
    pub lsn: Lsn,
    /// How long to go on asking one segment after the other.
    pub patience: Duration,
}

/// One page as storage has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageContent {
    /// Not known to storage, or never written: all zeros.
    Zeros,
    /// 8192 bytes.
    Bytes(Bytes),
}

/// The answer: a page for each block, in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pages {
    pub pages: Vec<PageContent>,
    /// The pages are of this LSN.
    pub lsn: Lsn,
}

/// One segment as the reader sees it.
#[derive(Clone, Debug)]
pub struct ReadStats {
    pub member: SegmentMember,
    /// Pages that it has answered with.
    pub pages: u64,
    pub requests: u64,
    /// Requests that were refused, failed, or answered with an error for a page.
    pub failures: u64,
    /// Requests that were sent because another segment was slow.
    pub hedges: u64,
    pub latency: LatencyStats,
    /// The last failure; empty without one.
    pub message: String,
}

/// Reads pages under one epoch.
pub struct PageReader {
    attachment: Arc<Attachment>,
    timeouts: Timeouts,
    segments: Vec<ReadSegment>,
}

struct ReadSegment {
    node: Node,
    stream: PageStream,
    standing: Mutex<Standing>,
}

impl PageReader {
    /// Nothing is connected before the first read. Must be called inside the tokio runtime that the reads
    /// run on.
    ///
    /// # Errors
    /// A member's address that is no address.
    pub fn new(attachment: Attachment, transport: &Transport) -> Result<PageReader, ConfigError> {
        let segments = attachment
            .membership
            .members
            .iter()
            .map(|member| {
                let node = Node::new(&member.address, transport)?;
                Ok(ReadSegment {
                    stream: PageStream::new(node.clone()),
                    node,
                    standing: Mutex::new(Standing::new()),
                })
            })
            .collect::<Result<Vec<_>, ConfigError>>()?;
        Ok(PageReader {
            attachment: Arc::new(attachment),
            timeouts: transport.timeouts,
            segments,
        })
    }

    /// Reads pages of one fork.
    ///
    /// # Errors
    /// When the patience is at its end, what each segment said.
    pub async fn get_pages(&self, request: PageRequest<'_>) -> Result<Pages, PageError> {
        read::read(self, request).await
    }

    /// Finds out which blocks are as they were: bit `n` is set for block `first_block + n` if so, and clear if not or if
    /// nothing is known of it.
    ///
    /// # Errors
    /// As for [`PageReader::get_pages`].
    pub async fn get_unchanged(&self, request: UnchangedRequest) -> Result<u128, PageError> {
        read::read(self, request).await
    }

    /// A snapshot for people: one entry for each member.
    pub fn stats(&self) -> Vec<ReadStats> {
        self.attachment
            .membership
            .members
            .iter()
            .zip(&self.segments)
            .map(|(member, segment)| segment.standing.lock().stats(member))
            .collect()
    }

    /// The segments in the order in which this request should try them.
    fn order(&self, blocks: usize, now: Instant) -> Vec<usize> {
        choose::order(
            self.segments
                .iter()
                .map(|segment| segment.standing.lock().rank(blocks, now)),
            rand::random(),
        )
    }
}
