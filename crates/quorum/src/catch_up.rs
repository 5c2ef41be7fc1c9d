//! Which part of a peer's log a segment may take over, and which part of its own it may hand out.
//!
//! ```text
//!  ours    ├─── epoch 1 ───┤ 2 ├── 3 …          common end: where the two histories part.
//!  theirs  ├─── epoch 1 ───┤ 2 ├── 4 …          Below it the bytes are the same on both.
//!                              ▲ common end
//! ```

use pg_quorum_types::{History, Lsn};

use crate::segment::SegmentMachine;
use crate::{Refusal, Refused};

/// What a segment tells its peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerReport {
    pub history: History,
    pub scl: Lsn,
    /// Under the last epoch of `history`.
    pub vdl: Lsn,
}

/// A range of log to be fetched: from one end of a record (inclusive) to another (exclusive).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PullRange {
    /// Of the log that is wanted.
    pub history: History,
    pub from: Lsn,
    pub until: Lsn,
}

impl SegmentMachine {
    /// What to tell the peers.
    pub fn peer_report(&self) -> PeerReport {
        PeerReport {
            history: self.meta().history.clone(),
            scl: self.scl(),
            vdl: self.vdl(),
        }
    }

    /// What `peer` has that belongs into this log and is missing here. During a Start: everything up to the
    /// epoch's start. Otherwise what is durable; the rest comes from the writer.
    pub fn wanted_from(&self, peer: &PeerReport) -> Option<PullRange> {
        let meta = self.meta();
        if self.is_frozen() || self.trouble().is_some() || meta.base.is_none() {
            return None;
        }
        let (history, bound) = match &meta.starting {
            Some(target) => (&target.history, target.start_lsn()),
            None => (&meta.history, peer.vdl),
        };
        let until = bound.min(peer.scl).min(history.common_end(&peer.history));
        (until > self.scl()).then(|| PullRange {
            history: history.clone(),
            from: self.scl(),
            until,
        })
    }

    /// How far this segment may hand out its log to a peer that wants `range`.
    ///
    /// # Errors
    /// The two logs part before the range begins, or it begins above the SCL.
    pub fn may_hand_out(&self, range: &PullRange) -> Result<Lsn, Box<Refused>> {
        let until = range
            .until
            .min(self.scl())
            .min(self.meta().history.common_end(&range.history));
        if range.from > until {
            return Err(Box::new(Refused::plain(
                Refusal::OutOfRange,
                format!("the log asked for from {} is held here up to {until}", range.from),
            )));
        }
        Ok(until)
    }
}
