//! pg_control of a volume, for a directory that is not attached yet.

use bytes::Bytes;
use pg_quorum_proto::v1;
use pg_quorum_quorum::RequestContext;
use pg_quorum_types::{BLOCK_SIZE, ClusterFacts, Epoch, Owner, ProtectionGroup, VolumeId};

use super::StateError;
use crate::channel::Node;
use crate::error::within;
use crate::probe::{WaitFor, probe_nodes};
use crate::{CallError, ClientConfig, NodeStatus, Timeouts};

/// What a new compute directory needs to know of a volume.
#[derive(Clone, Debug)]
pub struct VolumeControl {
    pub volume: VolumeId,
    pub facts: ClusterFacts,
    /// 8192 bytes, as a cleanly stopped server would leave it.
    pub control_file: Bytes,
    /// Whoever holds the volume or held it last.
    pub owner: Option<Owner>,
}

/// Asks the nodes for the volume's pg_control, the one that knows the most first. Takes nothing from anybody.
///
/// # Errors
/// No volume, or no node that could answer.
pub async fn control_file(config: &ClientConfig) -> Result<VolumeControl, StateError> {
    let nodes = config
        .nodes
        .iter()
        .map(|address| Node::new(address, &config.transport))
        .collect::<Result<Vec<_>, _>>()?;
    let reports = probe_nodes(&nodes, &config.transport.timeouts, WaitFor::Most).await;
    let mut failures = Vec::new();
    let mut candidates: Vec<(&Node, &NodeStatus, VolumeId)> = Vec::new();
    for (node, report) in nodes.iter().zip(&reports) {
        match &report.outcome {
            Err(error) => failures.push(format!("{} {error}", node.address)),
            Ok(status) => match status.volume {
                Some(volume) if config.volume.is_none_or(|wanted| wanted == volume) => {
                    candidates.push((node, status, volume));
                }
                Some(volume) => failures.push(format!("{} keeps volume {volume}", node.address)),
                None => failures.push(format!("{} belongs to no volume", node.address)),
            },
        }
    }
    if candidates.is_empty() && reports.iter().all(|report| report.outcome.is_ok()) {
        return Err(StateError::NoVolume);
    }
    candidates.sort_by_key(|(_, status, _)| std::cmp::Reverse((status.started, status.indexed_lsn)));
    for (node, status, volume) in candidates {
        match ask(node, status, volume, &config.transport.timeouts).await {
            Ok(found) => return Ok(found),
            Err(error) => failures.push(format!("{} ({}) {error}", status.node, node.address)),
        }
    }
    Err(StateError::NoAnswer(failures))
}

async fn ask(
    node: &Node,
    status: &NodeStatus,
    volume: VolumeId,
    timeouts: &Timeouts,
) -> Result<VolumeControl, CallError> {
    let facts = status
        .facts
        .ok_or_else(|| CallError::Broken("has no complete base".to_owned()))?;
    let context = RequestContext {
        volume,
        protection_group: ProtectionGroup(0),
        epoch: Epoch::NONE,
        membership_version: status
            .membership
            .as_ref()
            .map_or(0, |membership| membership.version),
        segment: status.segment,
    };
    let request = v1::GetComputeImageRequest {
        context: Some(context.into()),
        lsn: status.vdl.0,
        control_file_only: true,
    };
    let patience = timeouts.connect + timeouts.request;
    let mut chunks = within(patience, node.state().get_compute_image(request)).await?;
    loop {
        let chunk = tokio::time::timeout(patience, chunks.message())
            .await
            .map_err(|_| CallError::TimedOut(patience))??
            .ok_or_else(|| CallError::Malformed("an image without pg_control".to_owned()))?;
        if let Some(refused) = chunk.refused {
            return Err(CallError::refusal(refused));
        }
        let control_file = chunk.items.into_iter().find_map(|item| match item.item {
            Some(v1::state_item::Item::ControlFile(bytes)) => Some(bytes),
            _ => None,
        });
        if let Some(control_file) = control_file {
            if control_file.len() != BLOCK_SIZE {
                return Err(CallError::Malformed(format!(
                    "pg_control of {} bytes",
                    control_file.len()
                )));
            }
            return Ok(VolumeControl {
                volume,
                facts,
                control_file,
                owner: status.owner.clone(),
            });
        }
    }
}
