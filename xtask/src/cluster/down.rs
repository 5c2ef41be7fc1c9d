//! Stopping a deployment: the server first, since its last record goes to the nodes.

use std::path::Path;

use anyhow::{Result, bail};
use pg_quorum_deployment::{Account, Binaries, Layout, Server, ShutdownMode, six_nodes};

use super::record::Record;
use crate::report;

/// Stops the server, then the nodes.
///
/// # Errors
/// No deployment in the directory, or the server does not stop.
pub fn down(directory: &Path) -> Result<()> {
    let Some(record) = Record::read(directory)? else {
        bail!(
            "{} holds no deployment (cargo xtask up --dir DIR makes one)",
            directory.display()
        );
    };
    let directory = directory.canonicalize()?;
    let layout = Layout::new(&directory);
    let server = Server {
        pgdata: layout.compute("primary"),
        port: record.primary_port(),
        log: layout.compute_log("primary"),
        binaries: Binaries::locate(),
        account: Account::for_servers()?,
    };
    if server.postmaster().is_some() {
        report::step("Stopping the server");
        server.stop(ShutdownMode::Fast)?;
    }
    report::step("Stopping the nodes");
    for node in six_nodes(&layout, record.node_port_base()) {
        node.stop();
    }
    Ok(())
}
