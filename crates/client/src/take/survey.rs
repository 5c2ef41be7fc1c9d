//! Who is there: members of the volume with the addresses at which they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pg_quorum_quorum::QuorumSet;
use pg_quorum_quorum::segment::SegmentState;
use pg_quorum_quorum::writer::Obstacle;
use pg_quorum_types::{ComputeId, Epoch, Membership, Owner, SegmentId, VolumeId};

use super::{TakeError, TakeRequest};
use crate::channel::Node;
use crate::probe::{WaitFor, probe_nodes};
use crate::{ClientConfig, Fenced, NodeReport, NodeStatus};

/// The members of a volume, and how each of them was found.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    pub volume: VolumeId,
    /// As the segments have it.
    pub membership: Membership,
    found: BTreeMap<SegmentId, Found>,
}

#[derive(Clone, Debug)]
struct Found {
    node: Node,
    /// `None`: no answer, or none as this segment.
    status: Option<Box<NodeStatus>>,
    problem: Option<String>,
}

pub(super) enum Survey {
    /// A write quorum could vote.
    Voters(Box<Roster>),
    /// What is wrong with each node.
    TooFew(Vec<String>),
}

/// Asks the configured addresses, and the members that are not among them at their own.
pub(super) async fn survey(
    config: &ClientConfig,
    expected_system_identifier: Option<u64>,
) -> Result<Survey, TakeError> {
    let nodes = config
        .nodes
        .iter()
        .map(|address| Node::new(address, &config.transport))
        .collect::<Result<Vec<_>, _>>()?;
    let reports = probe_nodes(&nodes, &config.transport.timeouts, WaitFor::Most).await;
    let Some((volume, membership)) = which_volume(config, &reports)? else {
        if reports.iter().all(|report| report.outcome.is_ok()) {
            return Err(TakeError::NoVolume { reports });
        }
        return Ok(Survey::TooFew(reports.iter().map(describe_report).collect()));
    };
    let roster = complete_roster(config, volume, membership, &nodes, &reports).await?;
    if let Some(expected) = expected_system_identifier
        && let Some(found) = roster.system_identifier()
        && found != expected
    {
        return Err(TakeError::OtherCluster {
            volume,
            expected,
            found,
        });
    }
    if QuorumSet::of(&roster.membership).is_write_quorum(|segment| roster.can_vote(segment)) {
        return Ok(Survey::Voters(Box::new(roster)));
    }
    Ok(Survey::TooFew(roster.describe_all()))
}

/// The volume that the nodes keep, with the newest membership that one of them knows. `None`: no volume.
fn which_volume(
    config: &ClientConfig,
    reports: &[NodeReport],
) -> Result<Option<(VolumeId, Membership)>, TakeError> {
    let statuses = || reports.iter().filter_map(NodeReport::status);
    let volumes: BTreeSet<VolumeId> = statuses().filter_map(|status| status.volume).collect();
    // Making a volume broke off half way: nothing can be in it, and it is made again.
    let is_half_made = reports.iter().all(|report| report.outcome.is_ok())
        && statuses().all(|status| status.base.is_none())
        && statuses().any(|status| status.volume.is_none());
    if is_half_made {
        return Ok(None);
    }
    let volume = match (config.volume, volumes.len()) {
        (_, 0) => return Ok(None),
        (Some(wanted), _) if volumes.contains(&wanted) => wanted,
        (Some(expected), _) => {
            let found = *volumes.first().unwrap_or(&expected);
            return Err(TakeError::OtherVolume { expected, found });
        }
        (None, 1) => *volumes.first().expect("one volume"),
        (None, _) => return Err(TakeError::SeveralVolumes(volumes.into_iter().collect())),
    };
    let membership = statuses()
        .filter(|status| status.volume == Some(volume))
        .filter_map(|status| status.membership.clone())
        .filter(|membership| !membership.members.is_empty())
        .max_by_key(|membership| membership.version);
    Ok(membership.map(|membership| (volume, membership)))
}

async fn complete_roster(
    config: &ClientConfig,
    volume: VolumeId,
    membership: Membership,
    nodes: &[Node],
    reports: &[NodeReport],
) -> Result<Roster, TakeError> {
    let mut found = BTreeMap::new();
    let mut elsewhere = Vec::new();
    for member in &membership.members {
        let answered = nodes.iter().zip(reports).find(|(_, report)| {
            report
                .status()
                .is_some_and(|status| status.segment == member.segment)
        });
        if let Some((node, report)) = answered {
            found.insert(
                member.segment,
                Found::of(node.clone(), report, volume, member.segment),
            );
        } else {
            elsewhere.push((member.segment, Node::new(&member.address, &config.transport)?));
        }
    }
    // Whoever was asked a moment ago is not asked again.
    let (asked, unknown): (Vec<_>, Vec<_>) = elsewhere
        .into_iter()
        .partition(|(_, node)| reports.iter().any(|report| report.address == node.address));
    for (segment, node) in asked {
        if let Some(report) = reports.iter().find(|report| report.address == node.address) {
            found.insert(segment, Found::of(node, report, volume, segment));
        }
    }
    let addresses: Vec<Node> = unknown.iter().map(|(_, node)| node.clone()).collect();
    let reports = probe_nodes(&addresses, &config.transport.timeouts, WaitFor::Most).await;
    for ((segment, node), report) in unknown.into_iter().zip(&reports) {
        found.insert(segment, Found::of(node, report, volume, segment));
    }
    Ok(Roster {
        volume,
        membership,
        found,
    })
}

impl Found {
    fn of(node: Node, report: &NodeReport, volume: VolumeId, segment: SegmentId) -> Found {
        let (status, problem) = match &report.outcome {
            Err(error) => (None, Some(error.to_string())),
            Ok(status) if status.segment != segment => (
                None,
                Some(format!(
                    "does not vote: it keeps segment {} instead of {segment} (a new or emptied directory)",
                    status.segment
                )),
            ),
            Ok(status) if status.volume != Some(volume) => (
                None,
                Some("does not vote: it has not been made a member of the volume".to_owned()),
            ),
            Ok(status) if status.state == SegmentState::Damaged => (
                Some(status.clone()),
                Some(format!("does not vote: damaged: {}", status.message)),
            ),
            Ok(status) => (Some(status.clone()), None),
        };
        Found {
            node,
            status,
            problem,
        }
    }
}

impl Roster {
    pub fn node(&self, segment: SegmentId) -> Option<&Node> {
        self.found.get(&segment).map(|found| &found.node)
    }

    pub fn segments(&self) -> impl Iterator<Item = (SegmentId, &Node)> {
        self.found.iter().map(|(&segment, found)| (segment, &found.node))
    }

    pub fn can_vote(&self, segment: SegmentId) -> bool {
        self.found
            .get(&segment)
            .is_some_and(|found| found.problem.is_none())
    }

    fn voters(&self) -> impl Iterator<Item = &NodeStatus> {
        self.found
            .values()
            .filter(|found| found.problem.is_none())
            .filter_map(|found| found.status.as_deref())
    }

    fn system_identifier(&self) -> Option<u64> {
        self.voters()
            .find_map(|status| status.facts.map(|facts| facts.system_identifier))
    }

    pub fn highest_promised(&self) -> Epoch {
        self.voters()
            .map(|status| status.promised)
            .max()
            .unwrap_or(Epoch::NONE)
    }

    /// Another owner whose lease has not run out at some segment, with the longest of these leases.
    pub fn living_owner(&self, compute: ComputeId) -> Option<(Owner, Duration)> {
        self.voters()
            .filter_map(|status| Some((status.owner.clone()?, status.lease_remaining)))
            .filter(|(owner, remaining)| owner.compute != compute && !remaining.is_zero())
            .max_by_key(|(_, remaining)| *remaining)
    }

    /// Whoever has held the volume since the requester did.
    pub fn superseded(&self, request: &TakeRequest) -> Option<Fenced> {
        if request.last_held_epoch == 0 {
            return None;
        }
        let holder = self
            .voters()
            .filter(|status| status.started.is_some() && status.started == status.promised)
            .max_by_key(|status| status.started)?;
        let is_later = holder.started.number > request.last_held_epoch;
        let is_other = holder
            .owner
            .as_ref()
            .is_some_and(|owner| owner.compute != request.owner.compute);
        (is_later && is_other).then(|| Fenced {
            epoch: holder.started.number,
            owner: holder.owner.clone(),
        })
    }

    /// The membership with the addresses at which the nodes answer.
    pub fn reachable_membership(&self) -> Membership {
        let mut membership = self.membership.clone();
        for member in &mut membership.members {
            if let Some(node) = self.node(member.segment) {
                member.address.clone_from(&node.address);
            }
        }
        membership
    }

    /// A line for each member that has an obstacle.
    pub fn describe(&self, obstacles: &[(SegmentId, Obstacle)]) -> Vec<String> {
        let text = |obstacle: &Obstacle| match obstacle {
            Obstacle::Refused(refused) => format!("refused: {refused}"),
            Obstacle::Unreachable(message) => message.clone(),
        };
        obstacles
            .iter()
            .map(|(segment, obstacle)| format!("{} {}", self.name(*segment), text(obstacle)))
            .collect()
    }

    fn describe_all(&self) -> Vec<String> {
        self.membership
            .members
            .iter()
            .filter_map(|member| {
                let found = self.found.get(&member.segment)?;
                let text = found.problem.as_deref().unwrap_or("is ready");
                Some(format!("{} {text}", self.name(member.segment)))
            })
            .collect()
    }

    pub fn name(&self, segment: SegmentId) -> String {
        let name = self
            .membership
            .member(segment)
            .map_or_else(|| segment.to_string(), |member| member.node.to_string());
        match self.node(segment) {
            Some(node) => format!("{name} ({})", node.address),
            None => name,
        }
    }
}

fn describe_report(report: &NodeReport) -> String {
    match &report.outcome {
        Ok(status) => format!("{} ({}) belongs to no volume yet", status.node, report.address),
        Err(error) => format!("{} {error}", report.address),
    }
}
