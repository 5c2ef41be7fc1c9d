//! Drives one storage node with WAL, as the writer of a volume that has no other member: the driver of
//! `cargo xtask bench ingest`.
//!
//! It goes the way of a compute: an import, an epoch, an append stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::BytesMut;
use clap::Parser;
use futures::stream;
use pg_quorum_client::{
    AppendLimits, Appender, Batch, ClientConfig, Fenced, NoWalSource, NodeStatus, ReadyVolume, Source,
    TakeRequest, Taken, import_base, probe, take_volume,
};
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::admin_client::AdminClient;
use pg_quorum_quorum::segment::CreateRequest;
use pg_quorum_tests::volume::Volume;
use pg_quorum_tests::wal_files::{Records, WalFiles};
use pg_quorum_types::{ComputeId, Lsn, Membership, Owner, ProtectionGroup, SegmentMember, VolumeId};
use serde::Serialize;
use storage_service::derived::DerivedSettings;
use storage_service::services::state_item;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// Records of one batch, about: what a link worker sends when there is much to send.
const BATCH_BYTES: usize = 512 << 10;
/// Batches that are not durable yet.
const BATCHES_IN_FLIGHT: usize = 6;
/// How long the node may take to turn the rest of the log into pages.
const APPLY_PATIENCE: Duration = Duration::from_secs(600);
/// How often the node's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Parser)]
struct Arguments {
    /// The data directory of a server that was stopped cleanly.
    #[arg(long)]
    base: PathBuf,
    /// `pg_wal` with what was written from its shutdown checkpoint on.
    #[arg(long)]
    wal: PathBuf,
    /// Address of a node that belongs to no volume.
    #[arg(long)]
    node: String,
    /// Where the node says what it does, HOST:PORT.
    #[arg(long)]
    metrics: String,
}

/// What is printed, as JSON.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    ingested: Ingested,
    /// The most that the node's index and metadata took, and their limit.
    index_memory_peak: u64,
    index_memory_limit: u64,
}

#[derive(Serialize)]
struct Ingested {
    wal_bytes: u64,
    records: u64,
    /// Until everything was durable.
    seconds: f64,
    /// Until everything was turned into pages, too.
    seconds_until_applied: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wal = WalFiles::since_stop(&arguments.base, &arguments.wal);
    let config = ClientConfig::parse(&arguments.node)?;
    let mut records = wal.records();
    let checkpoint = records.next().context("there is no WAL")??;
    let ready = open_volume(&config, &wal, checkpoint.end, &arguments.base).await?;
    let mut index_memory_peak = 0;
    let ingested = tokio::select! {
        ingested = ingest(&config, ready, &mut records) => ingested?,
        Err(error) = follow_index_memory(&arguments.metrics, &mut index_memory_peak) => return Err(error),
    };
    let outcome = Outcome {
        ingested,
        index_memory_peak,
        index_memory_limit: DerivedSettings::default().index_bytes as u64,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// Raises `peak` to what the node's index takes, until it is dropped.
async fn follow_index_memory(metrics: &str, peak: &mut u64) -> Result<Infallible> {
    loop {
        let mut connection = TcpStream::connect(metrics).await?;
        let request = "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let sample = answer
            .lines()
            .find(|line| line.starts_with("pg_quorum_index_memory_bytes"))
            .and_then(|line| line.split_whitespace().last()?.parse().ok());
        *peak = sample
            .map(|bytes: u64| bytes.max(*peak))
            .context("the node does not say what its index takes")?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn status(config: &ClientConfig) -> Result<NodeStatus> {
    let report = probe(config).await?.pop().context("one address, one report")?;
    Ok(*report.outcome?)
}

/// Makes a volume of the one node, with the base's pages as its content at `end`.
async fn open_volume(config: &ClientConfig, wal: &WalFiles, end: Lsn, base: &Path) -> Result<ReadyVolume> {
    let node = status(config).await?;
    let address = config.nodes[0].clone();
    let request = CreateRequest {
        volume: VolumeId::random(),
        protection_group: ProtectionGroup(0),
        system_identifier: wal.facts.system_identifier,
        membership: Membership {
            version: 1,
            members: vec![SegmentMember {
                segment: node.segment,
                node: node.node,
                az: node.az,
                address: address.clone(),
            }],
        },
        segment: node.segment,
    };
    let mut admin = AdminClient::connect(format!("http://{address}")).await?;
    let created = admin
        .create_volume(v1::CreateVolumeRequest::from(request))
        .await?
        .into_inner();
    if let Some(refused) = created.refused {
        bail!("the node refuses to make a volume: {}", refused.message);
    }
    let request = TakeRequest {
        owner: Owner {
            compute: ComputeId(Uuid::new_v4()),
            description: "ingest_speed".to_owned(),
        },
        last_held_epoch: 0,
        force: false,
        expected_system_identifier: Some(wal.facts.system_identifier),
    };
    let Taken::Empty(empty) = take_volume(config, request, &|_| ()).await? else {
        bail!("the new volume has content");
    };
    let control_file = fs::read(base.join("global/pg_control"))?;
    let items = Volume::load(base).into_content(control_file.into());
    let source = Source {
        lsn: end,
        facts: wal.facts,
        bytes: 0,
        items: stream::iter(items.map(|item| Ok(state_item(item)))),
    };
    let imported = import_base(config, *empty, source, &|_| ()).await?;
    Ok(imported.ready)
}

async fn ingest(config: &ClientConfig, ready: ReadyVolume, records: &mut Records) -> Result<Ingested> {
    let start = ready.attachment.vdl;
    let appender = Appender::start(
        ready.attachment,
        start,
        Arc::new(NoWalSource),
        AppendLimits::DEFAULT,
        config.transport.clone(),
    )?;
    let begin = Instant::now();
    let mut end = start;
    let mut count = 0;
    let mut in_flight = VecDeque::new();
    while let Some(batch) = next_batch(end, records, &mut count) {
        end = batch.end;
        in_flight.push_back(end);
        appender.append(batch);
        if in_flight.len() > BATCHES_IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            appender.wait_durable(oldest).await.map_err(fenced)?;
            appender.set_pgmrpl(oldest);
        }
    }
    appender.wait_durable(end).await.map_err(fenced)?;
    let seconds = begin.elapsed().as_secs_f64();
    appender.set_pgmrpl(end);
    while status(config).await?.applied_lsn < end {
        if begin.elapsed().as_secs_f64() - seconds > APPLY_PATIENCE.as_secs_f64() {
            bail!("the node has not turned the log up to {end} into pages within {APPLY_PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(Ingested {
        wal_bytes: end.bytes_since(start),
        records: count,
        seconds,
        seconds_until_applied: begin.elapsed().as_secs_f64(),
    })
}

fn fenced(by: Arc<Fenced>) -> anyhow::Error {
    anyhow!("another writer has taken the node: {by}")
}

/// `None` at the end of the log, which is an error where the server was killed.
fn next_batch(previous_end: Lsn, records: &mut Records, count: &mut u64) -> Option<Batch> {
    let mut bytes = BytesMut::new();
    let mut end = previous_end;
    while bytes.len() < BATCH_BYTES
        && let Some(Ok(record)) = records.next()
    {
        bytes.extend_from_slice(&record.bytes);
        end = record.end;
        *count += 1;
    }
    (end > previous_end).then(|| Batch {
        previous_end,
        end,
        records: bytes.freeze(),
        gaps: Vec::new(),
    })
}
