//! What the forked child does, from the first message to the nodes to the last file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pg_quorum_client::pgdata::{
    self, Builder, Built, ComputeIdentity, Failure, Files, Keep, Layout, OldFiles, Opening, Result,
    TablespacePlace, wal_files,
};
use pg_quorum_client::{
    AppendLimits, Appender, Attachment, Batch, ClientConfig, EmptyVolume, ImageEvent, NoWalSource,
    ReadyVolume, Source, Taken, Timeouts, Transport, compute_image, import_base,
};
use pg_quorum_proto::v1;
use pg_quorum_types::{BLOCK_SIZE, Lsn};
use pg_quorum_wal::{ClusterState, ControlFile, RawRecord};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::report::{Report, Reporter};
use super::stages::Stages;
use super::take::{is_attached_directory, take};
use super::{AttachSettings, import, slots, warm};
use crate::cache::{Crash, Kept};
use crate::pg::presence_file;

/// How long it is tried to get WAL that only replication slots need.
const SLOTS_PATIENCE: Duration = Duration::from_secs(1);
/// Items of an import that are read ahead of the network.
const IMPORT_QUEUE: usize = 32;

/// The child's main function: its exit code.
pub fn run(settings: &AttachSettings, pipe: File) -> i32 {
    let reporter = Reporter::new(pipe);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("could not start a runtime: {error}")))
        .and_then(|runtime| runtime.block_on(attach(settings, &reporter)));
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            reporter.send(&Report::Failed(failure));
            1
        }
    }
}

async fn attach(settings: &AttachSettings, reporter: &Reporter) -> Result<()> {
    let mut stages = Stages::begin();
    refuse_other_starts(settings)?;
    let local_control = read_control_file(settings)?;
    check_version(settings, &local_control.parsed)?;
    let system_identifier = local_control.parsed.facts().system_identifier;
    let held = take(settings, system_identifier, reporter).await?;
    stages.end("taking it");
    let is_import = matches!(held.taken, Taken::Empty(_));
    let ready = match held.taken {
        Taken::Ready(ready) => *ready,
        Taken::Empty(empty) => {
            let ready = import_cluster(settings, &held.config, *empty, &local_control, reporter).await?;
            stages.end("import");
            ready
        }
    };
    let mut keep = what_to_keep(&ready.attachment, &held.identity, is_import);
    if ready.cut_segments > 0 {
        reporter.log(format!(
            "{} bytes of WAL that were never durable were cut from {} segments",
            ready.cut_bytes, ready.cut_segments
        ));
    }
    hold(settings, held.identity, &ready.attachment)?;
    if keep == Keep::Slots && pass_on_note(settings, &ready.attachment)? {
        keep = Keep::SlotsAndPages;
    }
    let built = open_volume(
        settings,
        ready.attachment,
        keep,
        &local_control.parsed,
        &held.config.transport,
        &mut stages,
    )
    .await?;
    reporter.log(format!("{built} in {stages}"));
    Ok(())
}

/// Starts that this version does not know how to attach.
fn refuse_other_starts(settings: &AttachSettings) -> Result<()> {
    for file in ["standby.signal", "recovery.signal"] {
        if settings.pgdata.join(file).exists() {
            return Err(Failure::new(format!(
                "\"{file}\" asks for a start as a standby or for a recovery, which this directory cannot do"
            ))
            .detail("A pg_quorum compute opens its volume as it is; there is no WAL to recover from.")
            .hint(format!("Remove {file} and start again.")));
        }
    }
    Ok(())
}

struct LocalControl {
    parsed: ControlFile,
    bytes: Vec<u8>,
}

fn read_control_file(settings: &AttachSettings) -> Result<LocalControl> {
    let path = settings.pgdata.join("global/pg_control");
    let bytes = std::fs::read(&path).map_err(Failure::file("read", &path))?;
    let parsed = ControlFile::parse(&bytes)
        .map_err(|error| Failure::new(format!("\"{}\" cannot be used: {error}", path.display())))?;
    Ok(LocalControl { parsed, bytes })
}

fn check_version(settings: &AttachSettings, control: &ControlFile) -> Result<()> {
    let found = control.facts().catalog_version;
    if found != settings.catalog_version {
        return Err(
            Failure::new("this directory belongs to another version of PostgreSQL").detail(format!(
                "Its catalog version is {found}, this server's is {}.",
                settings.catalog_version
            )),
        );
    }
    Ok(())
}

/// Sends this directory's cluster to the nodes as the volume's base.
async fn import_cluster(
    settings: &AttachSettings,
    config: &ClientConfig,
    empty: EmptyVolume,
    control: &LocalControl,
    reporter: &Reporter,
) -> Result<ReadyVolume> {
    if is_attached_directory(settings) {
        return Err(Failure::new(format!(
            "volume {} has no content, and this directory cannot give it any",
            empty.volume()
        ))
        .detail("This directory was attached to a volume: its files are a cache with holes.")
        .hint("Check pg_quorum.nodes: these are not the nodes that keep this directory's volume."));
    }
    let facts = control.parsed.facts();
    let layout = Layout::new(&settings.pgdata, &facts);
    let cluster = import::stopped_cluster(&layout, &control.parsed, &control.bytes)?;
    let total = import::measure(&layout)?;
    let started = Instant::now();
    reporter.log(format!(
        "importing this cluster into volume {}: {} relation forks, {} MB",
        empty.volume(),
        total.forks,
        total.bytes >> 20
    ));
    let (sender, receiver) = mpsc::channel(IMPORT_QUEUE);
    let end = cluster.end;
    let reading = tokio::task::spawn_blocking(move || read_cluster(&layout, &cluster, &sender));
    let source = Source {
        lsn: end,
        facts,
        bytes: total.bytes,
        items: ReceiverStream::new(receiver),
    };
    let imported = import_base(config, empty, source, &|text| reporter.log(text))
        .await
        .map_err(|error| {
            Failure::new("the cluster could not be imported")
            .detail(error.to_string())
            .hint(
                "Nothing of this directory was changed. Start again to repeat the import from its beginning.",
            )
        })?;
    reading
        .await
        .map_err(|error| Failure::new(format!("the reading of the cluster's files ended early: {error}")))?;
    reporter.log(format!(
        "imported {} MB in {:.1} s; the volume begins at {end}",
        imported.bytes >> 20,
        started.elapsed().as_secs_f64()
    ));
    for problem in imported.incomplete {
        reporter.log(format!("a node has no complete base yet: {problem}"));
    }
    Ok(imported.ready)
}

/// On a thread that may block: the directory's content, item by item. An error goes the same way and ends the
/// import.
fn read_cluster(
    layout: &Layout,
    cluster: &import::StoppedCluster,
    sender: &mpsc::Sender<std::io::Result<v1::StateItem>>,
) {
    let mut send = |item: v1::StateItem| {
        sender
            .blocking_send(Ok(item))
            .map_err(|_| Failure::new("the import has ended early"))
    };
    let outcome = import::walk(layout, &mut send).and_then(|()| cluster.items().try_for_each(send));
    if let Err(failure) = outcome {
        // Nobody listens if the import has ended.
        let _ = sender.blocking_send(Err(std::io::Error::other(failure.message)));
    }
}

/// Slots and statistics stay where a stock server would keep them: nobody else has held the volume since.
fn what_to_keep(attachment: &Attachment, identity: &ComputeIdentity, is_import: bool) -> Keep {
    if is_import {
        return Keep::ImportedFiles;
    }
    match previous_epoch(attachment) {
        Some(number) if number == identity.last_held_epoch => Keep::Slots,
        _ => Keep::Nothing,
    }
}

/// The number of the epoch before this one.
fn previous_epoch(attachment: &Attachment) -> Option<u64> {
    let entry = attachment.history.entries().iter().rev().nth(1);
    entry.map(|entry| entry.epoch.number)
}

/// Whether the server of the epoch before this one has left its files whole. If so they are whole in this one, as long as
/// nothing is changed.
fn pass_on_note(settings: &AttachSettings, attachment: &Attachment) -> Result<bool> {
    let layout = Layout::new(&settings.pgdata, &attachment.facts);
    let is_whole = previous_epoch(attachment).is_some_and(|number| warm::is_whole_since(&layout, number));
    if is_whole {
        warm::note_whole(&layout, attachment.epoch.number)?;
    }
    Ok(is_whole)
}

/// The epoch is ours: noted before anything of the directory is changed.
fn hold(settings: &AttachSettings, identity: ComputeIdentity, attachment: &Attachment) -> Result<()> {
    let identity = ComputeIdentity {
        volume: Some(attachment.volume),
        last_held_epoch: attachment.epoch.number,
        fenced_by: None,
        ..identity
    };
    let pgdata = &settings.pgdata;
    identity
        .save(pgdata)
        .and_then(|()| pgdata::save_attachment(pgdata, attachment))
        .and_then(|()| pgdata::clear_force(pgdata))
        .and_then(|()| pgdata::place_tripwire(pgdata, attachment.volume))
        .map_err(|error| Failure::new(error.to_string()))
}

/// Builds PGDATA at the epoch's start and appends the epoch-start record. What was done, for the log.
async fn open_volume(
    settings: &AttachSettings,
    mut attachment: Attachment,
    keep: Keep,
    local_control: &ControlFile,
    transport: &Transport,
    stages: &mut Stages,
) -> Result<String> {
    let start = attachment.start_lsn();
    // Its heartbeats hold the lease while the directory is built.
    let appender = Appender::start(
        attachment.clone(),
        start,
        Arc::new(NoWalSource),
        AppendLimits::DEFAULT,
        transport.clone(),
    )
    .map_err(|error| Failure::new(error.to_string()))?;
    let layout = Layout::new(&settings.pgdata, &attachment.facts);
    let image = build_directory(
        &layout,
        &attachment,
        start,
        keep,
        local_control,
        transport,
        stages,
    )
    .await?;
    let Opening { mut control, record } = Opening::behind(
        &image.built.control_file,
        &attachment.facts,
        start,
        image.last_record_lsn,
    )?;
    append(&appender, start, &record, transport.timeouts.quorum).await?;
    attachment.vdl = record.end;
    stages.end("first record");
    rebuild_wal(&layout, &attachment, &record, transport).await?;
    stages.end("WAL");
    if image.left == Left::All {
        control.set_unlogged_lsn(local_control.unlogged_lsn());
    }
    pgdata::make_readable(&layout, &control)?;
    write_control_file(&layout, &control)?;
    warm::note_whole(&layout, attachment.epoch.number)?;
    pgdata::update_attachment(&settings.pgdata, &attachment)
        .map_err(|error| Failure::new(error.to_string()))?;
    appender.announce_vdl(Duration::from_secs(1)).await;
    stages.end("control file");
    Ok(format!(
        "attached to volume {} at {start}, epoch {}: {} databases, {} relation forks, {} prepared transactions, {}",
        attachment.volume,
        attachment.epoch,
        image.built.databases,
        image.built.forks,
        image.built.prepared_transactions,
        image.left,
    ))
}

/// What of the local pages is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Nothing,
    OfACrash(Kept),
    All,
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Left::Nothing => f.write_str("no local pages"),
            Left::OfACrash(kept) => write!(
                f,
                "{} local pages are kept, {} are not",
                kept.pages, kept.void_pages
            ),
            Left::All => f.write_str("local pages are kept"),
        }
    }
}

struct Image {
    built: Built,
    last_record_lsn: Lsn,
    left: Left,
}

async fn build_directory(
    layout: &Layout,
    attachment: &Attachment,
    lsn: Lsn,
    keep: Keep,
    local_control: &ControlFile,
    transport: &Transport,
    stages: &mut Stages,
) -> Result<Image> {
    let failed = |error: pg_quorum_client::StateError| {
        Failure::new("the storage nodes could not give the volume's state").detail(error.to_string())
    };
    let mut image = compute_image(attachment, lsn, transport).map_err(failed)?;
    let mut begun: Option<(Builder<'_>, Lsn)> = None;
    let mut files = Files::None;
    while let Some(event) = image.next().await.map_err(failed)? {
        match (event, &mut begun) {
            (ImageEvent::Begin { last_record_lsn }, _) => {
                let was_stopped_here = local_control.state() == ClusterState::ShutDown
                    && local_control.last_checkpoint() == last_record_lsn;
                let keep = match keep {
                    Keep::SlotsAndPages if was_stopped_here => Keep::Everything,
                    Keep::Slots if was_stopped_here => Keep::SlotsAndStatistics,
                    other => other,
                };
                files = match keep {
                    Keep::SlotsAndPages => Files::OfACrash,
                    keep if keep.keeps_files() => Files::All,
                    _ => Files::None,
                };
                stages.end("its state's begin");
                let old_files = what_becomes_of_old_files(layout)?;
                begin_cache(layout, keep)?;
                pgdata::clear(layout, keep, old_files)?;
                stages.end("clearing");
                let place = TablespacePlace::AsRecorded(attachment.volume);
                let builder = Builder::new(layout, place, files);
                begun = Some((builder, last_record_lsn));
            }
            (ImageEvent::Items(items), Some((builder, _))) => {
                for item in items {
                    builder.accept(item)?;
                }
            }
            (ImageEvent::Items(_), None) => {}
        }
    }
    let (builder, last_record_lsn) = begun.ok_or_else(|| Failure::new("the volume's image is empty"))?;
    stages.end("its state");
    let built = builder.finish()?;
    stages.end("files");
    let left = match files {
        Files::None => Left::Nothing,
        Files::OfACrash => Left::OfACrash(keep_pages(&built, local_control, lsn)?),
        Files::All => Left::All,
    };
    stages.end("cache");
    Ok(Image {
        built,
        last_record_lsn,
        left,
    })
}

/// The cache's pages that a crash has left, when the volume's log ends at `end`.
fn keep_pages(built: &Built, local_control: &ControlFile, end: Lsn) -> Result<Kept> {
    let redo = local_control.checkpoint().redo;
    warm::keep_after_crash(built, Crash { redo, end })
}

/// Files of the last run are removed while the server runs, if there is room for as many pages beside them. Before the
/// presence table, which knows how many they have, is emptied.
fn what_becomes_of_old_files(layout: &Layout) -> Result<OldFiles> {
    let cached_bytes = presence_file::table().cached_pages() * BLOCK_SIZE as u64;
    Ok(match pgdata::available_bytes(&layout.join(""))? > cached_bytes {
        true => OldFiles::SetAside,
        false => OldFiles::Remove,
    })
}

/// The presence table for the run that begins, before the files are touched.
fn begin_cache(layout: &Layout, keep: Keep) -> Result<()> {
    if keep == Keep::Everything {
        let taken_over = presence_file::table().begin_anew();
        return taken_over.map_err(|full| Failure::new(full.to_string()));
    }
    warm::forget_whole(layout)?;
    if keep == Keep::SlotsAndPages {
        return Ok(()); // when it is known what the volume has
    }
    presence_file::empty_table().map_err(|error| {
        Failure::new(format!(
            "the table of the local page cache could not be emptied: {error}"
        ))
    })?;
    if keep == Keep::ImportedFiles {
        warm::mark_imported(layout)?;
    }
    Ok(())
}

async fn append(
    appender: &Appender,
    previous_end: Lsn,
    record: &RawRecord,
    patience: Duration,
) -> Result<()> {
    appender.append(Batch {
        previous_end,
        end: record.end,
        records: Bytes::clone(&record.bytes),
        gaps: Vec::new(),
    });
    match tokio::time::timeout(patience, appender.wait_durable(record.end)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fenced)) => {
            Err(Failure::new("another compute has taken the volume meanwhile").detail(fenced.to_string()))
        }
        Err(_) => {
            let nodes = appender.stats();
            let nodes = nodes.iter().map(|segment| {
                format!(
                    "{} ({}): {} {}",
                    segment.member.node, segment.member.address, segment.state, segment.message
                )
            });
            Err(
                Failure::new("the first record of the new epoch could not be made durable")
                    .detail(nodes.collect::<Vec<_>>().join("\n")),
            )
        }
    }
}

/// The WAL of the segment that the epoch begins in; and what replication slots that were kept still need, if the nodes
/// have it. Without it such a slot says, when it is used, that its WAL has been removed.
async fn rebuild_wal(
    layout: &Layout,
    attachment: &Attachment,
    record: &RawRecord,
    transport: &Transport,
) -> Result<()> {
    if let Some(wanted) = slots::oldest_wal(layout)?.filter(|wanted| *wanted < record.start) {
        let patient = Transport {
            timeouts: Timeouts {
                quorum: SLOTS_PATIENCE,
                ..transport.timeouts
            },
            ..transport.clone()
        };
        let rebuilt = wal_files::rebuild(layout, attachment, wanted, record.end, &patient).await;
        if rebuilt.is_ok() {
            return Ok(());
        }
        pgdata::empty_wal(layout)?;
    }
    wal_files::rebuild(layout, attachment, record.start, record.end, transport).await
}

/// In its place and without a sync, so that the machine can crash at any moment and leave a whole file, of whichever start:
/// what counts of it is in its first sector (`pg_control.h`).
fn write_control_file(layout: &Layout, control: &ControlFile) -> Result<()> {
    let path = layout.join("global/pg_control");
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|file| file.write_all_at(&control.to_bytes(), 0))
        .map_err(Failure::file("write", &path))
}
