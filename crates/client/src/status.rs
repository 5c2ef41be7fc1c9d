//! What a node says about itself.

use std::time::Duration;

use pg_quorum_proto::convert::{history_from_wire, optional_epoch, uuid_from_wire};
use pg_quorum_proto::{WireError, v1};
use pg_quorum_quorum::segment::SegmentState;
use pg_quorum_types::{
    AzName, Base, ClusterFacts, Epoch, History, Lsn, Membership, NodeName, Owner, SegmentId, VolumeId,
};

/// A node's answer to Status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    pub node: NodeName,
    pub az: AzName,
    /// Drawn when the directory was formatted.
    pub segment: SegmentId,
    /// `None` while no volume has named the segment.
    pub volume: Option<VolumeId>,
    pub state: SegmentState,
    /// Why it is in that state, for a person.
    pub message: String,
    pub membership: Option<Membership>,
    pub facts: Option<ClusterFacts>,
    pub base: Option<Base>,
    pub promised: Epoch,
    pub started: Epoch,
    /// Whoever the promised epoch belongs to.
    pub owner: Option<Owner>,
    pub lease_remaining: Duration,
    pub history: History,
    pub scl: Lsn,
    pub vdl: Lsn,
    /// Pages can be served up to here.
    pub indexed_lsn: Lsn,
    /// Derived state is persisted up to here.
    pub applied_lsn: Lsn,
    pub floor_lsn: Lsn,
    pub counters: NodeCounters,
}

/// What a node has counted since it started, and what it holds on disk.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NodeCounters {
    pub log_bytes: u64,
    pub page_store_bytes: u64,
    pub pages_served: u64,
    /// Pages that the node cannot build and refuses.
    pub pages_unbuildable: u64,
    /// Pages that a peer's copy has replaced.
    pub pages_mended: u64,
    pub records_received: u64,
    pub syncs: u64,
    pub tail_cuts: u64,
    pub cut_bytes: u64,
}

impl TryFrom<v1::StatusReply> for NodeStatus {
    type Error = WireError;

    fn try_from(wire: v1::StatusReply) -> Result<NodeStatus, WireError> {
        Ok(NodeStatus {
            state: state(&wire)?,
            segment: SegmentId(uuid_from_wire(&wire.segment, "the segment")?),
            volume: match wire.volume.is_empty() {
                true => None,
                false => Some(VolumeId(uuid_from_wire(&wire.volume, "the volume")?)),
            },
            membership: wire.membership.map(Membership::try_from).transpose()?,
            facts: wire.facts.map(ClusterFacts::try_from).transpose()?,
            base: wire.base.map(Base::try_from).transpose()?,
            promised: optional_epoch(wire.promised)?,
            started: optional_epoch(wire.started)?,
            owner: wire.owner.map(Owner::try_from).transpose()?,
            history: history_from_wire(wire.history)?,
            node: NodeName(wire.node),
            az: AzName(wire.az),
            message: wire.message,
            lease_remaining: Duration::from_millis(wire.lease_remaining_ms),
            scl: Lsn(wire.scl),
            vdl: Lsn(wire.vdl),
            indexed_lsn: Lsn(wire.indexed_lsn),
            applied_lsn: Lsn(wire.applied_lsn),
            floor_lsn: Lsn(wire.floor_lsn),
            counters: NodeCounters {
                log_bytes: wire.log_bytes,
                page_store_bytes: wire.page_store_bytes,
                pages_served: wire.pages_served,
                pages_unbuildable: wire.pages_unbuildable,
                pages_mended: wire.pages_mended,
                records_received: wire.records_received,
                syncs: wire.syncs,
                tail_cuts: wire.tail_cuts,
                cut_bytes: wire.cut_bytes,
            },
        })
    }
}

fn state(wire: &v1::StatusReply) -> Result<SegmentState, WireError> {
    let unknown = WireError::OutOfRange {
        what: "the segment's state",
        value: u64::from(wire.state.unsigned_abs()),
    };
    Ok(
        match v1::SegmentState::try_from(wire.state).map_err(|_| unknown)? {
            v1::SegmentState::Unspecified => return Err(WireError::Missing("the segment's state")),
            v1::SegmentState::Unassigned => SegmentState::Unassigned,
            v1::SegmentState::Importing => SegmentState::Importing,
            v1::SegmentState::Promised => SegmentState::Promised,
            v1::SegmentState::Active => SegmentState::Active,
            v1::SegmentState::ReadOnly => SegmentState::ReadOnly,
            v1::SegmentState::Damaged => SegmentState::Damaged,
        },
    )
}
