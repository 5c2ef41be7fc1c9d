//! Gossip and pulls: what the writer does not send (any more) comes from the peers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pg_quorum_proto::convert::{PeerMessage, PullRequest, WireError, optional_epoch};
use pg_quorum_proto::v1::peer_client::PeerClient;
use pg_quorum_proto::v1::{LogChunk, PeerState, PullLogRequest};
use pg_quorum_quorum::catch_up::{PeerReport, PullRange};
use pg_quorum_quorum::{Refused, RequestContext};
use pg_quorum_tls::Tls;
use pg_quorum_types::{Lsn, NodeName, SegmentId, SegmentMember};
use tonic::transport::{Channel, Endpoint};

use super::Segment;
use crate::log::Run;

/// Largest chunk of log that a peer sends at once, but for a record that is larger.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Decoded messages may be as large as the largest record and its frame.
pub const MAX_MESSAGE_BYTES: usize = 1200 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const GOSSIP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer may send nothing while a log is pulled from it.
const PULL_PATIENCE: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(3);

/// A peer did not give what was asked for.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Remote(#[from] Box<tonic::Status>),
    #[error("{0}")]
    Refused(Box<Refused>),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl From<tonic::Status> for PullError {
    fn from(status: tonic::Status) -> PullError {
        PullError::Remote(Box::new(status))
    }
}

impl Segment {
    /// Gossips and pulls until the task is aborted.
    pub async fn catch_up(self: Arc<Segment>) {
        let mut clients: HashMap<String, PeerClient<Channel>> = HashMap::new();
        let mut scl_before = Lsn::INVALID;
        loop {
            let pause = tokio::time::timeout(self.settings.gossip_interval, self.catch_up_now.notified());
            let is_urgent = pause.await.is_ok();
            let Some(membership) = self.membership() else {
                continue;
            };
            let others = membership
                .members
                .iter()
                .filter(|member| member.segment != self.segment);
            let peers: Vec<(SegmentMember, PeerClient<Channel>)> = others
                .filter_map(|member| Some((member.clone(), self.client(&mut clients, &member.address)?)))
                .collect();
            join_all(
                peers
                    .iter()
                    .map(|(member, peer)| self.gossip_with(member, peer.clone())),
            )
            .await;

            // Behind a writer that sends, the log grows by itself.
            let scl = self.with_machine(|machine| machine.scl());
            let stands_still = scl == scl_before;
            scl_before = scl;
            if is_urgent || stands_still {
                self.pull_what_is_wanted(&peers).await;
            }
        }
    }

    /// What a peer told is remembered; its VDL is believed under the same history.
    pub fn hear_from(&self, sender: SegmentId, report: PeerReport) {
        let mut guarded = self.state.lock();
        guarded.machine.learn_vdl(&report.history, report.vdl);
        self.publish(&guarded);
        drop(guarded);
        let mut peers = self.peers.lock();
        peers.retain(|(peer, _)| *peer != sender);
        peers.push((sender, report));
    }

    /// What each peer said last of its SCL.
    pub fn peers(&self) -> Vec<(NodeName, Lsn)> {
        let members = self.membership().map_or_else(Vec::new, |it| it.members);
        let peers = self.peers.lock();
        let told = peers.iter().filter_map(|(peer, report)| {
            let member = members.iter().find(|member| member.segment == *peer)?;
            Some((member.node.clone(), report.scl))
        });
        told.collect()
    }

    /// What to tell a peer about this segment; `None` without a volume.
    pub fn peer_message(&self, receiver: SegmentId) -> Option<PeerMessage> {
        self.with_machine(|machine| {
            let assignment = machine.meta().assignment.as_ref()?;
            Some(PeerMessage {
                context: RequestContext {
                    volume: assignment.volume,
                    protection_group: assignment.protection_group,
                    epoch: machine.promised(),
                    membership_version: assignment.membership.version,
                    segment: receiver,
                },
                sender: self.segment,
                report: machine.peer_report(),
            })
        })
    }

    /// The connection to an address; it is made when it is used, and again when it has broken.
    fn client(
        &self,
        clients: &mut HashMap<String, PeerClient<Channel>>,
        address: &str,
    ) -> Option<PeerClient<Channel>> {
        if let Some(client) = clients.get(address) {
            return Some(client.clone());
        }
        let channel = peer_channel(address, self.settings().tls.as_ref())?;
        let client = PeerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        clients.insert(address.to_owned(), client.clone());
        Some(client)
    }

    async fn gossip_with(&self, member: &SegmentMember, mut peer: PeerClient<Channel>) {
        let Some(message) = self.peer_message(member.segment) else {
            return;
        };
        let mut request = tonic::Request::new(PeerState::from(message));
        request.set_timeout(GOSSIP_TIMEOUT);
        let Ok(Ok(reply)) = tokio::time::timeout(GOSSIP_TIMEOUT, peer.gossip(request)).await else {
            return;
        };
        let reply = reply.into_inner();
        if let Some(refused) = reply.refused {
            tracing::debug!(node = %self.settings.node, peer = %member.node, "gossip refused: {}", refused.message);
            return;
        }
        match PeerMessage::try_from(reply) {
            Ok(message) if message.sender == member.segment => self.hear_from(message.sender, message.report),
            Ok(_) => {}
            Err(error) => tracing::warn!(peer = %member.node, "gossip that means nothing: {error}"),
        }
    }

    /// Pulls from whoever has most of what is missing, and so on until nothing is.
    async fn pull_what_is_wanted(&self, peers: &[(SegmentMember, PeerClient<Channel>)]) {
        let mut failed: Vec<SegmentId> = Vec::new();
        loop {
            let wanted = {
                let reports = self.peers.lock();
                let wanted = reports.iter().filter(|(peer, _)| !failed.contains(peer));
                wanted
                    .filter_map(|(peer, report)| {
                        Some((*peer, self.with_machine(|machine| machine.wanted_from(report))?))
                    })
                    .max_by_key(|(_, range)| range.until)
            };
            let Some((peer, range)) = wanted else { return };
            let Some((member, client)) = peers.iter().find(|(member, _)| member.segment == peer) else {
                failed.push(peer);
                continue;
            };
            let until = range.until;
            let before = self.with_machine(|machine| machine.scl());
            if let Err(error) = self.pull(peer, range, client.clone()).await {
                tracing::info!(node = %self.settings.node, peer = %member.node, "a pull has ended: {error}");
                failed.push(peer);
            }
            let after = self.with_machine(|machine| machine.scl());
            if after == before {
                failed.push(peer);
            } else {
                tracing::info!(node = %self.settings.node, peer = %member.node, from = %before, to = %after, %until, "caught up");
            }
        }
    }

    async fn pull(
        &self,
        peer: SegmentId,
        range: PullRange,
        mut client: PeerClient<Channel>,
    ) -> Result<(), PullError> {
        let Some(message) = self.peer_message(peer) else {
            return Ok(());
        };
        let request = PullRequest {
            context: message.context,
            range,
        };
        let mut view = self.subscribe();
        let reply = client.pull_log(PullLogRequest::from(request));
        let mut chunks = in_time(reply).await?.into_inner();
        while let Some(chunk) = in_time(chunks.message()).await? {
            let run = run_from_wire(chunk)?;
            let end = run.end;
            tokio::task::block_in_place(|| self.append_from_peer(run)).map_err(PullError::Refused)?;
            // A new epoch's records are taken only when the one before is durable and recorded.
            let durable = view.wait_for(|view| view.scl >= end);
            if tokio::time::timeout(GOSSIP_TIMEOUT, durable).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A peer that hangs must not keep the log from the others.
async fn in_time<T>(answer: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, PullError> {
    match tokio::time::timeout(PULL_PATIENCE, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(tonic::Status::deadline_exceeded("the peer is silent").into()),
    }
}

fn run_from_wire(chunk: LogChunk) -> Result<Run, PullError> {
    if let Some(refused) = chunk.refused {
        return Err(PullError::Refused(Box::new(Refused::try_from(refused)?)));
    }
    Ok(Run {
        epoch: optional_epoch(chunk.epoch)?,
        previous_end: Lsn(chunk.previous_end_lsn),
        end: Lsn(chunk.end_lsn),
        gaps: chunk.gaps,
        records: chunk.records,
    })
}

/// A connection to another node, made when it is used; `None` if the address is none.
pub fn peer_channel(address: &str, tls: Option<&Tls>) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .inspect_err(|error| tracing::error!(address, "a member's address is no address: {error}"))
        .ok()?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(crate::node::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(crate::node::CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true);
    Some(pg_quorum_tls::channel(endpoint, tls))
}
