//! `peer.proto`.

use pg_quorum_quorum::RequestContext;
use pg_quorum_quorum::catch_up::{PeerReport, PullRange};
use pg_quorum_types::{Lsn, SegmentId};

use super::{WireError, history_from_wire, history_to_wire, uuid_from_wire, uuid_to_wire};
use crate::v1;

/// What one segment tells another about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerMessage {
    /// The sender's; its segment is the receiver.
    pub context: RequestContext,
    pub sender: SegmentId,
    pub report: PeerReport,
}

impl TryFrom<v1::PeerState> for PeerMessage {
    type Error = WireError;
    fn try_from(wire: v1::PeerState) -> Result<PeerMessage, WireError> {
        Ok(PeerMessage {
            context: wire
                .context
                .ok_or(WireError::Missing("the context"))?
                .try_into()?,
            sender: SegmentId(uuid_from_wire(&wire.segment, "the sender")?),
            report: PeerReport {
                history: history_from_wire(wire.history)?,
                scl: Lsn(wire.scl),
                vdl: Lsn(wire.vdl),
            },
        })
    }
}

impl From<PeerMessage> for v1::PeerState {
    fn from(message: PeerMessage) -> v1::PeerState {
        v1::PeerState {
            context: Some(message.context.into()),
            segment: uuid_to_wire(message.sender.0),
            history: history_to_wire(&message.report.history),
            scl: message.report.scl.0,
            vdl: message.report.vdl.0,
            refused: None,
        }
    }
}

/// A peer asks for log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PullRequest {
    pub context: RequestContext,
    pub range: PullRange,
}

impl TryFrom<v1::PullLogRequest> for PullRequest {
    type Error = WireError;
    fn try_from(wire: v1::PullLogRequest) -> Result<PullRequest, WireError> {
        Ok(PullRequest {
            context: wire
                .context
                .ok_or(WireError::Missing("the context"))?
                .try_into()?,
            range: PullRange {
                history: history_from_wire(wire.history)?,
                from: Lsn(wire.from_lsn),
                until: Lsn(wire.until_lsn),
            },
        })
    }
}

impl From<PullRequest> for v1::PullLogRequest {
    fn from(request: PullRequest) -> v1::PullLogRequest {
        v1::PullLogRequest {
            context: Some(request.context.into()),
            history: history_to_wire(&request.range.history),
            from_lsn: request.range.from.0,
            until_lsn: request.range.until.0,
        }
    }
}
