//! Append: who may, and what an acknowledgement says.

use pg_quorum_types::{Epoch, History, Lsn};

use super::SegmentMachine;
use crate::{Monotonic, Refusal, Refused};

/// What a segment says of itself in every reply to its writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendAck {
    pub scl: Lsn,
    pub promised: Epoch,
    pub started: Epoch,
}

/// What comes with a batch, or alone as a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendHeader {
    pub epoch: Epoch,
    pub vdl: Lsn,
    pub pgmrpl: Lsn,
    /// Whether records come with it.
    pub has_records: bool,
}

impl SegmentMachine {
    /// The epoch's writer sends records or shows that it lives. Granted, its records may be put behind the
    /// log; they must be received under the lock that this was asked under.
    ///
    /// # Errors
    /// The refusal to answer with; it is final for the connection.
    pub fn append(&mut self, header: AppendHeader, now: Monotonic) -> Result<(), Box<Refused>> {
        self.refuse_if_damaged(now)?;
        self.refuse_unless_promised(header.epoch, now)?;
        if self.meta.started() != header.epoch {
            return Err(self.refuse(
                Refusal::NotStarted,
                now,
                format!("epoch {} is promised here, but not started", header.epoch),
            ));
        }
        if header.has_records {
            self.refuse_if_read_only(now)?;
        }
        self.lease.renew(now);
        self.vdl = self.vdl.max(header.vdl);
        self.pgmrpl = self.pgmrpl.max(header.pgmrpl.min(self.vdl));
        Ok(())
    }

    /// Why an epoch's writer can append no more here, if that is so.
    pub fn refuses_writer(&self, header: AppendHeader, now: Monotonic) -> Option<Box<Refused>> {
        let promised = self
            .refuse_if_damaged(now)
            .and_then(|()| self.refuse_unless_promised(header.epoch, now));
        let writable = || match header.has_records {
            true => self.refuse_if_read_only(now),
            false => Ok(()),
        };
        promised.and_then(|()| writable()).err()
    }

    /// What to say to the writer now.
    pub fn append_ack(&self) -> AppendAck {
        AppendAck {
            scl: self.scl,
            promised: self.meta.promised,
            started: self.meta.started(),
        }
    }

    /// A peer told its VDL. It is believed under the same history only.
    pub fn learn_vdl(&mut self, peer_history: &History, peer_vdl: Lsn) {
        if peer_history.last().is_some() && peer_history.last() == self.meta.history.last() {
            self.vdl = self.vdl.max(peer_vdl);
        }
    }

    /// Whether records of `epoch` that come from a peer may be put behind the log now.
    ///
    /// A peer may have been asked long ago, before a Start that ends the epoch below what it sends: such records are
    /// another log's.
    ///
    /// # Errors
    /// The log is frozen, or it does not go on with that epoch up to `end`.
    pub fn append_from_peer(
        &self,
        epoch: Epoch,
        previous_end: Lsn,
        end: Lsn,
        now: Monotonic,
    ) -> Result<(), Box<Refused>> {
        self.refuse_if_damaged(now)?;
        self.refuse_if_read_only(now)?;
        if self.draining || self.is_frozen() {
            return Err(self.refuse(
                Refusal::NotStarted,
                now,
                format!("the log is frozen until epoch {} starts", self.meta.promised),
            ));
        }
        let beyond_target = self
            .meta
            .starting
            .as_ref()
            .is_some_and(|target| previous_end >= target.start_lsn());
        let accepted = self.meta.starting.as_ref().map(|target| &target.history);
        let history = accepted.unwrap_or(&self.meta.history);
        let passes_epoch = history.end_of(epoch).is_none_or(|epoch_end| end > epoch_end);
        if self.meta.base.is_none()
            || beyond_target
            || passes_epoch
            || self.meta.history.epoch_at(previous_end) != Some(epoch)
        {
            return Err(self.refuse(
                Refusal::OutOfRange,
                now,
                format!("records of epoch {epoch} from {previous_end} to {end} do not continue this log"),
            ));
        }
        Ok(())
    }

    /// Requests under a promised epoch: below it the requester is fenced, above it the promise is missing.
    pub(super) fn refuse_unless_promised(&self, epoch: Epoch, now: Monotonic) -> Result<(), Box<Refused>> {
        if epoch == self.meta.promised && epoch.is_some() {
            return Ok(());
        }
        if epoch > self.meta.promised {
            return Err(self.refuse(
                Refusal::NotStarted,
                now,
                format!("epoch {epoch} is not promised here"),
            ));
        }
        Err(self.fenced(epoch, now))
    }
}
