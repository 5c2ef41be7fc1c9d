//! `quorumctl node`: what each node says about itself.

use anyhow::Result;
use clap::Subcommand;
use pg_quorum_client::{NodeReport, NodeStatus, probe};
use pg_quorum_quorum::segment::SegmentState;
use serde::Serialize;

use super::Invocation;
use super::output::{bytes, print_json, print_text, table};

#[derive(Subcommand, Debug)]
pub(super) enum NodeCommand {
    /// Each node's state: its segment, how much of the log it has, what it has done
    #[command(
        after_help = "Example:\n  quorumctl --nodes 10.0.0.1:7101,10.0.0.2:7101 node status\n\n\
                            The exit status is 1 if a node does not answer or has a problem."
    )]
    Status,
}

pub(super) async fn run(invocation: &Invocation<'_>, command: &NodeCommand) -> Result<bool> {
    match command {
        NodeCommand::Status => status(invocation).await,
    }
}

async fn status(invocation: &Invocation<'_>) -> Result<bool> {
    let reports = probe(&invocation.config()?).await?;
    let rows: Vec<NodeRow> = reports.iter().map(NodeRow::of).collect();
    if invocation.json {
        print_json(&rows)?;
    } else {
        print_text(&text(&reports))?;
    }
    Ok(rows.iter().all(|row| row.is_well))
}

/// One node. LSNs are numbers, as in the protocol.
#[derive(Serialize, Debug, Default)]
struct NodeRow {
    address: String,
    is_well: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    status: Option<StatusRow>,
}

#[derive(Serialize, Debug)]
struct StatusRow {
    node: String,
    az: String,
    segment: String,
    volume: Option<String>,
    state: String,
    message: String,
    promised_epoch: u64,
    started_epoch: u64,
    owner: Option<String>,
    lease_remaining_ms: u64,
    scl: u64,
    vdl: u64,
    indexed_lsn: u64,
    applied_lsn: u64,
    floor_lsn: u64,
    log_bytes: u64,
    page_store_bytes: u64,
    pages_served: u64,
    pages_unbuildable: u64,
    pages_mended: u64,
    records_received: u64,
    syncs: u64,
    tail_cuts: u64,
    cut_bytes: u64,
}

impl NodeRow {
    fn of(report: &NodeReport) -> NodeRow {
        match &report.outcome {
            Err(error) => NodeRow {
                address: report.address.clone(),
                error: Some(error.to_string()),
                ..NodeRow::default()
            },
            Ok(status) => NodeRow {
                address: report.address.clone(),
                is_well: !matches!(status.state, SegmentState::Damaged | SegmentState::ReadOnly)
                    && status.message.is_empty(),
                error: None,
                status: Some(StatusRow::of(status)),
            },
        }
    }
}

impl StatusRow {
    fn of(status: &NodeStatus) -> StatusRow {
        StatusRow {
            node: status.node.to_string(),
            az: status.az.to_string(),
            segment: status.segment.to_string(),
            volume: status.volume.map(|volume| volume.to_string()),
            state: state_name(status.state).to_owned(),
            message: status.message.clone(),
            promised_epoch: status.promised.number,
            started_epoch: status.started.number,
            owner: status.owner.as_ref().map(ToString::to_string),
            lease_remaining_ms: u64::try_from(status.lease_remaining.as_millis()).unwrap_or(u64::MAX),
            scl: status.scl.0,
            vdl: status.vdl.0,
            indexed_lsn: status.indexed_lsn.0,
            applied_lsn: status.applied_lsn.0,
            floor_lsn: status.floor_lsn.0,
            log_bytes: status.counters.log_bytes,
            page_store_bytes: status.counters.page_store_bytes,
            pages_served: status.counters.pages_served,
            pages_unbuildable: status.counters.pages_unbuildable,
            pages_mended: status.counters.pages_mended,
            records_received: status.counters.records_received,
            syncs: status.counters.syncs,
            tail_cuts: status.counters.tail_cuts,
            cut_bytes: status.counters.cut_bytes,
        }
    }
}

pub(super) fn state_name(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Unassigned => "unassigned",
        SegmentState::Importing => "importing",
        SegmentState::Promised => "promised",
        SegmentState::Active => "active",
        SegmentState::ReadOnly => "read_only",
        SegmentState::Damaged => "damaged",
    }
}

fn text(reports: &[NodeReport]) -> String {
    let furthest = reports
        .iter()
        .filter_map(NodeReport::status)
        .map(|status| status.scl)
        .max()
        .unwrap_or_default();
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|report| match &report.outcome {
            Err(_) => vec!["?".into(), "?".into(), report.address.clone(), "no answer".into()],
            Ok(status) => vec![
                status.node.to_string(),
                status.az.to_string(),
                report.address.clone(),
                state_name(status.state).to_owned(),
                status.started.to_string(),
                status.scl.to_string(),
                status.vdl.to_string(),
                bytes(furthest.bytes_since(status.scl)),
                bytes(status.counters.log_bytes),
                bytes(status.counters.page_store_bytes),
                status.counters.pages_served.to_string(),
            ],
        })
        .collect();
    let header = [
        "NODE", "AZ", "ADDRESS", "STATE", "EPOCH", "SCL", "VDL", "BEHIND", "LOG", "PAGES", "SERVED",
    ];
    let mut text = table(&header, &rows);
    for report in reports {
        match &report.outcome {
            Err(error) => text.push_str(&format!("{} {error}\n", report.address)),
            Ok(status) if !status.message.is_empty() => {
                text.push_str(&format!(
                    "{} ({}): {}\n",
                    status.node, report.address, status.message
                ));
            }
            Ok(_) => {}
        }
    }
    text
}
