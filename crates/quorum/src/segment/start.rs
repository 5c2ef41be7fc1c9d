//! Start: the epoch's log is chosen; what diverges goes, what is missing comes, then the epoch begins.

use pg_quorum_types::{Base, History, Lsn};

use super::{Command, Holder, SegmentMachine, SegmentMeta, StartTarget, Step};
use crate::{Monotonic, Refusal, Refused, RequestContext};

/// The promised epoch's writer has chosen the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartRequest {
    pub context: RequestContext,
    /// Ends with the epoch and the LSN at which it starts.
    pub history: History,
    /// The base of the log that was chosen.
    pub base: Base,
}

/// How far a Start is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartProgress {
    pub started: bool,
    pub scl: Lsn,
    /// Bytes of log that this Start threw away here.
    pub cut_bytes: u64,
}

impl SegmentMachine {
    /// Begins the promised epoch with the log that its writer has chosen. The answer may be that the log
    /// does not reach the start yet: then it is to be fetched from the peers ([`Self::start_progress`]).
    ///
    /// The same Start again goes on where the first one is; another one for the same epoch is refused.
    pub fn start(&mut self, request: StartRequest, now: Monotonic) -> Step {
        assert!(!self.draining, "a Start while a promise waits for the log");
        self.check_context(&request.context, now)?;
        self.refuse_if_damaged(now)?;
        self.refuse_unless_promised(request.context.epoch, now)?;
        let target = StartTarget {
            history: request.history,
        };
        if target.epoch() != request.context.epoch {
            return Err(self.refuse_start(
                now,
                format!("the history does not end with epoch {}", request.context.epoch),
            ));
        }
        if self.meta.started() == target.epoch() {
            if self.meta.history != target.history {
                return Err(self.refuse_start(now, "it began with another history".to_owned()));
            }
            self.lease.renew(now);
            return Ok(vec![Command::AnswerStart(self.start_progress())]);
        }
        if let Some(accepted) = &self.meta.starting {
            if *accepted != target {
                return Err(self.refuse_start(now, "another Start was accepted".to_owned()));
            }
            self.lease.renew(now);
            return Ok(vec![Command::AnswerStart(self.start_progress())]);
        }
        let commands = self.begin_start(target, request.base, now)?;
        self.lease.renew(now);
        Ok(commands)
    }

    /// How far the Start of the promised epoch is.
    pub fn start_progress(&self) -> StartProgress {
        StartProgress {
            started: self.meta.started() == self.meta.promised,
            scl: self.scl,
            cut_bytes: 0,
        }
    }

    /// The log has grown to `scl` (synced), by appends or from a peer. While a Start waits for its log, what
    /// must be persisted before the log grows on.
    pub fn log_synced(&mut self, scl: Lsn) -> Option<SegmentMeta> {
        self.advance_scl(scl);
        if self.draining || !self.adopt_reached_entries() {
            return None;
        }
        Some(self.recorded())
    }

    pub(super) fn advance_scl(&mut self, scl: Lsn) {
        assert!(
            scl >= self.scl,
            "the SCL fell from {} to {scl} without a cut",
            self.scl
        );
        self.scl = scl;
    }

    /// Cuts what diverges from the target; everything that changes is persisted in one write.
    fn begin_start(&mut self, target: StartTarget, base: Base, now: Monotonic) -> Step {
        let own_base = self.meta.base.map(|complete| complete.base);
        if own_base != Some(base) {
            return self.drop_foreign_base(target, now);
        }
        if target.start_lsn() < base.lsn {
            return Err(self.refuse_start(
                now,
                format!("it starts at {}, below the base {}", target.start_lsn(), base.lsn),
            ));
        }
        let common_end = self.common_end_with(&target, base);
        if common_end < self.vdl {
            return Err(self.refuse_start(
                now,
                format!(
                    "it leaves the log at {common_end}, below {}, which is durable",
                    self.vdl
                ),
            ));
        }
        let keep = self.scl.min(common_end);
        let cut_bytes = self.scl.bytes_since(keep);
        let reached = target
            .history
            .entries()
            .partition_point(|entry| entry.start_lsn <= keep);
        // The last entry is the epoch itself: it is added, like the ones between, when it is reached.
        let reached = reached.min(target.history.entries().len() - 1);
        self.meta.history = target.history.prefix(reached);
        self.meta.starting = Some(target);
        self.scl = keep;
        if cut_bytes > 0 {
            self.meta.tail_cuts += 1;
            self.meta.cut_bytes += cut_bytes;
        }
        // The read points of the epoch before are over; its writer will not move them any more.
        self.pgmrpl = Lsn::INVALID;
        self.adopt_reached_entries();
        let mut commands = vec![Command::Persist(Box::new(self.recorded()))];
        if cut_bytes > 0 {
            commands.push(Command::Cut { to: keep });
        }
        commands.push(Command::AnswerStart(StartProgress {
            cut_bytes,
            ..self.start_progress()
        }));
        Ok(commands)
    }

    /// Where the log here and the log that was chosen part.
    fn common_end_with(&self, target: &StartTarget, base: Base) -> Lsn {
        if self.meta.history.is_empty() {
            return base.lsn;
        }
        self.meta.history.common_end(&target.history).max(base.lsn)
    }

    /// The volume's log grew from another base than the one here: nothing here is part of it.
    fn drop_foreign_base(&mut self, target: StartTarget, now: Monotonic) -> Step {
        if self.vdl.is_valid() {
            return Err(self.refuse_start(
                now,
                "it is based on another import than this segment, whose log is durable".to_owned(),
            ));
        }
        let had_base = self.meta.base.take().is_some();
        self.meta.history = History::default();
        self.meta.starting = Some(target);
        self.scl = Lsn::INVALID;
        let mut commands = vec![Command::Persist(Box::new(self.recorded()))];
        if had_base {
            commands.push(Command::DropBase);
        }
        commands.push(Command::AnswerStart(self.start_progress()));
        Ok(commands)
    }

    /// Adds the accepted Start's entries that the SCL has reached. Whether there were any.
    pub(super) fn adopt_reached_entries(&mut self) -> bool {
        let (Some(target), Some(_)) = (&self.meta.starting, &self.meta.base) else {
            return false;
        };
        let entries = target.history.entries();
        let had = self.meta.history.entries().len();
        let reached = entries.partition_point(|entry| entry.start_lsn <= self.scl);
        if reached <= had {
            return false;
        }
        self.meta.history = target.history.prefix(reached);
        if reached == entries.len() {
            self.meta.starting = None;
            self.meta.holder = self.meta.owner.clone().map(|owner| Holder {
                epoch: self.meta.promised,
                owner,
            });
        }
        true
    }

    fn refuse_start(&self, now: Monotonic, why: String) -> Box<Refused> {
        self.refuse(
            Refusal::OtherStart,
            now,
            format!(
                "this Start of epoch {} is not possible: {why}",
                self.meta.promised
            ),
        )
    }
}
