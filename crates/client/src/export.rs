//! A volume's content as an ordinary data directory, for a stock server: the way back.
//!
//! ```text
//!  observe, hold a read point ──► image (sizes, transaction state, maps, …) ──► directory
//!                                 pages of each fork, many requests at once ──► files
//!                                 the last WAL segment + a shutdown checkpoint ──► pg_wal, pg_control
//! ```
//! The volume is not taken, its writer goes on. What was in progress at the LSN is aborted, as after a crash.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use pg_quorum_types::{BLOCK_SIZE, Lsn, RelFork, VolumeId};
use pg_quorum_wal::WalBuilder;

use crate::pgdata::{
    self, AuthMethod, BLOCKS_PER_FILE, Builder, Built, Failure, Files, Keep, Layout, NewDirectoryError,
    OldFiles, Opening, OrdinaryDirectory, TablespacePlace, wal_files,
};
use crate::{
    Attachment, ClientConfig, ConfigError, HeldReadPoint, ImageEvent, ObserveError, PageContent, PageError,
    PageReader, PageRequest, StateError, Transport, compute_image, observe_volume, read_wal,
};

/// Pages of one request: 2 MB, a whole fraction of a file.
const PAGES_PER_REQUEST: u32 = 256;
const _: () = assert!(BLOCKS_PER_FILE.is_multiple_of(PAGES_PER_REQUEST));
/// Requests for pages that are under way at the same time.
const REQUESTS_IN_FLIGHT: usize = 8;
/// How often it is tried to hold the end of a volume whose writer writes on.
const HOLD_ATTEMPTS: u32 = 5;
/// Segments have all their pages to build: each request may take its time.
const PAGE_PATIENCE: Duration = Duration::from_secs(120);

/// What is to be written where.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Empty, or not there yet.
    pub pgdata: PathBuf,
    /// End of a record that the nodes still keep. `None`: the volume's durable end.
    pub lsn: Option<Lsn>,
    /// Where tablespaces go, a folder for each; empty, or not there yet. `None`: into `pg_tblspc` itself.
    pub tablespaces: Option<PathBuf>,
    pub auth: AuthMethod,
    /// User and group that the server runs as. `None`: whoever calls.
    pub owner: Option<(u32, u32)>,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportProgress {
    pub bytes: u64,
    pub total_bytes: u64,
}

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    pub volume: VolumeId,
    pub system_identifier: u64,
    /// Everything before this is in it.
    pub lsn: Lsn,
    pub databases: usize,
    pub forks: usize,
    pub prepared_transactions: usize,
    /// Bytes of relations whose pages were copied.
    pub bytes: u64,
}

/// Why there is no export. What was written is removed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{fork}, blocks from {first_block}: {source}")]
    Pages {
        fork: RelFork,
        first_block: u32,
        source: PageError,
    },
    #[error(transparent)]
    Directory(#[from] NewDirectoryError),
    #[error("{0}")]
    Content(Failure),
}

impl From<Failure> for ExportError {
    fn from(failure: Failure) -> ExportError {
        ExportError::Content(failure)
    }
}

/// Writes the data directory. `progress` is told after each request for pages.
///
/// # Errors
/// See [`ExportError`]; also when a compute takes the volume meanwhile.
pub async fn export_volume(
    config: &ClientConfig,
    request: &ExportRequest,
    progress: &dyn Fn(ExportProgress),
) -> Result<Exported, ExportError> {
    let (attachment, held) = hold(config, request.lsn).await?;
    let lsn = attachment.vdl;
    let place = tablespace_place(request)?;
    let directory = OrdinaryDirectory::begin(&request.pgdata)?;
    let layout = Layout::new(&request.pgdata, &attachment.facts);
    let (built, last_record_lsn) = build(&layout, &attachment, &place, &config.transport).await?;
    let bytes = copy_pages(&layout, &attachment, &built, &config.transport, progress).await?;
    let opening = Opening::behind(&built.control_file, &attachment.facts, lsn, last_record_lsn)?;
    write_wal(&layout, &attachment, &opening, &config.transport).await?;
    drop(held);
    pgdata::make_readable(&layout, &opening.control)?;
    if let (TablespacePlace::Below(tablespaces), Some((user, group))) = (&place, request.owner) {
        pgdata::give_away(tablespaces, user, group).map_err(NewDirectoryError::from)?;
    }
    directory.finish(&attachment.facts, &opening.control, &request.auth, request.owner)?;
    Ok(Exported {
        volume: attachment.volume,
        system_identifier: attachment.facts.system_identifier,
        lsn,
        databases: built.databases,
        forks: built.forks,
        prepared_transactions: built.prepared_transactions,
        bytes,
    })
}

/// A view of the volume whose VDL is what is exported, held at the nodes.
async fn hold(
    config: &ClientConfig,
    wanted: Option<Lsn>,
) -> Result<(Attachment, HeldReadPoint), ObserveError> {
    let mut attempt = 1;
    loop {
        let mut attachment = observe_volume(config).await?;
        attachment.vdl = match wanted {
            Some(lsn) if lsn > attachment.vdl => {
                let failures = vec![format!("the volume ends at {}", attachment.vdl)];
                return Err(ObserveError::NotHeld { lsn, failures });
            }
            Some(lsn) => lsn,
            None => attachment.vdl,
        };
        match HeldReadPoint::hold(&attachment, attachment.vdl, &config.transport).await {
            // The nodes may have gone on meanwhile.
            Err(ObserveError::NotHeld { .. }) if wanted.is_none() && attempt < HOLD_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
            Ok(held) => return Ok((attachment, held)),
        }
    }
}

fn tablespace_place(request: &ExportRequest) -> Result<TablespacePlace, ExportError> {
    let Some(tablespaces) = &request.tablespaces else {
        return Ok(TablespacePlace::InPlace);
    };
    std::fs::create_dir_all(tablespaces).map_err(Failure::file("create directory", tablespaces))?;
    if !pgdata::read_directory(tablespaces)?.is_empty() {
        return Err(NewDirectoryError::NotEmpty(tablespaces.clone()).into());
    }
    Ok(TablespacePlace::Below(tablespaces.clone()))
}

async fn build(
    layout: &Layout,
    attachment: &Attachment,
    place: &TablespacePlace,
    transport: &Transport,
) -> Result<(Built, Lsn), ExportError> {
    let mut image = compute_image(attachment, attachment.vdl, transport)?;
    let mut begun: Option<(Builder<'_>, Lsn)> = None;
    while let Some(event) = image.next().await? {
        match (event, &mut begun) {
            (ImageEvent::Begin { last_record_lsn }, _) => {
                pgdata::clear(layout, Keep::Nothing, OldFiles::Remove)?;
                begun = Some((Builder::new(layout, place.clone(), Files::None), last_record_lsn));
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
    Ok((builder.finish()?, last_record_lsn))
}

/// A run of blocks of one file.
#[derive(Clone, Copy, Debug)]
struct Run {
    fork: RelFork,
    first_block: u32,
    blocks: u32,
}

impl Run {
    /// The runs of a fork.
    fn of(&(fork, length): &(RelFork, u32)) -> impl Iterator<Item = Run> {
        (0..length)
            .step_by(PAGES_PER_REQUEST as usize)
            .map(move |first_block| Run {
                fork,
                first_block,
                blocks: PAGES_PER_REQUEST.min(length - first_block),
            })
    }

    fn bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_SIZE as u64
    }
}

async fn copy_pages(
    layout: &Layout,
    attachment: &Attachment,
    built: &Built,
    transport: &Transport,
    progress: &dyn Fn(ExportProgress),
) -> Result<u64, ExportError> {
    let reader = PageReader::new(attachment.clone(), transport)?;
    let layout = Arc::new(layout.clone());
    let total_bytes = built
        .paged_forks
        .iter()
        .flat_map(Run::of)
        .map(|run| run.bytes())
        .sum();
    let mut bytes = 0;
    let mut copies = futures::stream::iter(built.paged_forks.iter().flat_map(Run::of))
        .map(|run| copy_run(&reader, attachment.vdl, Arc::clone(&layout), run))
        .buffer_unordered(REQUESTS_IN_FLIGHT);
    while let Some(copied) = copies.try_next().await? {
        bytes += copied;
        progress(ExportProgress { bytes, total_bytes });
    }
    Ok(bytes)
}

async fn copy_run(reader: &PageReader, lsn: Lsn, layout: Arc<Layout>, run: Run) -> Result<u64, ExportError> {
    let blocks: Vec<u32> = (run.first_block..run.first_block + run.blocks).collect();
    let request = PageRequest {
        fork: run.fork,
        blocks: &blocks,
        lsn,
        not_modified_since: lsn,
        patience: PAGE_PATIENCE,
    };
    let pages = reader
        .get_pages(request)
        .await
        .map_err(|source| ExportError::Pages {
            fork: run.fork,
            first_block: run.first_block,
            source,
        })?;
    tokio::task::spawn_blocking(move || write_run(&layout, run, &pages.pages))
        .await
        .unwrap_or_else(|error| Err(Failure::new(format!("the writing of pages ended early: {error}"))))?;
    Ok(run.bytes())
}

/// Pages of zeros stay holes.
fn write_run(layout: &Layout, run: Run, pages: &[PageContent]) -> pgdata::Result<()> {
    let path = layout.relation_file(run.fork, run.first_block / BLOCKS_PER_FILE);
    let file = OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(Failure::file("open", &path))?;
    for (block, page) in (run.first_block % BLOCKS_PER_FILE..).zip(pages) {
        if let PageContent::Bytes(page) = page {
            file.write_all_at(page, u64::from(block) * BLOCK_SIZE as u64)
                .map_err(Failure::file("write", &path))?;
        }
    }
    Ok(())
}

/// The log's last segment, and behind it the checkpoint that only this directory has.
async fn write_wal(
    layout: &Layout,
    attachment: &Attachment,
    opening: &Opening,
    transport: &Transport,
) -> Result<(), ExportError> {
    let end = attachment.vdl;
    let (_, start) = layout.wal_file(opening.record.start);
    if start < end {
        let mut wal = read_wal(attachment, start, end, transport)?;
        while let Some(chunk) = wal.next().await? {
            wal_files::write(layout, chunk.lsn, &chunk.wal)?;
        }
    }
    let mut builder = WalBuilder::new(attachment.facts, end);
    builder
        .push(opening.record.start, opening.record.end, &opening.record.bytes)
        .map_err(|error| Failure::new(format!("the checkpoint does not follow the log: {error}")))?;
    wal_files::write(layout, end, &builder.take())?;
    Ok(())
}
