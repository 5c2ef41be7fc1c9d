//! What a writer holds once it has taken a volume.

use pg_quorum_quorum::{QuorumSet, RequestContext};
use pg_quorum_types::{
    Base, ClusterFacts, Epoch, History, Lsn, Membership, Owner, ProtectionGroup, SegmentId, VolumeId,
};
use serde::{Deserialize, Serialize};

/// An epoch that a write quorum has promised and started: all that is needed to append and to read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attachment {
    pub volume: VolumeId,
    /// With the addresses at which the nodes answered.
    pub membership: Membership,
    pub epoch: Epoch,
    /// Ends with (`epoch`, where it started).
    pub history: History,
    pub facts: ClusterFacts,
    pub base: Base,
    /// Durable under this epoch; its start to begin with.
    pub vdl: Lsn,
    /// Whoever the epoch was promised to.
    pub owner: Owner,
}

impl Attachment {
    /// Where the epoch starts, and the log of the ones before it ends.
    pub fn start_lsn(&self) -> Lsn {
        self.history.last().map_or(self.base.lsn, |entry| entry.start_lsn)
    }

    pub fn quorum(&self) -> QuorumSet {
        QuorumSet::of(&self.membership)
    }

    /// What a request to `segment` begins with.
    pub fn context(&self, segment: SegmentId) -> RequestContext {
        RequestContext {
            volume: self.volume,
            protection_group: ProtectionGroup(0),
            epoch: self.epoch,
            membership_version: self.membership.version,
            segment,
        }
    }
}
