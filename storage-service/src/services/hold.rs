//! Read points that a reader holds as long as its call lasts.

use std::sync::Arc;
use std::time::Duration;

use pg_quorum_proto::v1;
use pg_quorum_types::Lsn;
use tokio::sync::mpsc;
use tonic::Status;

use super::pages::wait_indexed;
use super::read_gate::{Admission, EpochRule, NoAnswer, ReadGate};
use crate::access::Grant;
use crate::derived::Derived;

/// How often it is seen whether the reader is still there and still has a right to be.
const INTERVAL: Duration = Duration::from_secs(1);

/// An answer of `HoldReadPoint`.
pub(super) type Answer = Result<v1::HeldReadPoint, Status>;

/// Holds the read point until the reader goes, the epoch changes or the node stops.
pub(super) async fn hold(
    gate: Arc<dyn ReadGate>,
    derived: Arc<Derived>,
    grant: Grant,
    request: v1::HoldReadPointRequest,
    answers: mpsc::Sender<Answer>,
) {
    let last = match hold_while_admitted(&gate, &derived, grant, request, &answers).await {
        Ok(()) => return,
        Err(NoAnswer::Refused(refused)) => Ok(v1::HeldReadPoint {
            refused: Some(refused.into()),
        }),
        Err(NoAnswer::Failed(status)) => Err(status),
    };
    // A receiver that has gone needs no reason.
    let _gone = answers.send(last).await;
}

async fn hold_while_admitted(
    gate: &Arc<dyn ReadGate>,
    derived: &Arc<Derived>,
    grant: Grant,
    request: v1::HoldReadPointRequest,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), NoAnswer> {
    let admission = Admission::new(gate, grant, request.context, EpochRule::Started)?;
    let at = Lsn(request.lsn);
    wait_indexed(derived, at).await?;
    let _held = derived.hold(at)?;
    // A node that stops takes its base away first: what is held must not keep its store open.
    while derived.base().is_some() {
        admission.check()?;
        // Full: the reader takes nothing. The connection's own probes find out whether it lives.
        let is_there = !matches!(
            answers.try_send(Ok(v1::HeldReadPoint { refused: None })),
            Err(mpsc::error::TrySendError::Closed(_))
        );
        if !is_there || tokio::time::timeout(INTERVAL, answers.closed()).await.is_ok() {
            break;
        }
    }
    Ok(())
}
