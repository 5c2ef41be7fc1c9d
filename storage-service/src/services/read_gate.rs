//! Who may read: only the requester whose epoch is the one that this segment has started, and only while
//! it is.

use std::sync::Arc;
use std::time::Duration;

use pg_quorum_proto::v1;
use pg_quorum_quorum::{Refusal, Refused, RequestContext};
use pg_quorum_types::Epoch;
use tokio::sync::mpsc;
use tonic::Status;

use crate::access::{Grant, Right};
use crate::derived::{Derived, DerivedError};
use crate::log::LogView;

/// What a read must know of the segment.
pub trait ReadGate: Send + Sync + 'static {
    /// Whether the request means this segment: volume, protection group, membership, segment.
    ///
    /// # Errors
    /// Why it does not.
    fn check_segment(&self, context: &RequestContext) -> Result<(), Refused>;

    /// Epochs and watermarks of now.
    fn view(&self) -> LogView;
}

/// Whether a request must name the started epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochRule {
    /// It must.
    Started,
    /// It may also come from somebody who has no epoch yet.
    StartedOrNone,
}

/// A reader's right to an answer, checked before the work and once more before the answer is given.
pub struct Admission {
    gate: Arc<dyn ReadGate>,
    grant: Grant,
    context: RequestContext,
    rule: EpochRule,
}

/// Why there is no answer: as a part of the reply, or as an error of the call.
pub enum NoAnswer {
    Refused(Refused),
    Failed(Status),
}

impl From<Refused> for NoAnswer {
    fn from(refused: Refused) -> Self {
        NoAnswer::Refused(refused)
    }
}

impl From<Status> for NoAnswer {
    fn from(status: Status) -> Self {
        NoAnswer::Failed(status)
    }
}

impl From<DerivedError> for NoAnswer {
    fn from(error: DerivedError) -> Self {
        match &error {
            DerivedError::NoBase
            | DerivedError::TooOld { .. }
            | DerivedError::NotIndexed { .. }
            | DerivedError::Log { .. } => {
                NoAnswer::Refused(Refused::plain(Refusal::OutOfRange, error.to_string()))
            }
            DerivedError::Damaged(_) | DerivedError::Wal(_) => {
                tracing::error!(%error, "a read failed");
                NoAnswer::Refused(Refused::plain(Refusal::Damaged, error.to_string()))
            }
            DerivedError::Import(_) => NoAnswer::Failed(Status::failed_precondition(error.to_string())),
            DerivedError::Store(_) | DerivedError::Panicked => {
                tracing::error!(%error, "a read failed");
                NoAnswer::Failed(Status::internal(error.to_string()))
            }
            DerivedError::Stopping => NoAnswer::Failed(Status::unavailable(error.to_string())),
        }
    }
}

impl Admission {
    /// Checks a request's context.
    ///
    /// # Errors
    /// A context that means nothing, or that has no right to an answer here.
    pub fn new(
        gate: &Arc<dyn ReadGate>,
        grant: Grant,
        context: Option<v1::Context>,
        rule: EpochRule,
    ) -> Result<Admission, NoAnswer> {
        let context = context.ok_or_else(|| Status::invalid_argument("the context is missing"));
        let context = context.and_then(|context| Ok(RequestContext::try_from(context)?));
        let admission = Admission {
            gate: Arc::clone(gate),
            grant,
            context: context.map_err(NoAnswer::Failed)?,
            rule,
        };
        admission.check()?;
        Ok(admission)
    }

    /// The same again: what was built meanwhile may be given out only if nothing has changed.
    ///
    /// # Errors
    /// As for [`Admission::new`].
    pub fn check(&self) -> Result<(), NoAnswer> {
        self.grant.may(Right::Read, self.context.volume)?;
        self.gate.check_segment(&self.context)?;
        Ok(check_epoch(self.context.epoch, self.rule, &self.gate.view())?)
    }

    pub fn view(&self) -> LogView {
        self.gate.view()
    }

    pub fn has_epoch(&self) -> bool {
        self.context.epoch.is_some()
    }
}

fn check_epoch(epoch: Epoch, rule: EpochRule, view: &LogView) -> Result<(), Refused> {
    if epoch == view.started && epoch.is_some() {
        return Ok(());
    }
    if epoch == Epoch::NONE && rule == EpochRule::StartedOrNone {
        return Ok(());
    }
    let (reason, message) = if epoch < view.started.max(view.promised) {
        let message = format!("epoch {epoch} has been superseded by epoch {}", view.promised);
        (Refusal::LowerEpoch, message)
    } else {
        let message = format!("epoch {epoch} is not started here");
        (Refusal::NotStarted, message)
    };
    Err(Refused {
        promised: view.promised,
        ..Refused::plain(reason, message)
    })
}

/// How long a receiver may take nothing before it is given up: what is read for it holds on to memory.
const RECEIVER_PATIENCE: Duration = Duration::from_secs(60);

/// Sends from a thread that may block. False once the receiver has gone, or takes nothing.
pub fn send<T>(receiver: &mpsc::Sender<T>, value: T) -> bool {
    let sent = receiver.send_timeout(value, RECEIVER_PATIENCE);
    tokio::runtime::Handle::current().block_on(sent).is_ok()
}

/// The derived state on a thread that may block.
///
/// # Errors
/// What `read` returns, or that it panicked.
pub async fn blocking<T: Send + 'static>(
    derived: &Arc<Derived>,
    read: impl FnOnce(&Derived) -> Result<T, DerivedError> + Send + 'static,
) -> Result<T, NoAnswer> {
    let derived = Arc::clone(derived);
    match tokio::task::spawn_blocking(move || read(&derived)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(NoAnswer::Failed(Status::internal(error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_quorum_types::Lsn;
    use uuid::Uuid;

    fn epoch(number: u64) -> Epoch {
        Epoch {
            number,
            writer: Uuid::from_u128(number.into()),
        }
    }

    fn refusal(asks: Epoch, rule: EpochRule, promised: u64, started: u64) -> Option<Refusal> {
        let view = LogView {
            scl: Lsn(100),
            vdl: Lsn(100),
            pgmrpl: Lsn::INVALID,
            promised: epoch(promised),
            started: epoch(started),
        };
        check_epoch(asks, rule, &view).err().map(|refused| refused.reason)
    }

    #[test]
    fn only_the_started_epoch_reads() {
        assert_eq!(refusal(epoch(3), EpochRule::Started, 3, 3), None);
        assert_eq!(
            refusal(epoch(3), EpochRule::Started, 4, 3),
            None,
            "the volume is not taken before the start"
        );
        assert_eq!(
            refusal(epoch(3), EpochRule::Started, 4, 4),
            Some(Refusal::LowerEpoch)
        );
        assert_eq!(
            refusal(epoch(4), EpochRule::Started, 4, 3),
            Some(Refusal::NotStarted)
        );
    }

    #[test]
    fn who_has_no_epoch_reads_only_where_none_is_needed() {
        assert_eq!(
            refusal(Epoch::NONE, EpochRule::Started, 3, 3),
            Some(Refusal::LowerEpoch)
        );
        assert_eq!(refusal(Epoch::NONE, EpochRule::StartedOrNone, 3, 3), None);
        assert!(refusal(Epoch::NONE, EpochRule::Started, 0, 0).is_some());
    }
}
