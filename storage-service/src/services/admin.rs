//! `Admin`: making a volume.

use std::sync::Arc;

use pg_quorum_proto::convert::WireError;
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::admin_server::Admin;
use pg_quorum_quorum::segment::CreateRequest;
use pg_quorum_quorum::{Refused, RequestContext};
use pg_quorum_types::{Base, ClusterFacts};
use tonic::{Request, Response, Status, Streaming};

use super::content_item;
use super::segment::blocking;
use crate::access::{Grant, Right};
use crate::derived::Derived;
use crate::segment::Segment;

/// See the module.
pub struct AdminService {
    segment: Arc<Segment>,
    derived: Arc<Derived>,
}

/// Why an import has not become a base.
enum NoImport {
    Refused(Box<Refused>),
    Failed(Status),
}

impl From<Box<Refused>> for NoImport {
    fn from(refused: Box<Refused>) -> NoImport {
        NoImport::Refused(refused)
    }
}

impl From<Status> for NoImport {
    fn from(status: Status) -> NoImport {
        NoImport::Failed(status)
    }
}

impl From<WireError> for NoImport {
    fn from(error: WireError) -> NoImport {
        NoImport::Failed(error.into())
    }
}

/// What an import's first message says.
#[derive(Clone, Copy)]
struct Header {
    context: RequestContext,
    base: Base,
    facts: ClusterFacts,
}

impl TryFrom<v1::import_chunk::Header> for Header {
    type Error = WireError;
    fn try_from(wire: v1::import_chunk::Header) -> Result<Header, WireError> {
        Ok(Header {
            context: wire
                .context
                .ok_or(WireError::Missing("the context"))?
                .try_into()?,
            base: wire.base.ok_or(WireError::Missing("the base"))?.try_into()?,
            facts: wire.facts.ok_or(WireError::Missing("the facts"))?.try_into()?,
        })
    }
}

impl AdminService {
    pub fn new(segment: Arc<Segment>, derived: Arc<Derived>) -> AdminService {
        AdminService { segment, derived }
    }

    async fn import(&self, grant: &Grant, mut chunks: Streaming<v1::ImportChunk>) -> Result<Base, NoImport> {
        let mut chunk = chunks
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("an import without a header"))?;
        let header: Header = chunk
            .header
            .take()
            .ok_or(WireError::Missing("the header"))?
            .try_into()?;
        let Header { context, base, facts } = header;
        grant.may(Right::Write, context.volume)?;
        if !blocking(&self.segment, move |segment| segment.begin_import(&context, base)).await?? {
            return Ok(base);
        }
        self.derive(move |derived| derived.begin_import(base, facts))
            .await?;
        let mut items: u64 = 0;
        loop {
            grant.may(Right::Write, context.volume)?;
            items += chunk.items.len() as u64;
            self.take_items(context, base, chunk.items).await?;
            if let Some(end) = chunk.end {
                if end.items != items {
                    let message = format!("{items} items came, {} were sent", end.items);
                    return Err(Status::data_loss(message).into());
                }
                break;
            }
            chunk = chunks
                .message()
                .await?
                .ok_or_else(|| Status::cancelled("the import ended before its end was sent"))?;
        }
        self.derive(move |derived| derived.finish_import(base).map(drop))
            .await?;
        blocking(&self.segment, move |segment| {
            segment.complete_import(&context, base, facts)
        })
        .await??;
        Ok(base)
    }

    async fn take_items(
        &self,
        context: RequestContext,
        base: Base,
        items: Vec<v1::StateItem>,
    ) -> Result<(), NoImport> {
        blocking(&self.segment, move |segment| {
            segment.renew_lease_by_import(&context)
        })
        .await??;
        let items: Result<Vec<_>, WireError> = items.into_iter().map(content_item).collect();
        let items = items?;
        if items.is_empty() {
            return Ok(());
        }
        self.derive(move |derived| derived.import_items(base, items))
            .await
    }

    /// Works on the derived state on a thread that may block.
    async fn derive<E: std::fmt::Display>(
        &self,
        work: impl FnOnce(&Derived) -> Result<(), E> + Send + 'static,
    ) -> Result<(), NoImport> {
        let derived = Arc::clone(&self.derived);
        let done = tokio::task::spawn_blocking(move || {
            work(&derived).map_err(|error| Status::failed_precondition(error.to_string()))
        });
        let done = done.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(done?)
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_volume(
        &self,
        request: Request<v1::CreateVolumeRequest>,
    ) -> Result<Response<v1::CreateVolumeReply>, Status> {
        let grant = Grant::of(&request)?;
        let request = CreateRequest::try_from(request.into_inner())?;
        grant.may(Right::Write, request.volume)?;
        // A member without a base can be given to another volume: not by whoever has a right to that one only.
        if let Some(present) = self.segment.volume() {
            grant.may(Right::Write, present)?;
        }
        let created = blocking(&self.segment, |segment| segment.create(request)).await?;
        Ok(Response::new(v1::CreateVolumeReply {
            refused: created.err().map(|refused| (*refused).into()),
        }))
    }

    async fn import_base(
        &self,
        request: Request<Streaming<v1::ImportChunk>>,
    ) -> Result<Response<v1::ImportReply>, Status> {
        let grant = Grant::of(&request)?;
        let reply = match self.import(&grant, request.into_inner()).await {
            Ok(base) => v1::ImportReply {
                base: Some(base.into()),
                refused: None,
            },
            Err(NoImport::Refused(refused)) => v1::ImportReply {
                base: None,
                refused: Some((*refused).into()),
            },
            Err(NoImport::Failed(status)) => {
                tracing::warn!(node = %self.segment.settings().node, "an import has failed: {}", status.message());
                return Err(status);
            }
        };
        Ok(Response::new(reply))
    }
}
