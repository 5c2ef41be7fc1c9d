//! Asking every address what it is.

use futures::future::join_all;
use pg_quorum_proto::v1;

use crate::channel::Node;
use crate::error::within;
use crate::{CallError, ClientConfig, ConfigError, NodeStatus, Timeouts};

/// What one address answered.
#[derive(Clone, Debug)]
pub struct NodeReport {
    pub address: String,
    pub outcome: Result<Box<NodeStatus>, CallError>,
}

impl NodeReport {
    pub fn status(&self) -> Option<&NodeStatus> {
        self.outcome.as_deref().ok()
    }
}

/// Asks all addresses at once; takes as long as the slowest answer, or the timeouts.
///
/// # Errors
/// Only an address that is none. A node that does not answer is a report.
pub async fn probe(config: &ClientConfig) -> Result<Vec<NodeReport>, ConfigError> {
    let nodes = config
        .nodes
        .iter()
        .map(|address| Node::new(address, &config.timeouts))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(probe_nodes(&nodes, &config.timeouts).await)
}

pub(crate) async fn probe_nodes(nodes: &[Node], timeouts: &Timeouts) -> Vec<NodeReport> {
    join_all(nodes.iter().map(|node| async move {
        NodeReport {
            address: node.address.clone(),
            outcome: status(node, timeouts).await.map(Box::new),
        }
    }))
    .await
}

pub(crate) async fn status(node: &Node, timeouts: &Timeouts) -> Result<NodeStatus, CallError> {
    let patience = timeouts.connect + timeouts.request;
    let reply = within(patience, node.segment().status(v1::StatusRequest {})).await?;
    Ok(reply.try_into()?)
}
