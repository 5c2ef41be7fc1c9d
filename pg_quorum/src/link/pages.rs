//! The link worker's second thread: page requests from shared memory to the nodes and back.
//!
//! It has its own runtime, no signal reaches it, and it calls nothing of PostgreSQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_quorum_client::{Attachment, PageContent, PageError, PageReader, Transport, UnchangedRequest};
use pg_quorum_types::{BLOCK_SIZE, Lsn, RelFork};
use tokio::io::unix::AsyncFd;

use super::read_point::ReadPoints;
use crate::pg::eventfd::{self, EventFd};
use crate::shared::{self, Asked, PageRequest, SharedState};

/// How long segments are asked one after the other before the backend gets an error. Sessions that wait can be
/// cancelled at any time.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a request the thread looks for its answer and for more requests instead of sleeping, for about as long as they
/// take to come: waking it twice for each page takes a quarter of a page's time.
const STAYS_AWAKE: Duration = Duration::from_micros(200);
/// When the core comes back only after so long, others need it: the thread sleeps instead.
const OTHERS_RUN: Duration = Duration::from_micros(100);
/// Status, and a look at the slots should a wake-up be lost.
const TICK: Duration = Duration::from_millis(500);

/// Serves page requests until the process ends.
///
/// # Errors
/// Descriptors, addresses.
pub fn serve(
    state: &'static SharedState,
    attachment: Attachment,
    transport: &Transport,
    read_points: &Arc<ReadPoints>,
) -> anyhow::Result<()> {
    let wakeup = shared::page_wakeup().ok_or_else(|| anyhow::anyhow!("no wake-up was made"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let wakeup = eventfd::register(wakeup)?;
        let reader = Arc::new(PageReader::new(attachment, transport)?);
        let begin_requests = || {
            let requests = state.page_slots.take_requests();
            let has_begun = !requests.is_empty();
            for request in requests {
                tokio::spawn(answer(state, reader.clone(), read_points.clone(), request));
            }
            has_begun
        };
        let mut published = Instant::now();
        let mut awake_until = published;
        loop {
            if begin_requests() {
                awake_until = Instant::now() + STAYS_AWAKE;
            }
            if published.elapsed() >= TICK {
                published = Instant::now();
                let stats = reader.stats();
                state
                    .segments
                    .publish_pages_served(stats.iter().map(|segment| segment.pages));
            }
            if Instant::now() < awake_until {
                // Others have the core if they need it, and the runtime looks at the sockets.
                let yielded = Instant::now();
                std::thread::yield_now();
                if yielded.elapsed() >= OTHERS_RUN {
                    awake_until = yielded;
                }
                tokio::task::yield_now().await;
                continue;
            }
            // Before the last look: what comes behind it wakes.
            state.set_page_thread_sleeps();
            if !begin_requests() {
                wait(&wakeup).await?;
            }
        }
    })
}

async fn wait(wakeup: &AsyncFd<&'static EventFd>) -> anyhow::Result<()> {
    match tokio::time::timeout(TICK, wakeup.readable()).await {
        Ok(ready) => {
            let mut ready = ready?;
            ready.get_inner().drain();
            ready.clear_ready();
        }
        Err(_) => wakeup.get_ref().drain(),
    }
    Ok(())
}

async fn answer(
    state: &'static SharedState,
    reader: Arc<PageReader>,
    read_points: Arc<ReadPoints>,
    request: PageRequest,
) {
    let PageRequest {
        slot,
        fork,
        wanted,
        not_modified_since,
    } = request;
    let answered = match wanted {
        Asked::Pages(blocks) => {
            let read_point = read_points.begin(|| state.vdl().max(not_modified_since));
            let pages = read(&reader, read_point.lsn(), fork, &blocks, not_modified_since).await;
            pages.map(|pages| state.page_slots.complete(slot, pages.iter().map(bytes)))
        }
        Asked::Unchanged { first_block, since } => {
            let unchanged = unchanged(&reader, fork, first_block, since, not_modified_since).await;
            unchanged.map(|unchanged| state.page_slots.complete_unchanged(slot, unchanged))
        }
    };
    if let Err(error) = answered {
        state.page_slots.fail(slot, &error.to_string());
    }
}

/// Which blocks no record has changed that ends above `since`, in a log up to `lsn` or further.
///
/// # Errors
/// The nodes'.
pub async fn unchanged(
    reader: &PageReader,
    fork: RelFork,
    first_block: u32,
    since: Lsn,
    lsn: Lsn,
) -> Result<u128, PageError> {
    let request = UnchangedRequest {
        fork,
        first_block,
        since,
        lsn,
        patience: PATIENCE,
    };
    reader.get_unchanged(request).await
}

/// The pages at `lsn` or a little earlier: none was changed behind `not_modified_since`.
///
/// # Errors
/// The nodes'.
pub async fn read(
    reader: &PageReader,
    lsn: Lsn,
    fork: RelFork,
    blocks: &[u32],
    not_modified_since: Lsn,
) -> Result<Vec<PageContent>, PageError> {
    let request = pg_quorum_client::PageRequest {
        fork,
        blocks,
        lsn,
        not_modified_since,
        patience: PATIENCE,
    };
    Ok(reader.get_pages(request).await?.pages)
}

/// As they stand in a file.
pub fn bytes(page: &PageContent) -> &[u8] {
    const ZEROS: &[u8] = &[0; BLOCK_SIZE];
    match page {
        PageContent::Zeros => ZEROS,
        PageContent::Bytes(bytes) => bytes,
    }
}
