//! The node's gRPC services: wire messages in, calls to segment and derived state, wire messages out.
//!
//! Wire types stop here.

mod content;
mod pages;
mod read_gate;
mod state;
mod wal;

pub use content::{content_item, state_item};
pub use pages::PagesService;
pub use read_gate::ReadGate;
pub use state::StateService;
pub use wal::WalService;
