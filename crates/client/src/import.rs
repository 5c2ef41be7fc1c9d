//! A volume's first content: one source, streamed to all six segments.
//!
//! ```text
//!                       ┌─ queue ═▶ segment 1 ─┐
//!  items ─▶ chunks ─────┼─ queue ═▶ segment 2 ─┼─▶ four complete bases ─▶ Start at the base's LSN
//!                       └─ queue ═▶ …          ┘
//! ```
//!
//! The queues are bounded and share their content: a slow segment slows the source down once its queue is
//! full, one that makes no progress for `timeouts.stall` is given up and reported. An import that ends early
//! leaves bases without an end, which never count; the next one replaces them whole.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use pg_quorum_proto::v1;
use pg_quorum_quorum::QuorumSet;
use pg_quorum_quorum::writer::Verdict;
use pg_quorum_types::{Base, ClusterFacts, Lsn, SegmentId};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use crate::channel::Node;
use crate::import_pace::Pace;
use crate::take::start_on_all;
use crate::{Attachment, CallError, ClientConfig, EmptyVolume, ReadyVolume, join};

/// Bytes of items in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that wait for one segment.
const QUEUE_CHUNKS: usize = 16;
/// How long the nodes may take to make a complete base durable.
const SYNC_PATIENCE: Duration = Duration::from_secs(600);
/// How often a person hears how much has been sent.
const NEWS_EVERY: Duration = Duration::from_secs(5);

/// Why the volume still has no content.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the cluster's files could not be read: {0}")]
    Source(#[from] std::io::Error),
    #[error("fewer than four segments got a complete base; start again to repeat the import:\n{}", .0.join("\n"))]
    TooFew(Vec<String>),
    #[error("the epoch could not be started with the new base:\n{}", .0.join("\n"))]
    NotStarted(Vec<String>),
}

/// The volume is open.
#[derive(Debug)]
pub struct Imported {
    pub ready: ReadyVolume,
    /// Segments that have no base, and why.
    pub incomplete: Vec<String>,
    pub items: u64,
    pub bytes: u64,
}

/// A cluster's content, to be read once.
pub struct Source<S> {
    /// As of here: the end of the cluster's last record.
    pub lsn: Lsn,
    pub facts: ClusterFacts,
    /// About how much it is.
    pub bytes: u64,
    pub items: S,
}

/// Imports a cluster's content and starts the volume's first epoch.
///
/// `progress` is told, in a sentence for a log, what is waited for; every few seconds also how much has been sent, how
/// fast, and how long the rest will take.
///
/// # Errors
/// See [`ImportError`]. The volume is then as empty as before.
pub async fn import_base(
    config: &ClientConfig,
    empty: EmptyVolume,
    source: Source<impl Stream<Item = std::io::Result<v1::StateItem>>>,
    progress: &dyn Fn(&str),
) -> Result<Imported, ImportError> {
    let Source { lsn, facts, .. } = source;
    let base = Base {
        id: Uuid::new_v4(),
        lsn,
    };
    let mut import = Import::begin(config, &empty, base, facts).await;
    let sent = import.send_all(source, progress).await?;
    progress(&format!(
        "the cluster's content is sent ({} MB), waiting until it is durable",
        sent.bytes >> 20
    ));
    import.wait_complete(base).await?;
    let incomplete = import.describe_problems();
    let ready = start(config, empty, base, facts, progress).await?;
    Ok(Imported {
        ready,
        incomplete,
        items: sent.items,
        bytes: sent.bytes,
    })
}

#[derive(Clone, Copy, Default)]
struct Sent {
    items: u64,
    bytes: u64,
}

struct Import<'a> {
    config: &'a ClientConfig,
    empty: &'a EmptyVolume,
    quorum: QuorumSet,
    uploads: Vec<Upload>,
    replies: JoinSet<(SegmentId, Result<Option<Base>, CallError>)>,
}

struct Upload {
    segment: SegmentId,
    /// `None`: closed, or given up.
    queue: Option<mpsc::Sender<v1::ImportChunk>>,
    is_complete: bool,
    problem: Option<String>,
}

impl<'a> Import<'a> {
    /// Opens a stream to every segment that has promised, or does so now.
    async fn begin(
        config: &'a ClientConfig,
        empty: &'a EmptyVolume,
        base: Base,
        facts: ClusterFacts,
    ) -> Import<'a> {
        let mut import = Import {
            config,
            empty,
            quorum: QuorumSet::of(&empty.roster.membership),
            uploads: Vec::new(),
            replies: JoinSet::new(),
        };
        for (segment, node) in empty.roster.segments() {
            let upload = match import.ensure_promised(segment, node).await {
                Ok(()) => import.open(segment, node.clone(), base, facts),
                Err(error) => Upload {
                    segment,
                    queue: None,
                    is_complete: false,
                    problem: Some(error.to_string()),
                },
            };
            import.uploads.push(upload);
        }
        import
    }

    async fn ensure_promised(&self, segment: SegmentId, node: &Node) -> Result<(), CallError> {
        let takeover = &self.empty.takeover;
        if takeover.promised().any(|(promised, _)| promised == segment) {
            return Ok(());
        }
        let request = takeover.promise_request(segment);
        join::promise(node, request, &self.config.transport.timeouts)
            .await
            .map(|_| ())
    }

    fn open(&mut self, segment: SegmentId, node: Node, base: Base, facts: ClusterFacts) -> Upload {
        let (queue, chunks) = mpsc::channel(QUEUE_CHUNKS);
        let header = v1::ImportChunk {
            header: Some(v1::import_chunk::Header {
                context: Some(self.empty.takeover.context(segment).into()),
                base: Some(base.into()),
                facts: Some(facts.into()),
            }),
            ..v1::ImportChunk::default()
        };
        let stream = futures::stream::iter([header]).chain(ReceiverStream::new(chunks));
        self.replies
            .spawn(async move { (segment, upload(&node, stream).await) });
        Upload {
            segment,
            queue: Some(queue),
            is_complete: false,
            problem: None,
        }
    }

    async fn send_all(
        &mut self,
        source: Source<impl Stream<Item = std::io::Result<v1::StateItem>>>,
        progress: &dyn Fn(&str),
    ) -> Result<Sent, ImportError> {
        let mut items = std::pin::pin!(source.items);
        let mut sent = Sent::default();
        let mut chunk = v1::ImportChunk::default();
        let mut chunk_bytes = 0;
        let began = Instant::now();
        let mut told_at = began;
        while let Some(item) = items.next().await {
            let item = item?;
            chunk_bytes += item.encoded_len();
            sent.items += 1;
            chunk.items.push(item);
            if chunk_bytes >= CHUNK_BYTES {
                sent.bytes += chunk_bytes as u64;
                chunk_bytes = 0;
                self.send(std::mem::take(&mut chunk)).await?;
                if told_at.elapsed() >= NEWS_EVERY {
                    told_at = Instant::now();
                    let pace = Pace {
                        sent_bytes: sent.bytes,
                        total_bytes: source.bytes,
                        elapsed: began.elapsed(),
                    };
                    progress(&format!("import: {}", pace.describe()));
                }
            }
        }
        sent.bytes += chunk_bytes as u64;
        chunk.end = Some(v1::import_chunk::End { items: sent.items });
        self.send(chunk).await?;
        for upload in &mut self.uploads {
            upload.queue = None;
        }
        Ok(sent)
    }

    /// Puts a chunk into every queue; waits for the slowest segment that still makes progress.
    async fn send(&mut self, chunk: v1::ImportChunk) -> Result<(), ImportError> {
        let stall = self.config.transport.timeouts.stall;
        for upload in &mut self.uploads {
            let Some(queue) = &upload.queue else { continue };
            match tokio::time::timeout(stall, queue.send(chunk.clone())).await {
                Ok(Ok(())) => {}
                // The upload has ended; its reply says why.
                Ok(Err(_)) => upload.queue = None,
                Err(_) => {
                    upload.queue = None;
                    upload.problem = Some(format!("took nothing for {stall:?}"));
                }
            }
        }
        self.take_replies_of_now();
        self.check_quorum(|upload| upload.queue.is_some())
    }

    /// Waits for the nodes' word that their bases are durable; for those behind the first four only as long as
    /// a stalled upload may take.
    async fn wait_complete(&mut self, base: Base) -> Result<(), ImportError> {
        let mut deadline = Instant::now() + SYNC_PATIENCE;
        while let Ok(Some(reply)) = tokio::time::timeout_at(deadline.into(), self.replies.join_next()).await {
            if let Ok((segment, answer)) = reply {
                self.on_reply(segment, answer, Some(base));
            }
            if self.check_quorum(|upload| upload.is_complete).is_ok() {
                deadline = deadline.min(Instant::now() + self.config.transport.timeouts.stall);
            }
        }
        for upload in &mut self.uploads {
            if !upload.is_complete && upload.problem.is_none() {
                upload.problem = Some("did not say in time that its base is durable".to_owned());
            }
        }
        self.check_quorum(|upload| upload.is_complete)
    }

    /// Uploads that have ended before their time.
    fn take_replies_of_now(&mut self) {
        while let Some(reply) = self.replies.try_join_next() {
            if let Ok((segment, answer)) = reply {
                self.on_reply(segment, answer, None);
            }
        }
    }

    fn on_reply(
        &mut self,
        segment: SegmentId,
        answer: Result<Option<Base>, CallError>,
        wanted: Option<Base>,
    ) {
        let Some(upload) = self.uploads.iter_mut().find(|upload| upload.segment == segment) else {
            return;
        };
        match answer {
            Ok(base) if base.is_some() && base == wanted => upload.is_complete = true,
            Ok(_) => upload.problem = Some("ended the import before its end".to_owned()),
            Err(error) => upload.problem = Some(error.to_string()),
        }
        upload.queue = None;
    }

    fn check_quorum(&self, has: impl Fn(&Upload) -> bool) -> Result<(), ImportError> {
        let is_quorum = self.quorum.is_write_quorum(|segment| {
            self.uploads
                .iter()
                .any(|upload| upload.segment == segment && has(upload))
        });
        match is_quorum {
            true => Ok(()),
            false => Err(ImportError::TooFew(self.describe_problems())),
        }
    }

    fn describe_problems(&self) -> Vec<String> {
        self.uploads
            .iter()
            .filter_map(|upload| {
                let problem = upload.problem.as_ref()?;
                Some(format!("{} {problem}", self.empty.roster.name(upload.segment)))
            })
            .collect()
    }
}

async fn upload(
    node: &Node,
    chunks: impl Stream<Item = v1::ImportChunk> + Send + 'static,
) -> Result<Option<Base>, CallError> {
    let reply = node.admin().import_base(chunks).await?.into_inner();
    match reply.refused {
        Some(refused) => Err(CallError::refusal(refused)),
        None => Ok(reply.base.map(Base::try_from).transpose()?),
    }
}

async fn start(
    config: &ClientConfig,
    empty: EmptyVolume,
    base: Base,
    facts: ClusterFacts,
    progress: &dyn Fn(&str),
) -> Result<ReadyVolume, ImportError> {
    let EmptyVolume {
        mut takeover,
        roster,
        owner,
    } = empty;
    takeover.start_with_base(base);
    let deadline = Instant::now() + config.transport.timeouts.stall;
    let cuts = start_on_all(
        &mut takeover,
        &roster,
        &config.transport.timeouts,
        deadline,
        progress,
    )
    .await;
    match takeover.start_verdict() {
        Verdict::Held => {}
        Verdict::NoQuorum { obstacles } => return Err(ImportError::NotStarted(roster.describe(&obstacles))),
        verdict => return Err(ImportError::NotStarted(vec![format!("{verdict:?}")])),
    }
    Ok(ReadyVolume {
        attachment: Attachment {
            volume: roster.volume,
            membership: roster.reachable_membership(),
            epoch: takeover.epoch(),
            history: takeover.history().cloned().unwrap_or_default(),
            facts,
            base,
            vdl: base.lsn,
            owner,
        },
        cut_bytes: cuts.bytes,
        cut_segments: cuts.segments,
    })
}
