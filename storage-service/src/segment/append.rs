//! Records come in: from the writer, or from a peer.

use pg_quorum_quorum::segment::{AppendAck, AppendHeader};
use pg_quorum_quorum::{Refusal, Refused};

use super::Segment;
use crate::abort::AbortOnPanic;
use crate::log::{Appended, Batch, LogView, Run};

/// What became of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// Its records wait for the disk: an acknowledgement follows when the SCL moves.
    Queued,
    /// Nothing waits: acknowledge now.
    Nothing,
    /// Its records begin above what was received.
    Gap,
    /// A control request is being carried out: ask again when the view has changed.
    Busy,
    /// Final for the connection.
    Refused(Box<Refused>),
}

impl Segment {
    /// A message of the epoch's writer, with or without records.
    pub fn append(&self, header: AppendHeader, batch: Option<Batch>) -> AppendOutcome {
        let _abort = AbortOnPanic;
        let now = self.now();
        let mut guarded = self.state.lock();
        if guarded.in_control {
            return AppendOutcome::Busy;
        }
        if let Err(refused) = guarded.machine.append(header, now) {
            return AppendOutcome::Refused(refused);
        }
        // Under the machine's lock: a promise that comes next finds these records in the queue and drains it.
        let outcome = match batch {
            None => AppendOutcome::Nothing,
            Some(batch) => match self.log.append(batch) {
                Appended::Queued { .. } => AppendOutcome::Queued,
                Appended::Known => AppendOutcome::Nothing,
                Appended::Gap => AppendOutcome::Gap,
                Appended::Malformed(why) => AppendOutcome::Refused(guarded.machine.refuse(
                    Refusal::OutOfRange,
                    now,
                    format!("malformed records: {why}"),
                )),
                Appended::Unwritable => AppendOutcome::Refused(guarded.machine.refuse(
                    Refusal::NoSpace,
                    now,
                    format!("node {}: the disk is full or has failed", self.settings.node),
                )),
            },
        };
        self.publish(&guarded);
        outcome
    }

    /// Records that a peer sent. They go the same way as the writer's, who may send them, too.
    ///
    /// # Errors
    /// They do not belong behind this log now.
    pub fn append_from_peer(&self, run: Run) -> Result<(), Box<Refused>> {
        let _abort = AbortOnPanic;
        let _control = self.control.lock();
        let now = self.now();
        let guarded = self.state.lock();
        guarded
            .machine
            .append_from_peer(run.epoch, run.previous_end, run.end, now)?;
        let vdl = guarded.machine.vdl();
        let appended = self.log.append(Batch {
            epoch: run.epoch,
            previous_end: run.previous_end,
            end: run.end,
            gaps: run.gaps,
            records: run.records,
            vdl,
        });
        match appended {
            Appended::Queued { .. } | Appended::Known => Ok(()),
            Appended::Gap => Err(guarded.machine.refuse(
                Refusal::OutOfRange,
                now,
                "a peer's records begin above the end of the log".to_owned(),
            )),
            Appended::Malformed(why) => {
                Err(guarded
                    .machine
                    .refuse(Refusal::OutOfRange, now, format!("malformed records: {why}")))
            }
            Appended::Unwritable => Err(guarded.machine.refuse(
                Refusal::NoSpace,
                now,
                "the disk is full or has failed".to_owned(),
            )),
        }
    }

    /// Whether connections have to wait before they bring more.
    pub fn is_full(&self) -> bool {
        self.log.is_full()
    }

    /// Why a connection of `epoch` has to end, if it has.
    pub fn ends_connection(&self, header: AppendHeader) -> Option<Box<Refused>> {
        let now = self.now();
        let guarded = self.state.lock();
        if guarded.in_control {
            return None;
        }
        guarded.machine.refuses_writer(header, now)
    }
}

/// What to say to the writer.
pub fn ack_of(view: &LogView) -> AppendAck {
    AppendAck {
        scl: view.scl,
        promised: view.promised,
        started: view.started,
    }
}
