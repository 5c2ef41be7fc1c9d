//! `quorumctl volume`: the volume that the nodes keep.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::Subcommand;
use pg_quorum_client::{NodeReport, NodeStatus, probe};
use pg_quorum_quorum::QuorumSet;
use pg_quorum_quorum::segment::SegmentState;
use pg_quorum_types::{Lsn, Membership, VolumeId};
use serde::Serialize;

use super::Invocation;
use super::export::{self, Export};
use super::node::state_name;
use super::output::{print_json, print_text, table};

#[derive(Subcommand, Debug)]
pub(super) enum VolumeCommand {
    /// The volume's identity, members, epoch and owner, and whether it can be written
    #[command(
        after_help = "Example:\n  quorumctl --nodes 10.0.0.1:7101,10.0.0.2:7101 volume show\n\n\
                            The exit status is 1 if fewer segments than a write quorum can take part."
    )]
    Show,
    /// Write the volume's content as an ordinary data directory, which a stock PostgreSQL starts
    #[command(
        after_help = "Example:\n  quorumctl --nodes 10.0.0.1:7101,10.0.0.2:7101 volume export -D /var/lib/postgresql/15/back\n  \
                            pg_ctl -D /var/lib/postgresql/15/back start\n\n\
                            The volume is not taken: its server may run, and goes on. Transactions that are in progress are aborted in the\n\
                            copy. The copy is a fork with the same system identifier: what it writes never comes back to the volume."
    )]
    Export(Export),
}

pub(super) async fn run(invocation: &Invocation<'_>, command: &VolumeCommand) -> Result<bool> {
    match command {
        VolumeCommand::Show => show(invocation).await,
        VolumeCommand::Export(export) => export::run(invocation, export).await,
    }
}

async fn show(invocation: &Invocation<'_>) -> Result<bool> {
    let config = invocation.config()?;
    let reports = probe(&config).await?;
    let volume = which(config.volume, &reports)?;
    let row = VolumeRow::of(volume, &reports);
    if invocation.json {
        print_json(&row)?;
    } else {
        print_text(&row.text())?;
    }
    Ok(row.is_writable)
}

fn which(wanted: Option<VolumeId>, reports: &[NodeReport]) -> Result<VolumeId> {
    let volumes: BTreeSet<VolumeId> = reports
        .iter()
        .filter_map(|report| report.status()?.volume)
        .collect();
    let problems = || {
        let problem = |report: &NodeReport| match &report.outcome {
            Ok(status) => format!("\n  {} ({}) belongs to no volume", status.node, report.address),
            Err(error) => format!("\n  {} {error}", report.address),
        };
        reports.iter().map(problem).collect::<String>()
    };
    if reports.iter().all(|report| report.outcome.is_err()) {
        bail!(
            "no storage node answers; start the nodes, check their addresses, or whether they and this client both have TLS:{}",
            problems()
        );
    }
    match (wanted, volumes.len()) {
        (_, 0) => bail!(
            "the nodes keep no volume. The first start of a PostgreSQL server with shared_preload_libraries = 'pg_quorum' makes one:{}",
            problems()
        ),
        (Some(wanted), _) if volumes.contains(&wanted) => Ok(wanted),
        (Some(wanted), _) => bail!(
            "none of the nodes keeps volume {wanted}; they keep {}",
            list(&volumes)
        ),
        (None, 1) => Ok(*volumes.first().expect("one volume")),
        (None, _) => bail!(
            "the nodes keep several volumes, choose one with --volume: {}",
            list(&volumes)
        ),
    }
}

fn list(volumes: &BTreeSet<VolumeId>) -> String {
    let texts: Vec<String> = volumes.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

#[derive(Serialize, Debug)]
struct VolumeRow {
    volume: String,
    system_identifier: Option<u64>,
    pg_major: Option<u32>,
    timeline: Option<u32>,
    data_checksums: Option<bool>,
    membership_version: u64,
    epoch: u64,
    owner: Option<String>,
    /// The owner has shown lately that it lives.
    is_held: bool,
    /// The highest that a segment knows to be durable.
    vdl: u64,
    base_lsn: Option<u64>,
    /// A write quorum of segments can take part.
    is_writable: bool,
    segments: Vec<SegmentRow>,
}

#[derive(Serialize, Debug)]
struct SegmentRow {
    segment: String,
    node: String,
    az: String,
    address: String,
    state: String,
    scl: Option<u64>,
    can_vote: bool,
}

impl VolumeRow {
    fn of(volume: VolumeId, reports: &[NodeReport]) -> VolumeRow {
        let members: Vec<&NodeStatus> = reports
            .iter()
            .filter_map(NodeReport::status)
            .filter(|status| status.volume == Some(volume))
            .collect();
        let membership = members
            .iter()
            .filter_map(|status| status.membership.clone())
            .max_by_key(|membership| membership.version)
            .unwrap_or(Membership {
                version: 0,
                members: Vec::new(),
            });
        let segments: Vec<SegmentRow> = membership
            .members
            .iter()
            .map(|member| {
                let status = members.iter().find(|status| status.segment == member.segment);
                SegmentRow {
                    segment: member.segment.to_string(),
                    node: member.node.to_string(),
                    az: member.az.to_string(),
                    address: member.address.clone(),
                    state: status
                        .map_or("no answer", |status| state_name(status.state))
                        .to_owned(),
                    scl: status.map(|status| status.scl.0),
                    can_vote: status.is_some_and(|status| {
                        !matches!(status.state, SegmentState::Damaged | SegmentState::Unassigned)
                    }),
                }
            })
            .collect();
        let is_writable = !membership.members.is_empty()
            && QuorumSet::of(&membership).is_write_quorum(|segment| {
                let name = segment.to_string();
                segments.iter().any(|row| row.can_vote && row.segment == name)
            });
        let facts = members.iter().find_map(|status| status.facts);
        let latest = members.iter().max_by_key(|status| status.started);
        let owner = members
            .iter()
            .filter(|status| status.owner.is_some())
            .max_by_key(|status| (status.promised, status.lease_remaining));
        VolumeRow {
            volume: volume.to_string(),
            system_identifier: facts.map(|facts| facts.system_identifier),
            pg_major: facts.map(|facts| facts.pg_major),
            timeline: facts.map(|facts| facts.timeline),
            data_checksums: facts.map(|facts| facts.data_checksums),
            membership_version: membership.version,
            epoch: latest.map_or(0, |status| status.started.number),
            owner: owner.and_then(|status| Some(status.owner.as_ref()?.to_string())),
            is_held: owner.is_some_and(|status| !status.lease_remaining.is_zero()),
            vdl: members.iter().map(|status| status.vdl.0).max().unwrap_or(0),
            base_lsn: members.iter().find_map(|status| Some(status.base?.lsn.0)),
            is_writable,
            segments,
        }
    }

    fn text(&self) -> String {
        let known = |value: Option<String>| value.unwrap_or_else(|| "not known".to_owned());
        let owner = match (&self.owner, self.is_held) {
            (Some(owner), true) => owner.clone(),
            (Some(owner), false) => format!("nobody; {owner} was the last one"),
            (None, _) => "nobody".to_owned(),
        };
        let facts = [
            ("volume", self.volume.clone()),
            ("cluster", known(self.system_identifier.map(|id| id.to_string()))),
            ("PostgreSQL", known(self.pg_major.map(|major| major.to_string()))),
            (
                "timeline",
                known(self.timeline.map(|timeline| timeline.to_string())),
            ),
            ("held by", owner),
            ("epoch", self.epoch.to_string()),
            ("VDL", Lsn(self.vdl).to_string()),
            (
                "writable",
                match self.is_writable {
                    true => "yes".to_owned(),
                    false => "no: too few segments can take part".to_owned(),
                },
            ),
        ];
        let facts: String = facts
            .iter()
            .map(|(name, value)| format!("{name:<11} {value}\n"))
            .collect();
        let rows: Vec<Vec<String>> = self
            .segments
            .iter()
            .map(|row| {
                vec![
                    row.node.clone(),
                    row.az.clone(),
                    row.address.clone(),
                    row.state.clone(),
                    row.scl.map_or_else(String::new, |scl| Lsn(scl).to_string()),
                ]
            })
            .collect();
        format!(
            "{facts}\n{}",
            table(&["NODE", "AZ", "ADDRESS", "STATE", "SCL"], &rows)
        )
    }
}
