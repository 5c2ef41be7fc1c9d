//! The body of an Append request: polled by the connection, answers with the next message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use pg_quorum_proto::v1;
use pg_quorum_types::Lsn;
use prost::Message as _;
use tokio::time::{Interval, MissedTickBehavior};

use super::lane::LinkState;
use super::window::Next;
use super::{Batch, Shared, WalSourceError};

/// How often an idle feed looks whether the segment should hear from it.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Feed {
    shared: Arc<Shared>,
    index: usize,
    session: u64,
    tick: Interval,
    has_greeted: bool,
}

impl Feed {
    pub fn new(shared: Arc<Shared>, index: usize, session: u64) -> Feed {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Feed {
            shared,
            index,
            session,
            tick,
            has_greeted: false,
        }
    }

    /// The first message: who is writing. The answer says where the segment stands.
    fn greeting(&self) -> v1::AppendRequest {
        let segment = self.shared.member(self.index).segment;
        v1::AppendRequest {
            context: Some(self.shared.attachment.context(segment).into()),
            ..self.message_without_records(Lsn::INVALID)
        }
    }

    fn message_without_records(&self, at: Lsn) -> v1::AppendRequest {
        v1::AppendRequest {
            context: None,
            previous_end_lsn: at.0,
            end_lsn: at.0,
            records: bytes::Bytes::new(),
            gaps: Vec::new(),
            vdl: self.shared.vdl().0,
            pgmrpl: self.shared.pgmrpl().0,
        }
    }

    fn message(&self, batch: Batch) -> v1::AppendRequest {
        v1::AppendRequest {
            previous_end_lsn: batch.previous_end.0,
            end_lsn: batch.end.0,
            records: batch.records,
            gaps: batch.gaps,
            ..self.message_without_records(Lsn::INVALID)
        }
    }

    /// The next records behind `after`, or why there are none.
    fn next_batch(&self, after: Lsn) -> Result<Option<Batch>, WalSourceError> {
        let max_bytes = self.shared.limits.message_bytes;
        let next = self.shared.window.lock().next(after, max_bytes);
        match next {
            Next::Nothing => Ok(None),
            Next::Batch(batch) => Ok(Some(batch)),
            Next::Source { until } => {
                let batch = self.shared.source.read(after, until, max_bytes)?;
                assert!(
                    batch.previous_end == after && batch.end > after && batch.end <= until,
                    "asked for WAL of {after} to {until}, the source gave {} to {}",
                    batch.previous_end,
                    batch.end
                );
                Ok(Some(batch))
            }
        }
    }
}

impl Stream for Feed {
    type Item = v1::AppendRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<v1::AppendRequest>> {
        let feed = &mut *self;
        while feed.tick.poll_tick(cx).is_ready() {}
        let shared = feed.shared.clone();
        let now = Instant::now();
        let mut lane = shared.lanes[feed.index].lock();
        if lane.session != feed.session {
            return Poll::Ready(None);
        }
        if !feed.has_greeted {
            feed.has_greeted = true;
            lane.on_told(shared.vdl(), now);
            return Poll::Ready(Some(feed.greeting()));
        }
        let waiting_bytes = shared.window.lock().end().bytes_since(lane.sent);
        if lane.may_send(waiting_bytes, &shared.limits) {
            match feed.next_batch(lane.sent) {
                Ok(None) => lane.state = LinkState::Streaming,
                Ok(Some(batch)) => {
                    lane.state = LinkState::Streaming;
                    let message = feed.message(batch);
                    lane.on_sent(Lsn(message.end_lsn), message.encoded_len(), now);
                    lane.on_told(Lsn(message.vdl), now);
                    return Poll::Ready(Some(message));
                }
                Err(error) => {
                    lane.state = LinkState::CatchingUp;
                    lane.message = error.to_string();
                }
            }
        }
        if lane.is_greeted && lane.wants_heartbeat(shared.vdl(), &shared.limits, now) {
            let message = feed.message_without_records(lane.sent);
            lane.on_told(Lsn(message.vdl), now);
            return Poll::Ready(Some(message));
        }
        lane.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
