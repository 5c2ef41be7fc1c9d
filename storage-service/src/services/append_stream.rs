//! One writer's Append stream.
//!
//! Messages are taken as they come, many are in flight. A reply goes out whenever what there is to say has
//! changed (the SCL after a sync; a promise to somebody else, which ends the stream), and at once to a
//! message that leaves nothing waiting for the disk. How far the index is goes along, and has a reply of its own while it is
//! far behind: the writer waits for it then. Both directions run in the task of the stream itself:
//! an acknowledgement needs no further hop after the sync.

use std::sync::Arc;

use futures::{Stream, stream};
use pg_quorum_proto::v1::{AppendReply, AppendRequest};
use pg_quorum_quorum::segment::{AppendAck, AppendHeader};
use pg_quorum_quorum::{Refused, RequestContext};
use pg_quorum_types::{Epoch, Lsn, VolumeId};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use crate::access::{Grant, Right};
use crate::log::{Batch, LogView};
use crate::segment::{AppendOutcome, Segment, ack_of};

/// How far an index is that is no further behind the log is no news of its own: no writer waits for that.
const INDEX_NEARLY_THERE: u64 = 512 << 10;

/// See the module.
pub struct AppendStream {
    segment: Arc<Segment>,
    grant: Grant,
    messages: Streaming<AppendRequest>,
    view: watch::Receiver<LogView>,
    indexed: watch::Receiver<Lsn>,
    /// The requester's epoch and volume, from the first message on.
    writer: Option<(Epoch, VolumeId)>,
    /// What was said last.
    told: Option<AppendAck>,
    /// A message that must wait until a control request has ended.
    stalled: Option<AppendRequest>,
    /// A gap was told and the writer has not gone back yet.
    in_gap: bool,
    has_ended: bool,
}

impl AppendStream {
    pub fn new(
        segment: Arc<Segment>,
        indexed: watch::Receiver<Lsn>,
        grant: Grant,
        messages: Streaming<AppendRequest>,
    ) -> AppendStream {
        let view = segment.subscribe();
        AppendStream {
            segment,
            grant,
            messages,
            view,
            indexed,
            writer: None,
            told: None,
            stalled: None,
            in_gap: false,
            has_ended: false,
        }
    }

    /// The replies; the messages are taken while they are waited for.
    pub fn into_replies(self) -> impl Stream<Item = Result<AppendReply, Status>> + Send {
        stream::unfold(self, |mut stream| async move {
            let reply = stream.next_reply().await?;
            Some((reply, stream))
        })
    }

    async fn next_reply(&mut self) -> Option<Result<AppendReply, Status>> {
        while !self.has_ended {
            let may_take = self.stalled.is_none() && !self.segment.is_full();
            let is_index_behind = self
                .told
                .is_some_and(|told| told.scl.0.saturating_sub(self.indexed.borrow().0) > INDEX_NEARLY_THERE);
            tokio::select! {
                biased;
                changed = self.view.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    if let Some(reply) = self.on_change() {
                        return Some(Ok(reply));
                    }
                }
                Ok(()) = self.indexed.changed(), if is_index_behind => {
                    return Some(Ok(self.acknowledge()));
                }
                message = self.messages.message(), if may_take => match message {
                    Ok(Some(message)) => {
                        if let Some(reply) = self.on_message(message) {
                            return Some(reply);
                        }
                    }
                    Ok(None) => return None,
                    Err(status) => {
                        self.has_ended = true;
                        return Some(Err(status));
                    }
                },
            }
        }
        None
    }

    /// The segment has changed.
    fn on_change(&mut self) -> Option<AppendReply> {
        let (epoch, _) = self.writer?;
        let header = AppendHeader {
            epoch,
            vdl: Lsn::INVALID,
            pgmrpl: Lsn::INVALID,
            has_records: true,
        };
        if let Some(refused) = self.segment.ends_connection(header) {
            return Some(self.refuse(*refused));
        }
        if let Some(message) = self.stalled.take() {
            return self.take(epoch, message);
        }
        let ack = ack_of(&self.view.borrow());
        (self.told != Some(ack)).then(|| self.acknowledge())
    }

    fn on_message(&mut self, mut message: AppendRequest) -> Option<Result<AppendReply, Status>> {
        match self.introduced(&mut message) {
            Ok(epoch) => self.take(epoch, message).map(Ok),
            Err(Introduction::Refused(refused)) => Some(Ok(self.refuse(*refused))),
            Err(Introduction::Failed(status)) => {
                self.has_ended = true;
                Some(Err(status))
            }
        }
    }

    /// The first message says who is writing to whom. Whether they may is asked for each message: tokens expire.
    fn introduced(&mut self, message: &mut AppendRequest) -> Result<Epoch, Introduction> {
        if let Some((epoch, volume)) = self.writer {
            self.grant.may(Right::Write, volume)?;
            return Ok(epoch);
        }
        let missing = || Status::invalid_argument("the first message has no context");
        let context = message.context.take().ok_or_else(missing)?;
        let context = RequestContext::try_from(context).map_err(Status::from)?;
        self.grant.may(Right::Write, context.volume)?;
        self.segment
            .check_context(&context)
            .map_err(Introduction::Refused)?;
        self.writer = Some((context.epoch, context.volume));
        Ok(context.epoch)
    }

    fn take(&mut self, epoch: Epoch, message: AppendRequest) -> Option<AppendReply> {
        let vdl = Lsn(message.vdl);
        let header = AppendHeader {
            epoch,
            vdl,
            pgmrpl: Lsn(message.pgmrpl),
            has_records: !message.records.is_empty(),
        };
        let batch = header.has_records.then(|| Batch {
            epoch,
            previous_end: Lsn(message.previous_end_lsn),
            end: Lsn(message.end_lsn),
            gaps: message.gaps.clone(),
            records: message.records.clone(),
            vdl,
        });
        match self.segment.append(header, batch) {
            AppendOutcome::Queued => {
                self.in_gap = false;
                None
            }
            AppendOutcome::Nothing => Some(self.acknowledge()),
            AppendOutcome::Gap if self.in_gap => None,
            AppendOutcome::Gap => {
                self.in_gap = true;
                Some(AppendReply {
                    gap: true,
                    ..self.acknowledge()
                })
            }
            AppendOutcome::Busy => {
                self.stalled = Some(message);
                None
            }
            AppendOutcome::Refused(refused) => Some(self.refuse(*refused)),
        }
    }

    fn acknowledge(&mut self) -> AppendReply {
        let ack = ack_of(&self.view.borrow_and_update());
        self.told = Some(ack);
        AppendReply {
            scl: ack.scl.0,
            promised: ack.promised.is_some().then(|| ack.promised.into()),
            started: ack.started.is_some().then(|| ack.started.into()),
            gap: false,
            refused: None,
            indexed_lsn: self.indexed.borrow_and_update().0,
        }
    }

    fn refuse(&mut self, refused: Refused) -> AppendReply {
        self.has_ended = true;
        AppendReply {
            refused: Some(refused.into()),
            ..self.acknowledge()
        }
    }
}

enum Introduction {
    Refused(Box<Refused>),
    Failed(Status),
}

impl From<Status> for Introduction {
    fn from(status: Status) -> Introduction {
        Introduction::Failed(status)
    }
}
