//! WAL as PostgreSQL wrote it, page headers and all.

use bytes::Bytes;
use pg_quorum_proto::v1;
use pg_quorum_types::{Lsn, SegmentMember};
use tonic::Streaming;

use super::{Rotation, StateError};
use crate::error::within;
use crate::{Attachment, CallError, Timeouts, Transport};

/// A piece of the range, which follows the one before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalChunk {
    pub lsn: Lsn,
    pub wal: Bytes,
}

/// Reads a range of WAL; goes on at the next segment, from where it was, when one fails.
pub struct WalReader {
    attachment: Attachment,
    /// First byte that has not been read.
    position: Lsn,
    end: Lsn,
    timeouts: Timeouts,
    rotation: Rotation,
    stream: Option<(SegmentMember, Streaming<v1::WalChunk>)>,
}

/// The bytes of `[start, end)`.
///
/// # Errors
/// Only a member's address that is no address; the rest is [`WalReader::next`]'s.
pub fn read_wal(
    attachment: &Attachment,
    start: Lsn,
    end: Lsn,
    transport: &Transport,
) -> Result<WalReader, StateError> {
    Ok(WalReader {
        rotation: Rotation::new(attachment, transport)?,
        attachment: attachment.clone(),
        position: start,
        end,
        timeouts: transport.timeouts,
        stream: None,
    })
}

impl WalReader {
    /// The next piece; `None` when the range is read.
    ///
    /// # Errors
    /// No segment could answer for `timeouts.quorum`.
    pub async fn next(&mut self) -> Result<Option<WalChunk>, StateError> {
        while self.position < self.end {
            let (member, mut chunks) = match self.stream.take() {
                Some(open) => open,
                None => self.open().await?,
            };
            match self.chunk(&mut chunks).await {
                Ok(chunk) => {
                    self.rotation.succeeded(&self.timeouts);
                    self.position = chunk.lsn + chunk.wal.len() as u64;
                    self.stream = Some((member, chunks));
                    return Ok(Some(chunk));
                }
                Err(error) => self.rotation.failed(&member, error),
            }
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<(SegmentMember, Streaming<v1::WalChunk>), StateError> {
        loop {
            let (member, node) = self.rotation.next().await?;
            let request = v1::ReadWalRequest {
                context: Some(self.attachment.context(member.segment).into()),
                start_lsn: self.position.0,
                end_lsn: self.end.0,
            };
            let patience = self.timeouts.connect + self.timeouts.stall;
            match within(patience, node.wal().read_wal(request)).await {
                Ok(chunks) => return Ok((member, chunks)),
                Err(error) => self.rotation.failed(&member, error),
            }
        }
    }

    async fn chunk(&self, chunks: &mut Streaming<v1::WalChunk>) -> Result<WalChunk, CallError> {
        let stall = self.timeouts.stall;
        let chunk = tokio::time::timeout(stall, chunks.message())
            .await
            .map_err(|_| CallError::TimedOut(stall))??
            .ok_or_else(|| CallError::Broken(format!("the WAL ends at {}", self.position)))?;
        if let Some(refused) = chunk.refused {
            return Err(CallError::refusal(refused));
        }
        let end = Lsn(chunk.lsn.saturating_add(chunk.wal.len() as u64));
        if Lsn(chunk.lsn) != self.position || chunk.wal.is_empty() || end > self.end {
            return Err(CallError::Malformed(format!(
                "WAL of {} to {end} in answer to {} to {}",
                Lsn(chunk.lsn),
                self.position,
                self.end
            )));
        }
        Ok(WalChunk {
            lsn: Lsn(chunk.lsn),
            wal: chunk.wal,
        })
    }
}
