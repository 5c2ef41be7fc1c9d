//! What a segment must never forget.

use pg_quorum_types::{
    Base, ClusterFacts, Epoch, History, Lsn, Membership, NodeName, Owner, ProtectionGroup, SegmentId,
    VolumeId,
};

/// The volume that a segment is a member of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    pub volume: VolumeId,
    pub protection_group: ProtectionGroup,
    /// Of the PostgreSQL cluster that the volume is for.
    pub system_identifier: u64,
    pub membership: Membership,
}

/// A base whose items are all synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompleteBase {
    pub base: Base,
    pub facts: ClusterFacts,
}

/// A Start that is accepted and not reached yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartTarget {
    /// Ends with the epoch and the LSN that it starts at. Never empty.
    pub history: History,
}

impl StartTarget {
    pub fn epoch(&self) -> Epoch {
        self.history.last().map_or(Epoch::NONE, |last| last.epoch)
    }

    pub fn start_lsn(&self) -> Lsn {
        self.history.last().map_or(Lsn::INVALID, |last| last.start_lsn)
    }
}

/// Whose epoch was started here last: that owner really held the volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    pub epoch: Epoch,
    pub owner: Owner,
}

/// A segment's persisted metadata. The stored form is described in `meta_format`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentMeta {
    /// The node whose directory this is: another node refuses it.
    pub node: NodeName,
    /// Drawn when the directory was formatted: a directory that was lost never answers under its old name.
    pub segment: SegmentId,
    pub assignment: Option<Assignment>,
    /// The highest epoch that was ever promised.
    pub promised: Epoch,
    /// Whoever that is promised to.
    pub owner: Option<Owner>,
    pub holder: Option<Holder>,
    /// The epochs of the log up to its SCL. A record counts only if its epoch is the one given here: that is
    /// how a cut is expressed, no byte of the log is changed for it.
    pub history: History,
    pub starting: Option<StartTarget>,
    pub base: Option<CompleteBase>,
    /// The SCL when this was written. A log that is found to end below it is damaged.
    pub scl: Lsn,
    /// The highest VDL known under `history` when this was written.
    pub vdl: Lsn,
    /// How often a Start cut this log, and how many bytes of it.
    pub tail_cuts: u64,
    pub cut_bytes: u64,
}

impl SegmentMeta {
    /// A directory that was just formatted.
    pub fn formatted(node: NodeName, segment: SegmentId) -> SegmentMeta {
        SegmentMeta {
            node,
            segment,
            assignment: None,
            promised: Epoch::NONE,
            owner: None,
            holder: None,
            history: History::default(),
            starting: None,
            base: None,
            scl: Lsn::INVALID,
            vdl: Lsn::INVALID,
            tail_cuts: 0,
            cut_bytes: 0,
        }
    }

    /// The epoch whose Start was reached last: the history's last one.
    pub fn started(&self) -> Epoch {
        self.history.last().map_or(Epoch::NONE, |last| last.epoch)
    }
}
