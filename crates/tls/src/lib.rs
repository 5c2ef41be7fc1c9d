//! Mutual TLS between computes and storage nodes, and among storage nodes: one authority, a certificate for each side,
//! and nobody without one gets a byte of an answer.
//!
//! * [`TlsFiles`]: the three files that a process is told
//! * [`Tls`]: what they hold, read again when they change, so that certificates are renewed without a restart
//! * [`channel`]: the client's side
//! * [`incoming`]: the server's side
//!
//! Invariant: a process with [`Tls`] neither sends nor takes a request in the clear. A connection that stands is not
//! looked at again: a certificate that has run out or that was replaced counts for new connections.

mod channel;
mod files;
mod incoming;
mod tls;

pub use channel::channel;
pub use files::{TlsError, TlsFiles};
pub use incoming::{Caller, Connection, Peer, incoming};
pub use tls::Tls;
