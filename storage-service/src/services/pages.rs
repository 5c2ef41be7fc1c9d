//! `Pages`: pages and sizes of relations at an LSN.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::pages_server::Pages;
use pg_quorum_quorum::{Refusal, Refused};
use pg_quorum_types::{Lsn, PageKey, RelFork, SlruKind};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::hold;
use super::read_gate::{Admission, EpochRule, NoAnswer, ReadGate, blocking};
use crate::access::Grant;
use crate::derived::{Derived, ReadPage};
use crate::metrics::PageRequests;

/// Questions of one stream that are worked on at the same time; more wait.
const MAX_QUESTIONS: usize = 64;
/// Pages in one request.
const MAX_BLOCKS: usize = 4096;
/// A request of no more is answered where it came in: handing it to another thread and back takes longer than most
/// pages do.
const MAX_BLOCKS_INLINE: usize = 2;
/// One such request at a time in the process, whatever nodes it has: another thread of the runtime is left for what must
/// not wait for a disk.
static INLINE: Semaphore = Semaphore::const_new(1);

/// See the module.
#[derive(Clone)]
pub struct PagesService {
    gate: Arc<dyn ReadGate>,
    derived: Arc<Derived>,
    requests: Arc<PageRequests>,
}

impl PagesService {
    pub fn new(gate: Arc<dyn ReadGate>, derived: Arc<Derived>, requests: Arc<PageRequests>) -> PagesService {
        PagesService {
            gate,
            derived,
            requests,
        }
    }

    /// The answer to a question of a stream.
    async fn answer(
        self,
        grant: Grant,
        question: Result<v1::PagesQuestion, Status>,
    ) -> Result<v1::PagesAnswer, Status> {
        let v1::PagesQuestion { id, request } = question?;
        let request = request.ok_or_else(|| Status::invalid_argument("the request is missing"))?;
        let reply = self.reply(grant, request).await?;
        Ok(v1::PagesAnswer {
            id,
            reply: Some(reply),
        })
    }

    /// A refusal is a reply, too.
    async fn reply(&self, grant: Grant, request: v1::GetPagesRequest) -> Result<v1::GetPagesReply, Status> {
        let started = Instant::now();
        match self.pages(grant, request).await {
            Ok(reply) => {
                self.requests.answered.record(started.elapsed());
                Ok(reply)
            }
            Err(NoAnswer::Refused(refused)) => {
                self.requests.refused.fetch_add(1, Ordering::Relaxed);
                Ok(v1::GetPagesReply {
                    refused: Some(refused.into()),
                    ..Default::default()
                })
            }
            Err(NoAnswer::Failed(status)) => Err(status),
        }
    }

    async fn pages(&self, grant: Grant, request: v1::GetPagesRequest) -> Result<v1::GetPagesReply, NoAnswer> {
        let admission = Admission::new(&self.gate, grant, request.context, EpochRule::Started)?;
        let (lsn, not_modified_since) = (Lsn(request.lsn), Lsn(request.not_modified_since));
        if request.blocks.len() > MAX_BLOCKS || lsn < not_modified_since {
            let problem = format!(
                "at most {MAX_BLOCKS} blocks, and not_modified_since at or below lsn: got {} blocks, \
                 {not_modified_since}, {lsn}",
                request.blocks.len()
            );
            return Err(NoAnswer::Failed(Status::invalid_argument(problem)));
        }
        let indexed = wait_indexed(&self.derived, not_modified_since).await?;
        let at = lsn.min(indexed);
        let keys = keys(request.fork, request.slru, &request.blocks)?;
        let is_small = keys.len() <= MAX_BLOCKS_INLINE;
        let pages = if let Some(_permit) = is_small.then(|| INLINE.try_acquire().ok()).flatten() {
            self.derived.pages(&keys, at)?
        } else {
            blocking(&self.derived, move |derived| derived.pages(&keys, at)).await?
        };
        admission.check()?;
        Ok(v1::GetPagesReply {
            pages: pages.into_iter().map(page).collect(),
            lsn: at.0,
            refused: None,
        })
    }

    async fn unchanged(
        &self,
        request: Request<v1::GetUnchangedRequest>,
    ) -> Result<v1::GetUnchangedReply, NoAnswer> {
        let grant = Grant::of(&request)?;
        let request = request.into_inner();
        let admission = Admission::new(&self.gate, grant, request.context, EpochRule::Started)?;
        let fork = fork(request.fork)?;
        let (since, at) = (Lsn(request.since), Lsn(request.lsn));
        wait_indexed(&self.derived, at).await?;
        let first_block = request.first_block;
        let look = move |derived: &Derived| derived.unchanged(fork, first_block, since, at);
        let unchanged = blocking(&self.derived, look).await?;
        admission.check()?;
        Ok(v1::GetUnchangedReply {
            unchanged: Bytes::copy_from_slice(&unchanged.to_le_bytes()),
            refused: None,
        })
    }

    async fn size(
        &self,
        request: Request<v1::GetRelationSizeRequest>,
    ) -> Result<v1::GetRelationSizeReply, NoAnswer> {
        let grant = Grant::of(&request)?;
        let request = request.into_inner();
        let admission = Admission::new(&self.gate, grant, request.context, EpochRule::Started)?;
        let fork = fork(request.fork)?;
        let at = Lsn(request.lsn);
        wait_indexed(&self.derived, at).await?;
        let size = blocking(&self.derived, move |derived| derived.relation_size(fork, at)).await?;
        admission.check()?;
        Ok(v1::GetRelationSizeReply {
            exists: size.is_some(),
            blocks: size.unwrap_or(0),
            refused: None,
        })
    }
}

/// Waits until `lsn` is indexed, for a bounded time.
pub(super) async fn wait_indexed(derived: &Derived, lsn: Lsn) -> Result<Lsn, Refused> {
    let indexed = derived.wait_indexed(lsn, derived.read_wait()).await;
    if indexed >= lsn {
        return Ok(indexed);
    }
    let failure = derived.stats().failure;
    let because = if failure.is_empty() {
        failure
    } else {
        format!(": {failure}")
    };
    Err(Refused::plain(
        Refusal::OutOfRange,
        format!("{lsn} is asked for, this node has indexed up to {indexed}{because}"),
    ))
}

/// The pages that a request names.
fn keys(
    fork_named: Option<v1::RelationFork>,
    slru: Option<u32>,
    numbers: &[u32],
) -> Result<Vec<PageKey>, NoAnswer> {
    let Some(slru) = slru else {
        let rel = fork(fork_named)?;
        let key = |block: &u32| PageKey::Relation { rel, block: *block };
        return Ok(numbers.iter().map(key).collect());
    };
    let kind = u8::try_from(slru).ok().and_then(SlruKind::from_number);
    let (Some(kind), None) = (kind, fork_named) else {
        let problem = format!("{slru} is no kind of transaction state, or there is a fork beside it");
        return Err(NoAnswer::Failed(Status::invalid_argument(problem)));
    };
    let key = |page: &u32| PageKey::Slru { kind, page: *page };
    Ok(numbers.iter().map(key).collect())
}

fn fork(wire: Option<v1::RelationFork>) -> Result<RelFork, NoAnswer> {
    let wire = wire.ok_or_else(|| Status::invalid_argument("the fork is missing"));
    wire.and_then(|wire| Ok(RelFork::try_from(wire)?))
        .map_err(NoAnswer::Failed)
}

fn page(page: ReadPage) -> v1::Page {
    match page {
        ReadPage::Page(page) => v1::Page {
            page: Bytes::from(page as Box<[u8]>),
            error: String::new(),
        },
        ReadPage::Zeros => v1::Page::default(),
        ReadPage::Failed(error) => v1::Page {
            page: Bytes::new(),
            error,
        },
    }
}

#[tonic::async_trait]
impl Pages for PagesService {
    type HoldReadPointStream = ReceiverStream<hold::Answer>;
    type StreamPagesStream = BoxStream<'static, Result<v1::PagesAnswer, Status>>;

    async fn get_pages(
        &self,
        request: Request<v1::GetPagesRequest>,
    ) -> Result<Response<v1::GetPagesReply>, Status> {
        let grant = Grant::of(&request)?;
        Ok(Response::new(self.reply(grant, request.into_inner()).await?))
    }

    async fn stream_pages(
        &self,
        request: Request<Streaming<v1::PagesQuestion>>,
    ) -> Result<Response<Self::StreamPagesStream>, Status> {
        let grant = Grant::of(&request)?;
        let service = self.clone();
        // All in the task of the stream: an answer that needs no disk needs no hop either.
        let answers = request
            .into_inner()
            .map(move |question| service.clone().answer(grant.clone(), question))
            .buffer_unordered(MAX_QUESTIONS);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_unchanged(
        &self,
        request: Request<v1::GetUnchangedRequest>,
    ) -> Result<Response<v1::GetUnchangedReply>, Status> {
        match self.unchanged(request).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(NoAnswer::Refused(refused)) => Ok(Response::new(v1::GetUnchangedReply {
                refused: Some(refused.into()),
                ..Default::default()
            })),
            Err(NoAnswer::Failed(status)) => Err(status),
        }
    }

    async fn get_relation_size(
        &self,
        request: Request<v1::GetRelationSizeRequest>,
    ) -> Result<Response<v1::GetRelationSizeReply>, Status> {
        match self.size(request).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(NoAnswer::Refused(refused)) => Ok(Response::new(v1::GetRelationSizeReply {
                refused: Some(refused.into()),
                ..Default::default()
            })),
            Err(NoAnswer::Failed(status)) => Err(status),
        }
    }

    async fn hold_read_point(
        &self,
        request: Request<v1::HoldReadPointRequest>,
    ) -> Result<Response<Self::HoldReadPointStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let grant = Grant::of(&request)?;
        let (gate, derived) = (Arc::clone(&self.gate), Arc::clone(&self.derived));
        tokio::spawn(hold::hold(gate, derived, grant, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
