//! Why a segment says no, and to which request.

use std::fmt;
use std::time::Duration;

use pg_quorum_types::{Epoch, Owner, ProtectionGroup, SegmentId, VolumeId};

/// What every request says about its sender and about the segment that it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestContext {
    pub volume: VolumeId,
    pub protection_group: ProtectionGroup,
    /// The requester's epoch, [`Epoch::NONE`] where none is needed.
    pub epoch: Epoch,
    pub membership_version: u64,
    /// The segment that is meant.
    pub segment: SegmentId,
}

/// What the requester may conclude. A refused request has not happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// A higher epoch (or the same number, another writer's) is promised: ask again for a higher one.
    LowerEpoch,
    /// Another owner's lease has not ended: ask again when it has.
    OwnerAlive,
    /// The asking owner held the volume and another one has taken it since. Final without force.
    Superseded,
    /// The node does not keep the segment that is meant. Final.
    NotMember,
    /// The membership is another one than the requester's.
    Membership,
    /// The segment is damaged and does not vote.
    Damaged,
    /// The epoch is not promised here, or promised and not started.
    NotStarted,
    /// This epoch began here with another Start. Final.
    OtherStart,
    /// The disk is full: ask again.
    NoSpace,
    /// The position is not held, not any more or not yet.
    OutOfRange,
}

/// A refusal with what the requester needs to act on it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Refused {
    pub reason: Refusal,
    /// For a person.
    pub message: String,
    /// The highest epoch that the segment has promised.
    pub promised: Epoch,
    /// Whoever it is promised to.
    pub owner: Option<Owner>,
    /// How long that owner's lease still lasts.
    pub lease_remaining: Duration,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refused {
    /// A refusal that has nothing to do with epochs.
    pub fn plain(reason: Refusal, message: impl Into<String>) -> Refused {
        Refused {
            reason,
            message: message.into(),
            promised: Epoch::NONE,
            owner: None,
            lease_remaining: Duration::ZERO,
        }
    }
}
