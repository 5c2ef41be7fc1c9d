//! A volume's content at an LSN, but for relation pages.

use pg_quorum_proto::v1;
use pg_quorum_types::{Lsn, SegmentMember};
use tonic::Streaming;

use super::{Rotation, StateError};
use crate::error::within;
use crate::{Attachment, CallError, Timeouts, Transport};

/// One step of reading an image.
#[derive(Clone, PartialEq, Debug)]
pub enum ImageEvent {
    /// The image begins, or begins anew at another segment: what came before is void.
    Begin {
        /// Start of the last record before the LSN that was asked for: the back link of what is written next.
        last_record_lsn: Lsn,
    },
    Items(Vec<v1::StateItem>),
}

/// Reads a compute image, from the next segment when one fails.
pub struct ImageReader {
    attachment: Attachment,
    lsn: Lsn,
    timeouts: Timeouts,
    rotation: Rotation,
    stream: Option<Open>,
    is_finished: bool,
}

struct Open {
    member: SegmentMember,
    chunks: Streaming<v1::ComputeImageChunk>,
    has_begun: bool,
    items: Vec<v1::StateItem>,
}

/// The image at `lsn`, the end of a record at or below the VDL.
///
/// # Errors
/// Only a member's address that is no address; the rest is [`ImageReader::next`]'s.
pub fn compute_image(
    attachment: &Attachment,
    lsn: Lsn,
    transport: &Transport,
) -> Result<ImageReader, StateError> {
    Ok(ImageReader {
        rotation: Rotation::new(attachment, transport)?,
        attachment: attachment.clone(),
        lsn,
        timeouts: transport.timeouts,
        stream: None,
        is_finished: false,
    })
}

impl ImageReader {
    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// No segment could answer for `timeouts.quorum`.
    pub async fn next(&mut self) -> Result<Option<ImageEvent>, StateError> {
        while !self.is_finished {
            let mut open = match self.stream.take() {
                Some(open) => open,
                None => self.open().await?,
            };
            if !open.items.is_empty() {
                let items = std::mem::take(&mut open.items);
                self.stream = Some(open);
                return Ok(Some(ImageEvent::Items(items)));
            }
            match self.chunk(&mut open).await {
                Ok(None) if open.has_begun => self.is_finished = true,
                Ok(None) => self.rotation.failed(&open.member, "sent an empty image"),
                Ok(Some(chunk)) => {
                    self.rotation.succeeded(&self.timeouts);
                    open.items = chunk.items;
                    let is_first = !std::mem::replace(&mut open.has_begun, true);
                    self.stream = Some(open);
                    if is_first {
                        return Ok(Some(ImageEvent::Begin {
                            last_record_lsn: Lsn(chunk.last_record_lsn),
                        }));
                    }
                }
                Err(error) => self.rotation.failed(&open.member, error),
            }
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<Open, StateError> {
        loop {
            let (member, node) = self.rotation.next().await?;
            let request = v1::GetComputeImageRequest {
                context: Some(self.attachment.context(member.segment).into()),
                lsn: self.lsn.0,
                control_file_only: false,
            };
            let patience = self.timeouts.connect + self.timeouts.stall;
            match within(patience, node.state().get_compute_image(request)).await {
                Ok(chunks) => {
                    return Ok(Open {
                        member,
                        chunks,
                        has_begun: false,
                        items: Vec::new(),
                    });
                }
                Err(error) => self.rotation.failed(&member, error),
            }
        }
    }

    async fn chunk(&self, open: &mut Open) -> Result<Option<v1::ComputeImageChunk>, CallError> {
        let stall = self.timeouts.stall;
        let chunk = tokio::time::timeout(stall, open.chunks.message())
            .await
            .map_err(|_| CallError::TimedOut(stall))??;
        match chunk {
            Some(v1::ComputeImageChunk {
                refused: Some(refused),
                ..
            }) => Err(CallError::refusal(refused)),
            chunk => Ok(chunk),
        }
    }
}
