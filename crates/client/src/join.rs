//! Promise and Start of one segment: what taking a volume does to six at once, and what the appender does
//! to one that was away when its epoch began.

use pg_quorum_proto::convert::promise_outcome;
use pg_quorum_proto::v1;
use pg_quorum_quorum::segment::{Granted, PromiseRequest, StartProgress, StartRequest};
use pg_quorum_types::SegmentId;

use crate::channel::Node;
use crate::error::within;
use crate::{Attachment, CallError, Timeouts};

/// Asks for the epoch in the request's context.
pub(crate) async fn promise(
    node: &Node,
    request: PromiseRequest,
    timeouts: &Timeouts,
) -> Result<Granted, CallError> {
    let patience = timeouts.connect + timeouts.request;
    let reply = within(
        patience,
        node.segment().promise(v1::PromiseRequest::from(request)),
    )
    .await?;
    Ok(promise_outcome(reply)??)
}

/// Asks once; the segment answers within about a second how far it is.
pub(crate) async fn start(
    node: &Node,
    request: StartRequest,
    timeouts: &Timeouts,
) -> Result<StartProgress, CallError> {
    let patience = timeouts.connect + timeouts.request;
    let reply = within(patience, node.segment().start(v1::StartRequest::from(request))).await?;
    match reply.refused {
        Some(refused) => Err(CallError::refusal(refused)),
        None => Ok(reply.into()),
    }
}

/// Brings one segment into an epoch that a write quorum has started. The epoch is the volume's truth: an older
/// owner's lease on this segment does not count any more.
pub(crate) async fn join(
    node: &Node,
    attachment: &Attachment,
    segment: SegmentId,
    timeouts: &Timeouts,
) -> Result<StartProgress, CallError> {
    let context = attachment.context(segment);
    let promised = PromiseRequest {
        context,
        owner: attachment.owner.clone(),
        last_held_epoch: attachment.epoch.number,
        force: true,
    };
    promise(node, promised, timeouts).await?;
    let started = StartRequest {
        context,
        history: attachment.history.clone(),
        base: attachment.base,
    };
    start(node, started, timeouts).await
}
