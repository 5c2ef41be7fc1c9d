//! Reading a volume without taking it: under the epoch that its writer has started, or had when it stopped.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pg_quorum_proto::v1;
use pg_quorum_quorum::QuorumSet;
use pg_quorum_types::{ComputeId, Lsn, Owner, SegmentMember};
use tonic::Streaming;

use crate::channel::Node;
use crate::error::within;
use crate::{Attachment, CallError, ClientConfig, ConfigError, NodeStatus, Timeouts, Transport, probe};

/// Why a volume cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObserveError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the nodes keep no volume")]
    NoVolume,
    #[error("the nodes keep several volumes; name one")]
    SeveralVolumes,
    /// What the others said.
    #[error("too few storage nodes answer to know where the volume ends:\n{}", .0.join("\n"))]
    NoReadQuorum(Vec<String>),
    #[error("no storage node can hold {lsn} for reading:\n{}", .failures.join("\n"))]
    NotHeld { lsn: Lsn, failures: Vec<String> },
}

/// What a reader needs of a volume that is somebody else's, at the highest VDL that its segments know.
///
/// Those asked are a read quorum of the membership: every write quorum has a member among them, so that the epoch is
/// the last one, and at most what was acknowledged a moment ago is missing.
///
/// # Errors
/// See [`ObserveError`].
pub async fn observe_volume(config: &ClientConfig) -> Result<Attachment, ObserveError> {
    let reports = probe(config).await?;
    let said = reports.iter().map(|report| match &report.outcome {
        Ok(status) => format!("{} ({}) is {:?}", status.node, report.address, status.state),
        Err(error) => format!("{} {error}", report.address),
    });
    let few = || ObserveError::NoReadQuorum(said.clone().collect());
    let members: Vec<(&str, &NodeStatus)> = reports
        .iter()
        .filter_map(|report| Some((report.address.as_str(), report.status()?)))
        .filter(|(_, status)| status.volume.is_some())
        .filter(|(_, status)| config.volume.is_none_or(|wanted| status.volume == Some(wanted)))
        .collect();
    let volumes: BTreeSet<_> = members.iter().filter_map(|(_, status)| status.volume).collect();
    if volumes.len() > 1 {
        return Err(ObserveError::SeveralVolumes);
    }
    let (Some(volume), Some((_, latest))) = (
        volumes.first().copied(),
        members
            .iter()
            .max_by_key(|(_, status)| (status.started, status.vdl)),
    ) else {
        let is_empty = reports.iter().all(|report| report.outcome.is_ok());
        return Err(if is_empty { ObserveError::NoVolume } else { few() });
    };
    let (Some(mut membership), Some(facts), Some(base)) =
        (latest.membership.clone(), latest.facts, latest.base)
    else {
        return Err(few());
    };
    let is_enough = QuorumSet::of(&membership)
        .is_read_quorum(|segment| members.iter().any(|(_, status)| status.segment == segment));
    if !is_enough {
        return Err(few());
    }
    for member in &mut membership.members {
        if let Some((address, _)) = members
            .iter()
            .find(|(_, status)| status.segment == member.segment)
        {
            (*address).clone_into(&mut member.address);
        }
    }
    Ok(Attachment {
        volume,
        membership,
        epoch: latest.started,
        history: latest.history.clone(),
        facts,
        base,
        vdl: latest.vdl,
        owner: latest.owner.clone().unwrap_or_else(nobody),
    })
}

fn nobody() -> Owner {
    Owner {
        compute: ComputeId(uuid::Uuid::nil()),
        description: "nobody".to_owned(),
    }
}

/// Segments that keep what can be read at an LSN, until this is dropped.
pub struct HeldReadPoint {
    holders: Vec<(SegmentMember, Streaming<v1::HeldReadPoint>)>,
}

impl HeldReadPoint {
    /// Asks all segments.
    ///
    /// # Errors
    /// None of them can.
    pub async fn hold(
        attachment: &Attachment,
        lsn: Lsn,
        transport: &Transport,
    ) -> Result<HeldReadPoint, ObserveError> {
        let mut asked = FuturesUnordered::new();
        for member in &attachment.membership.members {
            let node = Node::new(&member.address, transport)?;
            asked.push(async move {
                (
                    member,
                    hold_at(&node, attachment, member, lsn, &transport.timeouts).await,
                )
            });
        }
        let mut holders = Vec::new();
        let mut failures = Vec::new();
        while let Some((member, answer)) = asked.next().await {
            match answer {
                Ok(stream) => holders.push((member.clone(), stream)),
                Err(error) => failures.push(format!("{} ({}) {error}", member.node, member.address)),
            }
        }
        if holders.is_empty() {
            return Err(ObserveError::NotHeld { lsn, failures });
        }
        Ok(HeldReadPoint { holders })
    }

    /// The segments that hold it.
    pub fn members(&self) -> impl Iterator<Item = &SegmentMember> {
        self.holders.iter().map(|(member, _)| member)
    }
}

async fn hold_at(
    node: &Node,
    attachment: &Attachment,
    member: &SegmentMember,
    lsn: Lsn,
    timeouts: &Timeouts,
) -> Result<Streaming<v1::HeldReadPoint>, CallError> {
    let request = v1::HoldReadPointRequest {
        context: Some(attachment.context(member.segment).into()),
        lsn: lsn.0,
    };
    let patience = timeouts.connect + timeouts.request;
    let mut answers = within(patience, node.pages().hold_read_point(request)).await?;
    let first = tokio::time::timeout(patience, answers.message())
        .await
        .map_err(|_| CallError::TimedOut(patience))??
        .ok_or_else(|| CallError::Broken("the hold ended at once".to_owned()))?;
    match first.refused {
        Some(refused) => Err(CallError::refusal(refused)),
        None => Ok(answers),
    }
}
