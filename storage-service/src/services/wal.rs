//! `Wal`: WAL as PostgreSQL wrote it.

use std::sync::Arc;

use pg_quorum_proto::v1;
use pg_quorum_proto::v1::wal_server::Wal;
use pg_quorum_types::Lsn;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::pages::wait_indexed;
use super::read_gate::{Admission, EpochRule, NoAnswer, ReadGate, blocking, send};
use crate::access::Grant;
use crate::derived::Derived;

/// Pieces that wait for the network.
const PIECES_IN_FLIGHT: usize = 4;
/// Bytes in one message, at most.
const PIECE_BYTES: usize = 1 << 20;

/// See the module.
pub struct WalService {
    gate: Arc<dyn ReadGate>,
    derived: Arc<Derived>,
}

type Chunk = Result<v1::WalChunk, Status>;

impl WalService {
    pub fn new(gate: Arc<dyn ReadGate>, derived: Arc<Derived>) -> WalService {
        WalService { gate, derived }
    }
}

async fn stream_wal(
    gate: Arc<dyn ReadGate>,
    derived: Arc<Derived>,
    request: Request<v1::ReadWalRequest>,
    chunks: mpsc::Sender<Chunk>,
) -> Result<(), NoAnswer> {
    let grant = Grant::of(&request)?;
    let request = request.into_inner();
    let admission = Admission::new(&gate, grant, request.context, EpochRule::Started)?;
    let (start, end) = (Lsn(request.start_lsn), Lsn(request.end_lsn));
    if start > end {
        let problem = format!("the range starts at {start} and ends before it at {end}");
        return Err(NoAnswer::Failed(Status::invalid_argument(problem)));
    }
    wait_indexed(&derived, end).await?;
    let read = blocking(&derived, move |derived| {
        derived.read_wal(start, end, &mut |lsn, wal| send_pieces(&chunks, lsn, wal))
    });
    read.await?;
    admission.check()?;
    Ok(())
}

/// False once the receiver has gone.
fn send_pieces(chunks: &mpsc::Sender<Chunk>, mut lsn: Lsn, wal: Vec<u8>) -> bool {
    let mut wal = bytes::Bytes::from(wal);
    while !wal.is_empty() {
        let piece = wal.split_to(wal.len().min(PIECE_BYTES));
        let chunk = v1::WalChunk {
            lsn: lsn.0,
            wal: piece.clone(),
            refused: None,
        };
        if !send(chunks, Ok(chunk)) {
            return false;
        }
        lsn = lsn + piece.len() as u64;
    }
    true
}

#[tonic::async_trait]
impl Wal for WalService {
    type ReadWalStream = ReceiverStream<Chunk>;

    async fn read_wal(
        &self,
        request: Request<v1::ReadWalRequest>,
    ) -> Result<Response<Self::ReadWalStream>, Status> {
        let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
        let (gate, derived) = (Arc::clone(&self.gate), Arc::clone(&self.derived));
        tokio::spawn(async move {
            let last = match stream_wal(gate, derived, request, sender.clone()).await {
                Ok(()) => return,
                Err(NoAnswer::Refused(refused)) => Ok(v1::WalChunk {
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
