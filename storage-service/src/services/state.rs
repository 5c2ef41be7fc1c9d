//! `State`: what a compute needs besides pages.

use std::sync::Arc;
use std::time::Duration;

use pg_quorum_proto::v1;
use pg_quorum_proto::v1::state_server::State;
use pg_quorum_quorum::{Refusal, Refused};
use pg_quorum_types::Lsn;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::content::state_item;
use super::read_gate::{Admission, EpochRule, NoAnswer, ReadGate, blocking, send};
use crate::access::Grant;
use crate::derived::{Derived, ImagePart};

/// Parts that wait for the network.
const PARTS_IN_FLIGHT: usize = 4;
/// An attach may come right after a restart, while the log is being indexed.
const INDEX_WAIT: Duration = Duration::from_secs(60);

/// See the module.
pub struct StateService {
    gate: Arc<dyn ReadGate>,
    derived: Arc<Derived>,
}

type Chunk = Result<v1::ComputeImageChunk, Status>;

impl StateService {
    pub fn new(gate: Arc<dyn ReadGate>, derived: Arc<Derived>) -> StateService {
        StateService { gate, derived }
    }
}

async fn stream_image(
    gate: Arc<dyn ReadGate>,
    derived: Arc<Derived>,
    request: Request<v1::GetComputeImageRequest>,
    chunks: mpsc::Sender<Chunk>,
) -> Result<(), NoAnswer> {
    let grant = Grant::of(&request)?;
    let request = request.into_inner();
    let control_file_only = request.control_file_only;
    let rule = if control_file_only {
        EpochRule::StartedOrNone
    } else {
        EpochRule::Started
    };
    let admission = Admission::new(&gate, grant, request.context, rule)?;
    let at = read_at(&admission, &derived, Lsn(request.lsn)).await?;
    let sender = chunks.clone();
    let image = blocking(&derived, move |derived| {
        derived.compute_image(at, control_file_only, &mut |part| send(&sender, Ok(chunk(part))))
    });
    image.await?;
    admission.check()?;
    Ok(())
}

/// The LSN of the image: what was asked for; who has no epoch gets what is durable and indexed here.
async fn read_at(admission: &Admission, derived: &Derived, asked: Lsn) -> Result<Lsn, NoAnswer> {
    if !admission.has_epoch() {
        return Ok(admission
            .view()
            .vdl
            .min(derived.indexed_lsn())
            .max(derived.applied_lsn()));
    }
    let indexed = derived.wait_indexed(asked, INDEX_WAIT).await;
    if indexed < asked {
        let message = format!("{asked} is asked for, this node has indexed up to {indexed}");
        return Err(Refused::plain(Refusal::OutOfRange, message).into());
    }
    Ok(asked)
}

fn chunk(part: ImagePart) -> v1::ComputeImageChunk {
    v1::ComputeImageChunk {
        items: part.items.into_iter().map(state_item).collect(),
        last_record_lsn: part.last_record_start.map_or(0, |lsn| lsn.0),
        refused: None,
    }
}

#[tonic::async_trait]
impl State for StateService {
    type GetComputeImageStream = ReceiverStream<Chunk>;

    async fn get_compute_image(
        &self,
        request: Request<v1::GetComputeImageRequest>,
    ) -> Result<Response<Self::GetComputeImageStream>, Status> {
        let (sender, receiver) = mpsc::channel(PARTS_IN_FLIGHT);
        let (gate, derived) = (Arc::clone(&self.gate), Arc::clone(&self.derived));
        tokio::spawn(async move {
            let last = match stream_image(gate, derived, request, sender.clone()).await {
                Ok(()) => return,
                Err(NoAnswer::Refused(refused)) => Ok(v1::ComputeImageChunk {
                    refused: Some(refused.into()),
                    ..Default::default()
                }),
                Err(NoAnswer::Failed(status)) => Err(status),
            };
            // A receiver that has gone needs no reason.
            let _gone = sender.send(last).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
