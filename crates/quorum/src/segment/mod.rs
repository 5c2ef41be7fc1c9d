//! One segment's rules as a machine: requests in, commands out.
//!
//! ```text
//!             create            import complete          Start reached
//!  UNASSIGNED ──────▶ IMPORTING ──────────────▶ PROMISED ────────────▶ ACTIVE
//!                                                  ▲ Promise              │
//!                                                  └──────────────────────┘
//! ```
//!
//! The driver owns the disk and the sockets. It gives each request to one method, under a lock, and
//! carries out the [`Command`]s in order; a command that fails ends the list, and nothing behind it may
//! happen. Two control requests (promise, start, create, import) never overlap.
//!
//! What this promises:
//! * The promised epoch only rises, and is persisted before it is answered.
//! * Between a promise and its Start the log neither grows nor shrinks.
//! * The persisted history never has an entry that starts above the SCL.
//! * The SCL falls only by a cut at Start, never below the VDL that is known here.
//! * A damaged segment promises, starts and appends nothing.
//!
//! What it does not know: bytes of records, files, connections, which peers there are.

mod append;
mod assign;
mod lease;
mod meta;
mod meta_format;
mod promise;
mod start;
#[cfg(test)]
mod tests;

use pg_quorum_types::{Epoch, Lsn};

pub use append::{AppendAck, AppendHeader};
pub use assign::CreateRequest;
pub use lease::Lease;
pub use meta::{Assignment, CompleteBase, Holder, SegmentMeta, StartTarget};
pub use meta_format::{MetaError, decode_meta, encode_meta};
pub use promise::{Granted, PromiseRequest};
pub use start::{StartProgress, StartRequest};

use crate::{Monotonic, Refusal, Refused, RequestContext};
use std::time::Duration;

/// What the driver has to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Write and sync, or throw away, everything that was received; then call
    /// [`SegmentMachine::log_drained`] and carry out what that returns.
    DrainLog,
    /// Make this durable before anything that follows.
    Persist(Box<SegmentMeta>),
    /// Log and derived state above `to` are void (the persisted history says so already).
    Cut {
        to: Lsn,
    },
    /// The whole log, the derived state and the base are void.
    DropBase,
    /// A base is complete: the log begins at its end.
    BeginLog {
        at: Lsn,
    },
    AnswerPromise(Box<Granted>),
    AnswerStart(StartProgress),
    AnswerCreate,
    AnswerImport,
}

/// The commands of one request, or why it is refused.
pub type Step = Result<Vec<Command>, Box<Refused>>;

/// Where a segment stands, for people and for `Status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentState {
    /// No volume has named it yet.
    Unassigned,
    /// Member of a volume, without a complete base.
    Importing,
    /// Frozen between Promise and Start.
    Promised,
    Active,
    /// The disk failed or is full.
    ReadOnly,
    Damaged,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct SegmentMachine {
    /// What is persisted, or is in a `Persist` command that the driver is carrying out.
    meta: SegmentMeta,
    /// Every record that ends at or below this is durable here. [`Lsn::INVALID`] without a base.
    scl: Lsn,
    /// The highest VDL known under this history, also beyond the SCL.
    vdl: Lsn,
    pgmrpl: Lsn,
    lease: Lease,
    /// A promise waits for the log to be drained.
    draining: bool,
    refresh_is_due: bool,
    damaged: Option<String>,
    read_only: Option<String>,
}

impl SegmentMachine {
    /// A segment after its process began: `scl` is what was found in the log, `vdl` the highest that was
    /// found recorded there. An owner's lease counts as just renewed, since nobody knows when it was.
    pub fn recover(
        meta: SegmentMeta,
        scl: Lsn,
        vdl: Lsn,
        lease_length: Duration,
        now: Monotonic,
    ) -> SegmentMachine {
        let mut lease = Lease::new(lease_length);
        if meta.owner.is_some() {
            lease.renew(now);
        }
        let vdl = vdl.max(meta.vdl);
        let damaged = (scl < meta.scl).then(|| {
            format!(
                "the log ends at {scl}, but it was durable up to {} when it was last recorded",
                meta.scl
            )
        });
        let mut machine = SegmentMachine {
            meta,
            scl,
            vdl,
            pgmrpl: Lsn::INVALID,
            lease,
            draining: false,
            refresh_is_due: false,
            damaged,
            read_only: None,
        };
        if machine.damaged.is_none() {
            machine.check();
        }
        machine.meta.vdl = machine.vdl;
        machine
    }

    /// What is persisted.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    pub fn scl(&self) -> Lsn {
        self.scl
    }

    /// The highest VDL known under this history. It can be above the SCL.
    pub fn vdl(&self) -> Lsn {
        self.vdl
    }

    pub fn pgmrpl(&self) -> Lsn {
        self.pgmrpl
    }

    pub fn promised(&self) -> Epoch {
        self.meta.promised
    }

    pub fn started(&self) -> Epoch {
        self.meta.started()
    }

    pub fn lease_remaining(&self, now: Monotonic) -> Duration {
        self.lease.remaining(now)
    }

    /// Whether the log must not change: an epoch is promised and its Start has not come.
    pub fn is_frozen(&self) -> bool {
        self.meta.promised != self.meta.started() && self.meta.starting.is_none()
    }

    pub fn state(&self) -> SegmentState {
        if self.damaged.is_some() {
            SegmentState::Damaged
        } else if self.read_only.is_some() {
            SegmentState::ReadOnly
        } else if self.meta.assignment.is_none() {
            SegmentState::Unassigned
        } else if self.meta.base.is_none() {
            SegmentState::Importing
        } else if self.meta.promised != self.meta.started() {
            SegmentState::Promised
        } else {
            SegmentState::Active
        }
    }

    /// Why the segment is damaged or read-only.
    pub fn trouble(&self) -> Option<&str> {
        self.damaged.as_deref().or(self.read_only.as_deref())
    }

    /// The log or the directory turned out to be damaged. It does not vote until it is repaired.
    pub fn set_damaged(&mut self, message: String) {
        self.damaged.get_or_insert(message);
    }

    /// The disk refuses writes (a message), or takes them again (`None`).
    pub fn set_read_only(&mut self, message: Option<String>) {
        self.read_only = message;
    }

    /// What is to be persisted now and then, so that a restart knows how far the log was good.
    /// `None` if that is on disk already, or if a control request is under way.
    pub fn refreshed_meta(&mut self) -> Option<SegmentMeta> {
        let is_recorded = (self.meta.scl, self.meta.vdl) == (self.scl, self.vdl) && !self.refresh_is_due;
        if self.draining || self.damaged.is_some() || is_recorded {
            return None;
        }
        self.refresh_is_due = false;
        Some(self.recorded())
    }

    /// What [`Self::refreshed_meta`] gave could not be written: it is due again.
    pub fn refresh_failed(&mut self) {
        self.refresh_is_due = true;
    }

    /// Whether the request means this segment, in its volume, under its membership.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check_context(&self, context: &RequestContext, now: Monotonic) -> Result<(), Box<Refused>> {
        let meta = &self.meta;
        let Some(assignment) = &meta.assignment else {
            return Err(self.refuse(
                Refusal::NotMember,
                now,
                format!(
                    "node {} keeps segment {}, which belongs to no volume: it does not vote",
                    meta.node, meta.segment
                ),
            ));
        };
        if context.segment != meta.segment {
            return Err(self.refuse(
                Refusal::NotMember,
                now,
                format!(
                    "node {} keeps segment {}, not {}: it does not vote for that one",
                    meta.node, meta.segment, context.segment
                ),
            ));
        }
        if context.volume != assignment.volume || context.protection_group != assignment.protection_group {
            return Err(self.refuse(
                Refusal::NotMember,
                now,
                format!(
                    "node {} belongs to volume {}, not {}",
                    meta.node, assignment.volume, context.volume
                ),
            ));
        }
        if context.membership_version != assignment.membership.version {
            return Err(self.refuse(
                Refusal::Membership,
                now,
                format!(
                    "node {} knows membership {}, the request is of {}",
                    meta.node, assignment.membership.version, context.membership_version
                ),
            ));
        }
        Ok(())
    }

    /// A refusal that says who holds the volume.
    pub fn refuse(&self, reason: Refusal, now: Monotonic, message: String) -> Box<Refused> {
        Box::new(Refused {
            reason,
            message,
            promised: self.meta.promised,
            owner: self.meta.owner.clone(),
            lease_remaining: self.lease.remaining(now),
        })
    }

    /// Whether what the segment holds can be relied on.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check_undamaged(&self, now: Monotonic) -> Result<(), Box<Refused>> {
        self.refuse_if_damaged(now)
    }

    fn refuse_if_damaged(&self, now: Monotonic) -> Result<(), Box<Refused>> {
        match &self.damaged {
            Some(message) => Err(self.refuse(
                Refusal::Damaged,
                now,
                format!(
                    "segment of node {} is damaged and does not vote: {message}",
                    self.meta.node
                ),
            )),
            None => Ok(()),
        }
    }

    fn refuse_if_read_only(&self, now: Monotonic) -> Result<(), Box<Refused>> {
        match &self.read_only {
            Some(message) => Err(self.refuse(
                Refusal::NoSpace,
                now,
                format!("segment of node {} takes no writes: {message}", self.meta.node),
            )),
            None => Ok(()),
        }
    }

    /// The answer to a request below (or beside) the promised epoch: it names who fenced the requester.
    fn fenced(&self, requested: Epoch, now: Monotonic) -> Box<Refused> {
        let owner = match &self.meta.owner {
            Some(owner) => owner.to_string(),
            None => "another writer".to_owned(),
        };
        self.refuse(
            Refusal::LowerEpoch,
            now,
            format!(
                "epoch {requested} is over: epoch {} is promised to {owner}",
                self.meta.promised
            ),
        )
    }

    /// The metadata with today's SCL and VDL, to be persisted.
    fn recorded(&mut self) -> SegmentMeta {
        self.meta.scl = self.scl;
        self.meta.vdl = self.vdl;
        self.check();
        self.meta.clone()
    }

    /// Called after every change. Stops the process rather than going on with a broken promise.
    ///
    /// # Panics
    /// If an invariant of this module does not hold.
    fn check(&self) {
        let meta = &self.meta;
        assert!(
            meta.started() <= meta.promised,
            "epoch {} is started, only {} is promised",
            meta.started(),
            meta.promised
        );
        if let Some(last) = meta.history.last() {
            assert!(
                last.start_lsn <= self.scl,
                "history entry {last:?} starts above the SCL {}",
                self.scl
            );
            assert!(meta.base.is_some(), "a history without a base");
        }
        if let Some(target) = &meta.starting {
            assert_eq!(
                target.epoch(),
                meta.promised,
                "a Start of an epoch that is not promised"
            );
        }
    }
}
