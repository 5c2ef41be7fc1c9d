//! `segment.proto`.

use std::time::Duration;

use pg_quorum_quorum::segment::{Granted, PromiseRequest, SegmentState, StartProgress, StartRequest};
use pg_quorum_quorum::{Refusal, Refused};
use pg_quorum_types::{Base, ClusterFacts, Lsn, Owner};

use super::{WireError, history_from_wire, history_to_wire, optional_epoch};
use crate::v1;

impl From<Refusal> for v1::Refusal {
    fn from(refusal: Refusal) -> v1::Refusal {
        match refusal {
            Refusal::LowerEpoch => v1::Refusal::LowerEpoch,
            Refusal::OwnerAlive => v1::Refusal::OwnerAlive,
            Refusal::Superseded => v1::Refusal::Superseded,
            Refusal::NotMember => v1::Refusal::NotMember,
            Refusal::Membership => v1::Refusal::Membership,
            Refusal::Damaged => v1::Refusal::Damaged,
            Refusal::NotStarted => v1::Refusal::NotStarted,
            Refusal::OtherStart => v1::Refusal::OtherStart,
            Refusal::NoSpace => v1::Refusal::NoSpace,
            Refusal::OutOfRange => v1::Refusal::OutOfRange,
        }
    }
}

impl TryFrom<v1::Refusal> for Refusal {
    type Error = WireError;
    fn try_from(wire: v1::Refusal) -> Result<Refusal, WireError> {
        Ok(match wire {
            v1::Refusal::Unspecified => return Err(WireError::Missing("the reason of a refusal")),
            v1::Refusal::LowerEpoch => Refusal::LowerEpoch,
            v1::Refusal::OwnerAlive => Refusal::OwnerAlive,
            v1::Refusal::Superseded => Refusal::Superseded,
            v1::Refusal::NotMember => Refusal::NotMember,
            v1::Refusal::Membership => Refusal::Membership,
            v1::Refusal::Damaged => Refusal::Damaged,
            v1::Refusal::NotStarted => Refusal::NotStarted,
            v1::Refusal::OtherStart => Refusal::OtherStart,
            v1::Refusal::NoSpace => Refusal::NoSpace,
            v1::Refusal::OutOfRange => Refusal::OutOfRange,
        })
    }
}

impl From<Refused> for v1::Refused {
    fn from(refused: Refused) -> v1::Refused {
        v1::Refused {
            reason: v1::Refusal::from(refused.reason).into(),
            message: refused.message,
            promised: refused.promised.is_some().then(|| refused.promised.into()),
            owner: refused.owner.map(Into::into),
            lease_remaining_ms: refused.lease_remaining.as_millis() as u64,
        }
    }
}

impl TryFrom<v1::Refused> for Refused {
    type Error = WireError;
    fn try_from(wire: v1::Refused) -> Result<Refused, WireError> {
        let reason = v1::Refusal::try_from(wire.reason).map_err(|_| WireError::OutOfRange {
            what: "the reason of a refusal",
            value: wire.reason as u64,
        })?;
        Ok(Refused {
            reason: reason.try_into()?,
            message: wire.message,
            promised: optional_epoch(wire.promised)?,
            owner: wire.owner.map(Owner::try_from).transpose()?,
            lease_remaining: Duration::from_millis(wire.lease_remaining_ms),
        })
    }
}

impl TryFrom<v1::PromiseRequest> for PromiseRequest {
    type Error = WireError;
    fn try_from(wire: v1::PromiseRequest) -> Result<PromiseRequest, WireError> {
        Ok(PromiseRequest {
            context: wire
                .context
                .ok_or(WireError::Missing("the context"))?
                .try_into()?,
            owner: wire.owner.ok_or(WireError::Missing("the owner"))?.try_into()?,
            last_held_epoch: wire.last_held_epoch,
            force: wire.force,
        })
    }
}

impl From<PromiseRequest> for v1::PromiseRequest {
    fn from(request: PromiseRequest) -> v1::PromiseRequest {
        v1::PromiseRequest {
            context: Some(request.context.into()),
            owner: Some(request.owner.into()),
            last_held_epoch: request.last_held_epoch,
            force: request.force,
        }
    }
}

impl TryFrom<v1::Granted> for Granted {
    type Error = WireError;
    fn try_from(wire: v1::Granted) -> Result<Granted, WireError> {
        Ok(Granted {
            history: history_from_wire(wire.history)?,
            scl: Lsn(wire.scl),
            base: wire.base.map(Base::try_from).transpose()?,
            vdl: Lsn(wire.vdl),
            membership: wire
                .membership
                .ok_or(WireError::Missing("the membership"))?
                .try_into()?,
            facts: wire.facts.map(ClusterFacts::try_from).transpose()?,
        })
    }
}

impl From<Granted> for v1::Granted {
    fn from(granted: Granted) -> v1::Granted {
        v1::Granted {
            history: history_to_wire(&granted.history),
            scl: granted.scl.0,
            base: granted.base.map(Into::into),
            vdl: granted.vdl.0,
            membership: Some(granted.membership.into()),
            facts: granted.facts.map(Into::into),
        }
    }
}

impl From<Result<Granted, Refused>> for v1::PromiseReply {
    fn from(outcome: Result<Granted, Refused>) -> v1::PromiseReply {
        use v1::promise_reply::Outcome;
        v1::PromiseReply {
            outcome: Some(match outcome {
                Ok(granted) => Outcome::Granted(granted.into()),
                Err(refused) => Outcome::Refused(refused.into()),
            }),
        }
    }
}

/// What a segment answered to a promise.
///
/// # Errors
/// A reply that is neither granted nor refused, or is malformed.
pub fn promise_outcome(reply: v1::PromiseReply) -> Result<Result<Granted, Refused>, WireError> {
    use v1::promise_reply::Outcome;
    Ok(match reply.outcome.ok_or(WireError::Missing("the outcome"))? {
        Outcome::Granted(granted) => Ok(granted.try_into()?),
        Outcome::Refused(refused) => Err(refused.try_into()?),
    })
}

impl TryFrom<v1::StartRequest> for StartRequest {
    type Error = WireError;
    fn try_from(wire: v1::StartRequest) -> Result<StartRequest, WireError> {
        let history = history_from_wire(wire.history)?;
        let last = history.last().ok_or(WireError::Missing("the history"))?;
        if last.start_lsn != Lsn(wire.start_lsn) {
            return Err(WireError::OutOfRange {
                what: "the start, which is not that of the history's last entry,",
                value: wire.start_lsn,
            });
        }
        Ok(StartRequest {
            context: wire
                .context
                .ok_or(WireError::Missing("the context"))?
                .try_into()?,
            history,
            base: wire.base.ok_or(WireError::Missing("the base"))?.try_into()?,
        })
    }
}

impl From<StartRequest> for v1::StartRequest {
    fn from(request: StartRequest) -> v1::StartRequest {
        v1::StartRequest {
            context: Some(request.context.into()),
            start_lsn: request.history.last().map_or(0, |last| last.start_lsn.0),
            history: history_to_wire(&request.history),
            base: Some(request.base.into()),
        }
    }
}

impl From<StartProgress> for v1::StartReply {
    fn from(progress: StartProgress) -> v1::StartReply {
        v1::StartReply {
            started: progress.started,
            scl: progress.scl.0,
            cut_bytes: progress.cut_bytes,
            refused: None,
        }
    }
}

impl From<v1::StartReply> for StartProgress {
    /// Of a reply that is not refused.
    fn from(wire: v1::StartReply) -> StartProgress {
        StartProgress {
            started: wire.started,
            scl: Lsn(wire.scl),
            cut_bytes: wire.cut_bytes,
        }
    }
}

impl From<SegmentState> for v1::SegmentState {
    fn from(state: SegmentState) -> v1::SegmentState {
        match state {
            SegmentState::Unassigned => v1::SegmentState::Unassigned,
            SegmentState::Importing => v1::SegmentState::Importing,
            SegmentState::Promised => v1::SegmentState::Promised,
            SegmentState::Active => v1::SegmentState::Active,
            SegmentState::ReadOnly => v1::SegmentState::ReadOnly,
            SegmentState::Damaged => v1::SegmentState::Damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_round_trips_and_an_unknown_one_is_an_error() {
        for number in 1..=10 {
            let wire = v1::Refusal::try_from(number).unwrap();
            assert_eq!(v1::Refusal::from(Refusal::try_from(wire).unwrap()), wire);
        }
        for number in [0, 11, -1] {
            let refused = v1::Refused {
                reason: number,
                ..v1::Refused::default()
            };
            assert!(Refused::try_from(refused).is_err());
        }
    }

    #[test]
    fn a_promise_without_outcome_is_an_error() {
        assert!(promise_outcome(v1::PromiseReply { outcome: None }).is_err());
    }
}
