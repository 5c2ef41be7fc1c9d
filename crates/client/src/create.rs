//! Making a volume of unassigned nodes.

use std::collections::BTreeSet;

use futures::future::join_all;
use pg_quorum_proto::v1;
use pg_quorum_quorum::segment::{CreateRequest, SegmentState};
use pg_quorum_types::{Membership, ProtectionGroup, SegmentMember, VolumeId};

use crate::channel::Node;
use crate::error::within;
use crate::probe::{WaitFor, probe_nodes};
use crate::{CallError, ClientConfig, ConfigError, NodeReport, NodeStatus, Timeouts};

/// Nodes that a volume is made of: two in each of three availability zones.
const NODES: usize = 6;

/// Why no volume was made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("a volume is made of {NODES} nodes, {0} addresses are configured")]
    NotSix(usize),
    #[error("a new volume needs all six nodes:\n{}", .0.join("\n"))]
    NotReady(Vec<String>),
    #[error("two addresses lead to the same node, {0}")]
    SameNode(String),
}

/// Makes the configured nodes members of a new volume, which has no content yet: the next step is
/// [`crate::take_volume`], which finds it empty, and [`crate::import_base`].
///
/// Nodes that an earlier attempt for the same cluster has made members may be made members again, as long as
/// none of them has a complete base.
///
/// # Errors
/// See [`CreateError`]; nothing was changed unless a node failed in between, and then repeating it is right.
pub async fn create_volume(
    config: &ClientConfig,
    system_identifier: u64,
    progress: &dyn Fn(&str),
) -> Result<VolumeId, CreateError> {
    if config.nodes.len() != NODES {
        return Err(CreateError::NotSix(config.nodes.len()));
    }
    let nodes = config
        .nodes
        .iter()
        .map(|address| Node::new(address, &config.transport))
        .collect::<Result<Vec<_>, _>>()?;
    let reports = probe_nodes(&nodes, &config.transport.timeouts, WaitFor::All).await;
    let problems: Vec<String> = reports.iter().filter_map(problem).collect();
    if !problems.is_empty() {
        return Err(CreateError::NotReady(problems));
    }
    let membership = membership(&reports)?;
    let volume = config.volume.unwrap_or_else(VolumeId::random);
    progress(&format!("making volume {volume} of {}", names(&membership)));
    let answers = join_all(nodes.iter().zip(&membership.members).map(|(node, member)| {
        let request = CreateRequest {
            volume,
            protection_group: ProtectionGroup(0),
            system_identifier,
            membership: membership.clone(),
            segment: member.segment,
        };
        create_on(node, request, &config.transport.timeouts)
    }))
    .await;
    let problems: Vec<String> = membership
        .members
        .iter()
        .zip(answers)
        .filter_map(|(member, answer)| {
            Some(format!("{} ({}) {}", member.node, member.address, answer.err()?))
        })
        .collect();
    match problems.is_empty() {
        true => Ok(volume),
        false => Err(CreateError::NotReady(problems)),
    }
}

async fn create_on(node: &Node, request: CreateRequest, timeouts: &Timeouts) -> Result<(), CallError> {
    let patience = timeouts.connect + timeouts.request;
    let reply = within(
        patience,
        node.admin().create_volume(v1::CreateVolumeRequest::from(request)),
    )
    .await?;
    match reply.refused {
        Some(refused) => Err(CallError::refusal(refused)),
        None => Ok(()),
    }
}

/// Why the node cannot become a member.
fn problem(report: &NodeReport) -> Option<String> {
    let status = match &report.outcome {
        Err(error) => return Some(format!("{} {error}", report.address)),
        Ok(status) => status,
    };
    let name = format!("{} ({})", status.node, report.address);
    match status.state {
        SegmentState::Unassigned | SegmentState::Importing => None,
        SegmentState::Promised | SegmentState::Active if status.base.is_none() => None,
        SegmentState::Damaged => Some(format!("{name} is damaged: {}", status.message)),
        SegmentState::Promised | SegmentState::Active | SegmentState::ReadOnly => Some(match status.volume {
            Some(volume) => format!("{name} already belongs to volume {volume}"),
            None => format!("{name} {}", status.message),
        }),
    }
}

fn membership(reports: &[NodeReport]) -> Result<Membership, CreateError> {
    let mut seen = BTreeSet::new();
    let members = reports
        .iter()
        .filter_map(|report| Some((report, report.status()?)))
        .map(|(report, status)| {
            if !seen.insert(status.segment) {
                return Err(CreateError::SameNode(status.node.to_string()));
            }
            Ok(member(report, status))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Membership { version: 1, members })
}

fn member(report: &NodeReport, status: &NodeStatus) -> SegmentMember {
    SegmentMember {
        segment: status.segment,
        node: status.node.clone(),
        az: status.az.clone(),
        address: report.address.clone(),
    }
}

fn names(membership: &Membership) -> String {
    let names: Vec<&str> = membership
        .members
        .iter()
        .map(|member| member.node.0.as_str())
        .collect();
    names.join(", ")
}
