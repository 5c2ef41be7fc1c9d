//! `Segment`: who may write, the log, and how the segment is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::Stream;
use pg_quorum_proto::convert::{history_to_wire, uuid_to_wire};
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::segment_server::Segment as SegmentRpc;
use pg_quorum_quorum::segment::{PromiseRequest, StartRequest};
use pg_quorum_types::Epoch;
use tonic::{Request, Response, Status, Streaming};

use super::append_stream::AppendStream;
use crate::access::{Grant, Right};
use crate::derived::Derived;
use crate::segment::Segment;

/// How long a Start waits for its log before it says how far it is.
const START_WAIT: Duration = Duration::from_secs(1);

/// See the module.
pub struct SegmentService {
    segment: Arc<Segment>,
    derived: Arc<Derived>,
}

impl SegmentService {
    pub fn new(segment: Arc<Segment>, derived: Arc<Derived>) -> SegmentService {
        SegmentService { segment, derived }
    }

    /// Waits for a bounded time until the epoch is started here, or will not be.
    async fn wait_started(&self, epoch: Epoch) {
        let mut view = self.segment.subscribe();
        let decided = view.wait_for(|view| view.started == epoch || view.promised != epoch);
        let _ = tokio::time::timeout(START_WAIT, decided).await;
    }
}

/// Carries out something that blocks on the disk.
///
/// # Errors
/// It panicked.
pub(super) async fn blocking<T: Send + 'static>(
    segment: &Arc<Segment>,
    work: impl FnOnce(&Segment) -> T + Send + 'static,
) -> Result<T, Status> {
    let segment = Arc::clone(segment);
    tokio::task::spawn_blocking(move || work(&segment))
        .await
        .map_err(|error| Status::internal(error.to_string()))
}

#[tonic::async_trait]
impl SegmentRpc for SegmentService {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<v1::AppendReply, Status>> + Send>>;

    async fn promise(
        &self,
        request: Request<v1::PromiseRequest>,
    ) -> Result<Response<v1::PromiseReply>, Status> {
        let grant = Grant::of(&request)?;
        let request = PromiseRequest::try_from(request.into_inner())?;
        grant.may(Right::Write, request.context.volume)?;
        let outcome = blocking(&self.segment, |segment| segment.promise(request)).await?;
        Ok(Response::new(outcome.map_err(|refused| *refused).into()))
    }

    async fn start(&self, request: Request<v1::StartRequest>) -> Result<Response<v1::StartReply>, Status> {
        let grant = Grant::of(&request)?;
        let request = StartRequest::try_from(request.into_inner())?;
        grant.may(Right::Write, request.context.volume)?;
        let epoch = request.context.epoch;
        let outcome = blocking(&self.segment, |segment| segment.start(request)).await?;
        let reply = match outcome {
            Err(refused) => v1::StartReply {
                refused: Some((*refused).into()),
                ..v1::StartReply::default()
            },
            Ok(progress) if progress.started => progress.into(),
            Ok(progress) => {
                self.wait_started(epoch).await;
                let now = *self.segment.subscribe().borrow();
                v1::StartReply {
                    started: now.started == epoch,
                    scl: now.scl.0,
                    ..progress.into()
                }
            }
        };
        Ok(Response::new(reply))
    }

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let grant = Grant::of(&request)?;
        let indexed = self.derived.indexed_with_room();
        let stream = AppendStream::new(Arc::clone(&self.segment), indexed, grant, request.into_inner());
        Ok(Response::new(Box::pin(stream.into_replies())))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        // A node without a volume tells everybody who has a token so: volumes are made of such nodes.
        if let Some(volume) = self.segment.volume() {
            Grant::of(&request)?.may(Right::Read, volume)?;
        }
        let derived = Arc::clone(&self.derived);
        let stats = blocking(&self.segment, move |_| derived.stats()).await?;
        let log = self.segment.log();
        let now = self.segment.now();
        let settings = self.segment.settings();
        let reply = self.segment.with_machine(|machine| {
            let meta = machine.meta();
            let message = match machine.trouble() {
                Some(trouble) => trouble.to_owned(),
                None if stats.failure.is_empty() && stats.pages_unbuildable > 0 => format!(
                    "{} pages cannot be built here and are refused: {}",
                    stats.pages_unbuildable, stats.unbuildable_because
                ),
                None => stats.failure.clone(),
            };
            v1::StatusReply {
                node: settings.node.0.clone(),
                az: settings.az.0.clone(),
                segment: uuid_to_wire(meta.segment.0),
                volume: meta
                    .assignment
                    .as_ref()
                    .map(|assignment| uuid_to_wire(assignment.volume.0))
                    .unwrap_or_default(),
                state: v1::SegmentState::from(machine.state()).into(),
                message,
                membership: meta
                    .assignment
                    .as_ref()
                    .map(|assignment| assignment.membership.clone().into()),
                facts: meta.base.map(|complete| complete.facts.into()),
                base: meta.base.map(|complete| complete.base.into()),
                promised: machine.promised().is_some().then(|| machine.promised().into()),
                started: machine.started().is_some().then(|| machine.started().into()),
                owner: meta.owner.clone().map(Into::into),
                lease_remaining_ms: machine.lease_remaining(now).as_millis() as u64,
                history: history_to_wire(&meta.history),
                scl: machine.scl().0,
                vdl: machine.vdl().0,
                indexed_lsn: stats.indexed.0,
                applied_lsn: stats.applied.0,
                floor_lsn: stats.floor.0,
                log_bytes: 0,
                page_store_bytes: stats.store_bytes,
                pages_served: stats.pages_served,
                pages_unbuildable: stats.pages_unbuildable,
                pages_mended: stats.pages_mended,
                records_received: log.counters.records.load(Ordering::Relaxed),
                syncs: log.counters.syncs.load(Ordering::Relaxed),
                tail_cuts: meta.tail_cuts,
                cut_bytes: meta.cut_bytes,
                version: 1,
            }
        });
        let log_bytes = log.bytes_on_disk();
        Ok(Response::new(v1::StatusReply { log_bytes, ..reply }))
    }
}
