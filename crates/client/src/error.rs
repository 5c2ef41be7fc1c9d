//! How a request to one node can fail.

use std::error::Error as _;
use std::time::Duration;

use pg_quorum_proto::{WireError, v1};
use pg_quorum_quorum::{Refusal, Refused};

/// One request to one node did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// No connection: the request has not been sent.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Something answers there that does not speak this protocol.
    #[error("is no pg_quorum node, or only one side has TLS: {0}")]
    NotANode(String),
    /// No answer in time: the request may have been carried out.
    #[error("did not answer within {0:?}")]
    TimedOut(Duration),
    /// The connection ended or the node failed in between: the request may have been carried out.
    #[error("broke off: {0}")]
    Broken(String),
    /// The node said no: the request has not been carried out.
    #[error("refused: {0}")]
    Refused(Box<Refused>),
    /// The node does not accept our token, or the token is not for this. A new token may come.
    #[error("does not allow it: {0}")]
    NotAllowed(String),
    /// An answer that means nothing. A node of another version, or a defect.
    #[error("sent an answer that cannot be understood: {0}")]
    Malformed(String),
}

impl CallError {
    /// Whether the same request to the same node may succeed later.
    pub fn may_succeed_later(&self) -> bool {
        match self {
            CallError::Unreachable(_)
            | CallError::TimedOut(_)
            | CallError::Broken(_)
            | CallError::NotAllowed(_) => true,
            CallError::NotANode(_) | CallError::Malformed(_) => false,
            CallError::Refused(refused) => match refused.reason {
                Refusal::OwnerAlive | Refusal::NotStarted | Refusal::NoSpace | Refusal::OutOfRange => true,
                Refusal::LowerEpoch
                | Refusal::Superseded
                | Refusal::NotMember
                | Refusal::Membership
                | Refusal::Damaged
                | Refusal::OtherStart => false,
            },
        }
    }

    /// Whether the request may have been carried out all the same.
    pub fn may_have_happened(&self) -> bool {
        match self {
            // A stream is refused in between, when its token expires.
            CallError::NotAllowed(_)
            | CallError::TimedOut(_)
            | CallError::Broken(_)
            | CallError::Malformed(_) => true,
            CallError::Unreachable(_) | CallError::NotANode(_) | CallError::Refused(_) => false,
        }
    }

    /// What a reply's refusal means.
    pub(crate) fn refusal(refused: v1::Refused) -> CallError {
        match Refused::try_from(refused) {
            Ok(refused) => refused.into(),
            Err(error) => error.into(),
        }
    }

    /// The refusal, if it is one.
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            CallError::Refused(refused) => Some(refused),
            _ => None,
        }
    }
}

impl From<WireError> for CallError {
    fn from(error: WireError) -> CallError {
        CallError::Malformed(error.to_string())
    }
}

impl From<Refused> for CallError {
    fn from(refused: Refused) -> CallError {
        CallError::Refused(Box::new(refused))
    }
}

/// What tonic reports, sorted by what the caller can do about it.
impl From<tonic::Status> for CallError {
    fn from(status: tonic::Status) -> CallError {
        let mut text = status.message().to_owned();
        let mut source = status.source();
        let mut io_error = false;
        let mut protocol_error = false;
        while let Some(error) = source {
            io_error |= error.is::<std::io::Error>();
            let detail = error.to_string();
            // What a client makes of a peer that answers with something other than HTTP/2 frames.
            protocol_error |= detail.contains("frame with invalid size")
                || detail.contains("FRAME_SIZE_ERROR")
                || detail.contains("unspecific protocol error")
                || detail.contains("PROTOCOL_ERROR");
            if !text.contains(&detail) {
                text = format!("{text}: {detail}");
            }
            source = error.source();
        }
        match status.code() {
            tonic::Code::Unimplemented => CallError::NotANode(text),
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => CallError::NotAllowed(text),
            _ if protocol_error => CallError::NotANode(text),
            tonic::Code::Unavailable if io_error || text.contains("connect") => CallError::Unreachable(text),
            _ => CallError::Broken(text),
        }
    }
}

/// Waits for an answer, but not for ever.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(CallError::TimedOut(limit)),
    }
}
