//! The node's gRPC services: wire messages in, calls to segment and derived state, wire messages out.
//!
//! Wire types stop here.

mod admin;
mod append_stream;
mod content;
mod hold;
mod pages;
mod peer;
mod read_gate;
mod segment;
mod state;
mod wal;

pub use admin::AdminService;
pub use content::{content_item, state_item};
pub use pages::PagesService;
pub use peer::PeerService;
pub use read_gate::ReadGate;
pub use segment::SegmentService;
pub use state::StateService;
pub use wal::WalService;
