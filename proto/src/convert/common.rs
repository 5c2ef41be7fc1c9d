//! `common.proto`.

use bytes::Bytes;
use pg_quorum_quorum::RequestContext;
use pg_quorum_types::{
    AzName, Base, ClusterFacts, ComputeId, Epoch, ForkNumber, History, HistoryEntry, Lsn, Membership,
    NodeName, Owner, ProtectionGroup, RelFileNode, RelFork, SegmentId, SegmentMember, VolumeId,
    is_wal_segment_size,
};
use uuid::Uuid;

use super::WireError;
use crate::v1;

/// Sixteen bytes.
///
/// # Errors
/// Any other number of bytes; `what` names the field.
pub fn uuid_from_wire(bytes: &[u8], what: &'static str) -> Result<Uuid, WireError> {
    Uuid::from_slice(bytes).map_err(|_| WireError::UuidLength {
        what,
        bytes: bytes.len(),
    })
}

pub fn uuid_to_wire(uuid: Uuid) -> Bytes {
    Bytes::copy_from_slice(uuid.as_bytes())
}

impl TryFrom<v1::Epoch> for Epoch {
    type Error = WireError;
    fn try_from(wire: v1::Epoch) -> Result<Epoch, WireError> {
        Ok(Epoch {
            number: wire.number,
            writer: uuid_from_wire(&wire.writer, "an epoch's writer")?,
        })
    }
}

impl From<Epoch> for v1::Epoch {
    fn from(epoch: Epoch) -> v1::Epoch {
        v1::Epoch {
            number: epoch.number,
            writer: uuid_to_wire(epoch.writer),
        }
    }
}

/// An epoch that may be absent: then [`Epoch::NONE`].
///
/// # Errors
/// As for an epoch.
pub fn optional_epoch(wire: Option<v1::Epoch>) -> Result<Epoch, WireError> {
    wire.map_or(Ok(Epoch::NONE), Epoch::try_from)
}

/// A whole history; its order is checked.
///
/// # Errors
/// Entries that do not rise, or an entry without its epoch.
pub fn history_from_wire(wire: Vec<v1::HistoryEntry>) -> Result<History, WireError> {
    let entry = |entry: v1::HistoryEntry| {
        Ok(HistoryEntry {
            epoch: entry
                .epoch
                .ok_or(WireError::Missing("a history entry's epoch"))?
                .try_into()?,
            start_lsn: Lsn(entry.start_lsn),
        })
    };
    let entries: Result<Vec<HistoryEntry>, WireError> = wire.into_iter().map(entry).collect();
    Ok(History::new(entries?)?)
}

pub fn history_to_wire(history: &History) -> Vec<v1::HistoryEntry> {
    let entry = |entry: &HistoryEntry| v1::HistoryEntry {
        epoch: Some(entry.epoch.into()),
        start_lsn: entry.start_lsn.0,
    };
    history.entries().iter().map(entry).collect()
}

impl TryFrom<v1::Context> for RequestContext {
    type Error = WireError;
    fn try_from(wire: v1::Context) -> Result<RequestContext, WireError> {
        Ok(RequestContext {
            volume: VolumeId(uuid_from_wire(&wire.volume, "the context's volume")?),
            protection_group: ProtectionGroup(wire.protection_group),
            epoch: optional_epoch(wire.epoch)?,
            membership_version: wire.membership_version,
            segment: SegmentId(uuid_from_wire(&wire.segment, "the context's segment")?),
        })
    }
}

impl From<RequestContext> for v1::Context {
    fn from(context: RequestContext) -> v1::Context {
        v1::Context {
            volume: uuid_to_wire(context.volume.0),
            protection_group: context.protection_group.0,
            epoch: context.epoch.is_some().then(|| context.epoch.into()),
            membership_version: context.membership_version,
            segment: uuid_to_wire(context.segment.0),
        }
    }
}

impl TryFrom<v1::Owner> for Owner {
    type Error = WireError;
    fn try_from(wire: v1::Owner) -> Result<Owner, WireError> {
        Ok(Owner {
            compute: ComputeId(uuid_from_wire(&wire.compute, "the owner's compute")?),
            description: wire.description,
        })
    }
}

impl From<Owner> for v1::Owner {
    fn from(owner: Owner) -> v1::Owner {
        v1::Owner {
            compute: uuid_to_wire(owner.compute.0),
            description: owner.description,
        }
    }
}

impl TryFrom<v1::Membership> for Membership {
    type Error = WireError;
    fn try_from(wire: v1::Membership) -> Result<Membership, WireError> {
        let member = |member: v1::Member| {
            Ok(SegmentMember {
                segment: SegmentId(uuid_from_wire(&member.segment, "a member's segment")?),
                node: NodeName(member.node),
                az: AzName(member.az),
                address: member.address,
            })
        };
        let members: Result<Vec<SegmentMember>, WireError> = wire.members.into_iter().map(member).collect();
        Ok(Membership {
            version: wire.version,
            members: members?,
        })
    }
}

impl From<Membership> for v1::Membership {
    fn from(membership: Membership) -> v1::Membership {
        let member = |member: SegmentMember| v1::Member {
            segment: uuid_to_wire(member.segment.0),
            node: member.node.0,
            az: member.az.0,
            address: member.address,
        };
        v1::Membership {
            version: membership.version,
            members: membership.members.into_iter().map(member).collect(),
        }
    }
}

impl TryFrom<v1::ClusterFacts> for ClusterFacts {
    type Error = WireError;
    fn try_from(wire: v1::ClusterFacts) -> Result<ClusterFacts, WireError> {
        let segment = wire.wal_segment_bytes;
        if !is_wal_segment_size(segment) {
            return Err(WireError::OutOfRange {
                what: "the size of a WAL segment",
                value: segment.into(),
            });
        }
        Ok(ClusterFacts {
            system_identifier: wire.system_identifier,
            timeline: wire.timeline,
            wal_segment_bytes: segment,
            data_checksums: wire.data_checksums,
            pg_control_version: wire.pg_control_version,
            catalog_version: wire.catalog_version,
            pg_major: wire.pg_major,
        })
    }
}

impl From<ClusterFacts> for v1::ClusterFacts {
    fn from(facts: ClusterFacts) -> v1::ClusterFacts {
        v1::ClusterFacts {
            system_identifier: facts.system_identifier,
            timeline: facts.timeline,
            wal_segment_bytes: facts.wal_segment_bytes,
            data_checksums: facts.data_checksums,
            pg_control_version: facts.pg_control_version,
            catalog_version: facts.catalog_version,
            pg_major: facts.pg_major,
        }
    }
}

impl TryFrom<v1::Base> for Base {
    type Error = WireError;
    fn try_from(wire: v1::Base) -> Result<Base, WireError> {
        Ok(Base {
            id: uuid_from_wire(&wire.id, "the base's id")?,
            lsn: Lsn(wire.lsn),
        })
    }
}

impl From<Base> for v1::Base {
    fn from(base: Base) -> v1::Base {
        v1::Base {
            id: uuid_to_wire(base.id),
            lsn: base.lsn.0,
        }
    }
}

impl TryFrom<v1::RelationFork> for RelFork {
    type Error = WireError;
    fn try_from(wire: v1::RelationFork) -> Result<RelFork, WireError> {
        let fork = u8::try_from(wire.fork)
            .ok()
            .and_then(ForkNumber::from_number)
            .ok_or(WireError::OutOfRange {
                what: "the fork number",
                value: wire.fork.into(),
            })?;
        Ok(RelFork {
            rel: RelFileNode {
                spc: wire.spc,
                db: wire.db,
                rel: wire.rel,
            },
            fork,
        })
    }
}

impl From<RelFork> for v1::RelationFork {
    fn from(fork: RelFork) -> v1::RelationFork {
        v1::RelationFork {
            spc: fork.rel.spc,
            db: fork.rel.db,
            rel: fork.rel.rel,
            fork: fork.fork as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_sixteen_bytes() {
        assert!(uuid_from_wire(&[1; 16], "x").is_ok());
        for length in [0, 15, 17] {
            assert!(uuid_from_wire(&vec![1; length], "x").is_err());
        }
    }

    #[test]
    fn a_history_that_falls_is_an_error() {
        let entry = |number, start_lsn| v1::HistoryEntry {
            epoch: Some(v1::Epoch {
                number,
                writer: uuid_to_wire(Uuid::nil()),
            }),
            start_lsn,
        };
        assert!(history_from_wire(vec![entry(1, 10), entry(2, 10)]).is_ok());
        assert!(history_from_wire(vec![entry(2, 10), entry(1, 20)]).is_err());
        let without_epoch = v1::HistoryEntry {
            epoch: None,
            start_lsn: 1,
        };
        assert!(history_from_wire(vec![without_epoch]).is_err());
    }

    #[test]
    fn a_context_round_trips() {
        let context = RequestContext {
            volume: VolumeId::random(),
            protection_group: ProtectionGroup(0),
            epoch: Epoch {
                number: 4,
                writer: Uuid::from_u128(9),
            },
            membership_version: 1,
            segment: SegmentId::random(),
        };
        assert_eq!(RequestContext::try_from(v1::Context::from(context)), Ok(context));
        let without = RequestContext {
            epoch: Epoch::NONE,
            ..context
        };
        assert_eq!(v1::Context::from(without).epoch, None);
        assert_eq!(RequestContext::try_from(v1::Context::from(without)), Ok(without));
    }

    #[test]
    fn an_unknown_fork_is_an_error() {
        let fork = v1::RelationFork {
            spc: 1663,
            db: 1,
            rel: 2,
            fork: 4,
        };
        assert!(RelFork::try_from(fork).is_err());
    }
}
