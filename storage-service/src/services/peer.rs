//! `Peer`: segments among themselves.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use pg_quorum_proto::convert::{PeerMessage, PullRequest};
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::peer_server::Peer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::read_gate::send;
use crate::segment::Segment;
use crate::segment::catch_up::CHUNK_BYTES;

/// Chunks that are read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

/// See the module.
pub struct PeerService {
    segment: Arc<Segment>,
}

impl PeerService {
    pub fn new(segment: Arc<Segment>) -> PeerService {
        PeerService { segment }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type PullLogStream = Pin<Box<dyn Stream<Item = Result<v1::LogChunk, Status>> + Send>>;

    async fn gossip(&self, request: Request<v1::PeerState>) -> Result<Response<v1::PeerState>, Status> {
        let message = PeerMessage::try_from(request.into_inner())?;
        if let Err(refused) = self.segment.check_context(&message.context) {
            return Ok(Response::new(v1::PeerState {
                refused: Some((*refused).into()),
                ..v1::PeerState::default()
            }));
        }
        let sender = message.sender;
        let is_member = self
            .segment
            .membership()
            .is_some_and(|membership| membership.member(sender).is_some());
        if !is_member {
            return Err(Status::permission_denied(format!(
                "segment {sender} is no member"
            )));
        }
        self.segment.hear_from(sender, message.report);
        let reply = self.segment.peer_message(sender);
        let reply = reply.ok_or_else(|| Status::failed_precondition("no volume"))?;
        Ok(Response::new(reply.into()))
    }

    async fn pull_log(
        &self,
        request: Request<v1::PullLogRequest>,
    ) -> Result<Response<Self::PullLogStream>, Status> {
        let request = PullRequest::try_from(request.into_inner())?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let segment = Arc::clone(&self.segment);
        tokio::task::spawn_blocking(move || hand_out(&segment, &request, &sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends the log that was asked for, as far as it is held here, and ends.
fn hand_out(segment: &Segment, request: &PullRequest, chunks: &mpsc::Sender<Result<v1::LogChunk, Status>>) {
    let allowed = segment
        .check_context(&request.context)
        .and_then(|()| segment.with_machine(|machine| machine.may_hand_out(&request.range)));
    let until = match allowed {
        Ok(until) => until,
        Err(refused) => {
            let chunk = v1::LogChunk {
                refused: Some((*refused).into()),
                ..v1::LogChunk::default()
            };
            send(chunks, Ok(chunk));
            return;
        }
    };
    let mut from = request.range.from;
    while from < until {
        let chunk = match segment.log().read_run(from, until, CHUNK_BYTES) {
            Ok(None) => return,
            Ok(Some(run)) => {
                from = run.end;
                Ok(v1::LogChunk {
                    epoch: Some(run.epoch.into()),
                    previous_end_lsn: run.previous_end.0,
                    end_lsn: run.end.0,
                    records: run.records,
                    gaps: run.gaps,
                    refused: None,
                })
            }
            Err(error) => Err(Status::out_of_range(error.to_string())),
        };
        let is_last = chunk.is_err();
        if !send(chunks, chunk) || is_last {
            return;
        }
    }
}
