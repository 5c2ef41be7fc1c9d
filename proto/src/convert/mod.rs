//! Wire types to domain types and back, one module for each family of messages.

mod admin;
mod common;
mod peer;
mod segment;

pub use common::{history_from_wire, history_to_wire, optional_epoch, uuid_from_wire, uuid_to_wire};
pub use peer::{PeerMessage, PullRequest};
pub use segment::promise_outcome;

/// A message that does not mean anything. It was not acted on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{what} has {bytes} bytes instead of 16")]
    UuidLength { what: &'static str, bytes: usize },
    #[error("{what} {value} is out of range")]
    OutOfRange { what: &'static str, value: u64 },
    #[error(transparent)]
    History(#[from] pg_quorum_types::HistoryError),
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> tonic::Status {
        tonic::Status::invalid_argument(error.to_string())
    }
}
