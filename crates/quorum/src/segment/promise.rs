//! Promise: an epoch above all others, and a frozen log.

use pg_quorum_types::{Base, ClusterFacts, History, Lsn, Membership, Owner};

use super::{Command, SegmentMachine, Step};
use crate::{Monotonic, Refusal, RequestContext};

/// A writer asks for an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PromiseRequest {
    /// With the epoch that is asked for.
    pub context: RequestContext,
    pub owner: Owner,
    /// The highest epoch number under which this owner has held the volume, 0 for none.
    pub last_held_epoch: u64,
    /// Take it from a living owner, or take it back after having been fenced.
    pub force: bool,
}

/// What a segment has, said together with its promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    pub history: History,
    /// [`Lsn::INVALID`] without a complete base.
    pub scl: Lsn,
    pub base: Option<Base>,
    /// The highest VDL that the segment knows under its history.
    pub vdl: Lsn,
    pub membership: Membership,
    pub facts: Option<ClusterFacts>,
}

impl SegmentMachine {
    /// A writer asks for an epoch. Granted, the log is frozen at once and drained; the promise is persisted
    /// by what [`Self::log_drained`] returns.
    ///
    /// The same request again gets the same answer.
    pub fn promise(&mut self, request: PromiseRequest, now: Monotonic) -> Step {
        assert!(!self.draining, "two promises at once");
        self.check_context(&request.context, now)?;
        self.refuse_if_damaged(now)?;
        let epoch = request.context.epoch;
        if !epoch.is_some() || epoch < self.meta.promised {
            return Err(self.fenced(epoch, now));
        }
        if epoch > self.meta.promised {
            self.refuse_rival(&request, now)?;
            // A contender's lease begins with its first promise and grows only when it starts: two
            // contenders that block each other both run out.
            if self.meta.owner.as_ref().map(|owner| owner.compute) != Some(request.owner.compute) {
                self.lease.renew(now);
            }
            self.meta.promised = epoch;
            self.meta.owner = Some(request.owner);
            self.meta.starting = None;
        }
        self.draining = true;
        Ok(vec![Command::DrainLog])
    }

    /// The log is drained after a promise: it ends at `scl` now.
    pub fn log_drained(&mut self, scl: Lsn) -> Vec<Command> {
        assert!(self.draining, "no promise waits for the log");
        self.draining = false;
        self.advance_scl(scl);
        // Only a promise that was repeated finds a Start here: a new one has forgotten it.
        self.adopt_reached_entries();
        let meta = self.recorded();
        let granted = self.granted();
        vec![
            Command::Persist(Box::new(meta)),
            Command::AnswerPromise(Box::new(granted)),
        ]
    }

    fn granted(&self) -> Granted {
        let membership = match &self.meta.assignment {
            Some(assignment) => assignment.membership.clone(),
            None => Membership {
                version: 0,
                members: Vec::new(),
            },
        };
        Granted {
            history: self.meta.history.clone(),
            scl: self.scl,
            base: self.meta.base.map(|complete| complete.base),
            vdl: self.vdl,
            membership,
            facts: self.meta.base.map(|complete| complete.facts),
        }
    }

    /// Another owner may be alive, or may have taken the volume from this one.
    fn refuse_rival(&self, request: &PromiseRequest, now: Monotonic) -> Result<(), Box<crate::Refused>> {
        if request.force {
            return Ok(());
        }
        if let Some(holder) = &self.meta.holder
            && request.last_held_epoch > 0
            && holder.owner.compute != request.owner.compute
            && holder.epoch.number > request.last_held_epoch
        {
            return Err(self.refuse(
                Refusal::Superseded,
                now,
                format!(
                    "this compute last held epoch {}; {} has taken the volume since with epoch {}",
                    request.last_held_epoch, holder.owner, holder.epoch
                ),
            ));
        }
        let remaining = self.lease.remaining(now);
        if let Some(owner) = &self.meta.owner
            && owner.compute != request.owner.compute
            && !remaining.is_zero()
        {
            return Err(self.refuse(
                Refusal::OwnerAlive,
                now,
                format!(
                    "the volume is held by {owner}, whose lease lasts another {} ms",
                    remaining.as_millis()
                ),
            ));
        }
        Ok(())
    }
}
