//! Storage nodes and PostgreSQL servers as processes of this machine.
//!
//! `cargo xtask up` builds a deployment for a person with it, and the whole-system tests build theirs. It knows
//! directories, command lines, pid files and settings; it knows nothing of the protocol between them.
//!
//! ```text
//!   DIR/bin/quorumd, quorumctl          copies that the servers' account can reach
//!   DIR/nodes/az1-1/ … az3-2/           quorumd.pid, quorumd.log, data/
//!   DIR/compute/primary/                PGDATA
//!   DIR/compute/primary.log             what the server said
//!   DIR/pki/                            authority and certificates
//!   DIR/run/                            Unix sockets
//! ```

mod account;
mod binaries;
mod certificates;
mod command;
mod layout;
mod node;
mod postgres_source;
mod process;
mod root;
mod server;
mod settings;

pub use account::Account;
pub use binaries::{Binaries, workspace_root};
pub use certificates::Certificates;
pub use command::{capture, run};
pub use layout::{Layout, NODE_NAMES};
pub use node::{Node, NodeFlags, six_nodes, start_embedded};
pub use postgres_source::{PostgresSource, pg_isolation_regress, pg_regress};
pub use process::{descendants, is_alive, is_alive_as, kill, wait_until_gone, wait_until_reaped};
pub use root::as_root;
pub use rustix::process::Signal;
pub use server::{Server, ShutdownMode, StartFailed};
pub use settings::Settings;
