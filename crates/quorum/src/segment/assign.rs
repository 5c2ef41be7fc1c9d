//! How a formatted directory becomes a volume's segment, and how it gets its base.

use pg_quorum_types::{Base, ClusterFacts, History, Lsn, Membership, ProtectionGroup, SegmentId, VolumeId};

use super::{Assignment, Command, CompleteBase, SegmentMachine, SegmentMeta, Step};
use crate::{Monotonic, Refusal, Refused, RequestContext};

/// Makes a segment a member of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateRequest {
    pub volume: VolumeId,
    pub protection_group: ProtectionGroup,
    pub system_identifier: u64,
    pub membership: Membership,
    /// The segment that is meant.
    pub segment: SegmentId,
}

impl SegmentMachine {
    /// A volume names this segment as a member. The same request again is harmless. A segment without a
    /// complete base may be given to another attempt to make the same cluster's volume.
    pub fn create(&mut self, request: CreateRequest, now: Monotonic) -> Step {
        assert!(
            !self.draining,
            "a volume is made while a promise waits for the log"
        );
        self.refuse_if_damaged(now)?;
        if request.segment != self.meta.segment {
            return Err(self.refuse(
                Refusal::NotMember,
                now,
                format!("node {} keeps segment {}", self.meta.node, self.meta.segment),
            ));
        }
        if request.membership.member(self.meta.segment).is_none() {
            return Err(self.refuse(
                Refusal::Membership,
                now,
                format!("segment {} is not in the membership", self.meta.segment),
            ));
        }
        let assignment = Assignment {
            volume: request.volume,
            protection_group: request.protection_group,
            system_identifier: request.system_identifier,
            membership: request.membership,
        };
        if let Some(assigned) = &self.meta.assignment {
            if *assigned == assignment {
                return Ok(vec![Command::AnswerCreate]);
            }
            if assigned.volume == assignment.volume {
                return Err(self.refuse(
                    Refusal::Membership,
                    now,
                    format!("volume {} has another membership here", assigned.volume),
                ));
            }
            let is_retry = assigned.system_identifier == assignment.system_identifier;
            if self.meta.base.is_some() || !is_retry {
                return Err(self.refuse(
                    Refusal::NotMember,
                    now,
                    format!(
                        "node {} belongs to volume {} of the cluster with system identifier {}",
                        self.meta.node, assigned.volume, assigned.system_identifier
                    ),
                ));
            }
        }
        self.meta = SegmentMeta {
            assignment: Some(assignment),
            ..SegmentMeta::formatted(self.meta.node.clone(), self.meta.segment)
        };
        self.scl = Lsn::INVALID;
        self.vdl = Lsn::INVALID;
        let meta = self.recorded();
        Ok(vec![
            Command::Persist(Box::new(meta)),
            Command::DropBase,
            Command::AnswerCreate,
        ])
    }

    /// The promised epoch's writer begins to send a base. What is here of an unfinished import goes.
    ///
    /// Without commands this very base is complete already.
    pub fn begin_import(&mut self, context: &RequestContext, base: Base, now: Monotonic) -> Step {
        self.check_import(context, now)?;
        if self.meta.base.is_some_and(|complete| complete.base == base) {
            return Ok(Vec::new());
        }
        if self.vdl.is_valid() {
            return Err(self.refuse(
                Refusal::OtherStart,
                now,
                "the volume has a durable log already: a base cannot be replaced".to_owned(),
            ));
        }
        // An epoch that began here and nowhere else was never held.
        self.meta.history = History::default();
        self.meta.starting = None;
        self.meta.base = None;
        self.scl = Lsn::INVALID;
        let meta = self.recorded();
        Ok(vec![Command::Persist(Box::new(meta)), Command::DropBase])
    }

    /// Every item of the base is here and synced.
    pub fn complete_import(
        &mut self,
        context: &RequestContext,
        base: Base,
        facts: ClusterFacts,
        now: Monotonic,
    ) -> Step {
        self.check_import(context, now)?;
        let expected = self
            .meta
            .assignment
            .as_ref()
            .map(|volume| volume.system_identifier);
        if expected != Some(facts.system_identifier) {
            return Err(self.refuse(
                Refusal::NotMember,
                now,
                format!(
                    "the base is of the cluster with system identifier {}, the volume of another one",
                    facts.system_identifier
                ),
            ));
        }
        if self.meta.base.is_some() {
            return Err(self.refuse(
                Refusal::OtherStart,
                now,
                "another import was completed meanwhile".to_owned(),
            ));
        }
        self.meta.base = Some(CompleteBase { base, facts });
        self.scl = base.lsn;
        self.adopt_reached_entries();
        let meta = self.recorded();
        // The log first: a complete base without log files is damage.
        Ok(vec![
            Command::BeginLog { at: base.lsn },
            Command::Persist(Box::new(meta)),
            Command::AnswerImport,
        ])
    }

    /// Whether items of an import may still be taken.
    ///
    /// # Errors
    /// The writer has been fenced, or the segment cannot take part.
    pub fn check_import(&self, context: &RequestContext, now: Monotonic) -> Result<(), Box<Refused>> {
        assert!(!self.draining, "an import step while a promise waits for the log");
        self.check_context(context, now)?;
        self.refuse_if_damaged(now)?;
        self.refuse_if_read_only(now)?;
        self.refuse_unless_promised(context.epoch, now)
    }

    /// An import is a long Start: its items show that the writer lives.
    pub fn renew_lease_by_import(
        &mut self,
        context: &RequestContext,
        now: Monotonic,
    ) -> Result<(), Box<Refused>> {
        self.check_import(context, now)?;
        self.lease.renew(now);
        Ok(())
    }
}
