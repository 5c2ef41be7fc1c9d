//! Asking every address what it is.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pg_quorum_proto::v1;
use pg_quorum_quorum::write_quorum;

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
        .map(|address| Node::new(address, &config.transport))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(probe_nodes(&nodes, &config.transport.timeouts, WaitFor::All).await)
}

/// Whose answers are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WaitFor {
    /// Everybody's, as long as the timeouts say.
    All,
    /// Those of more than half; the others' only a moment longer: a node that hangs must not hold up a start.
    Most,
}

/// How long after most nodes the others may still answer.
const GRACE: Duration = Duration::from_millis(500);

pub(crate) async fn probe_nodes(nodes: &[Node], timeouts: &Timeouts, wait_for: WaitFor) -> Vec<NodeReport> {
    let mut answers: FuturesUnordered<_> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| async move { (index, status(node, timeouts).await) })
        .collect();
    let silent = || Err(CallError::TimedOut(GRACE));
    let mut outcomes: Vec<Result<NodeStatus, CallError>> = nodes.iter().map(|_| silent()).collect();
    let mut patience = Duration::MAX;
    let mut answered = 0;
    while let Ok(Some((index, outcome))) = tokio::time::timeout(patience, answers.next()).await {
        answered += usize::from(outcome.is_ok());
        outcomes[index] = outcome;
        if wait_for == WaitFor::Most && answered >= write_quorum(nodes.len()) {
            patience = GRACE;
        }
    }
    let reports = nodes.iter().zip(outcomes).map(|(node, outcome)| NodeReport {
        address: node.address.clone(),
        outcome: outcome.map(Box::new),
    });
    reports.collect()
}

pub(crate) async fn status(node: &Node, timeouts: &Timeouts) -> Result<NodeStatus, CallError> {
    let patience = timeouts.connect + timeouts.request;
    let reply = within(patience, node.segment().status(v1::StatusRequest {})).await?;
    Ok(reply.try_into()?)
}
