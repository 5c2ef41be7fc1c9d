//! `admin.proto`.

use pg_quorum_quorum::segment::CreateRequest;
use pg_quorum_types::{ProtectionGroup, SegmentId, VolumeId};

use super::{WireError, uuid_from_wire, uuid_to_wire};
use crate::v1;

impl TryFrom<v1::CreateVolumeRequest> for CreateRequest {
    type Error = WireError;
    fn try_from(wire: v1::CreateVolumeRequest) -> Result<CreateRequest, WireError> {
        Ok(CreateRequest {
            volume: VolumeId(uuid_from_wire(&wire.volume, "the volume")?),
            protection_group: ProtectionGroup(0),
            system_identifier: wire.system_identifier,
            membership: wire
                .membership
                .ok_or(WireError::Missing("the membership"))?
                .try_into()?,
            segment: SegmentId(uuid_from_wire(&wire.segment, "the segment")?),
        })
    }
}

impl From<CreateRequest> for v1::CreateVolumeRequest {
    /// Of a volume's only protection group.
    fn from(request: CreateRequest) -> v1::CreateVolumeRequest {
        v1::CreateVolumeRequest {
            volume: uuid_to_wire(request.volume.0),
            system_identifier: request.system_identifier,
            membership: Some(request.membership.into()),
            segment: uuid_to_wire(request.segment.0),
        }
    }
}
