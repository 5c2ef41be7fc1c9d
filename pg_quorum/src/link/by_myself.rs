//! After the link worker: the checkpointer and the walsenders talk to the storage themselves.
//!
//! At shutdown the worker leaves when the last ordinary backend has gone; the shutdown checkpoint is written
//! after that. Whoever flushes WAL then ships it with the same client code, on a runtime of its own that lives
//! as long as the process.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_quorum_client::{Appender, Attachment, PageContent, PageReader, pgdata};
use pg_quorum_types::{Lsn, RelFork};
use tokio::runtime::Runtime;

use super::local_wal::{LocalWal, WalReader};
use super::{LinkSettings, pages};
use crate::attach::Layout;
use crate::pg::server;
use crate::shared::{FetchError, Page, SharedState, state};

/// Records of one batch, about.
const BATCH_BYTES: usize = 512 << 10;
const LOCK_POLL: Duration = Duration::from_millis(2);

/// A process's own connection to the nodes.
struct Connection {
    runtime: Runtime,
    attachment: Attachment,
    settings: LinkSettings,
    shipping: Option<Shipping>,
    pages: Option<PageReader>,
    /// The quorum could not be reached once: the end of the shutdown waits for it no second time.
    has_given_up: bool,
}

struct Shipping {
    appender: Appender,
    reader: WalReader,
}

thread_local! {
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// Ships everything that is in `pg_wal` and waits until four segments have it, for a bounded time. Called
/// where PostgreSQL would sync WAL: raises nothing, and says in the log what could not be done.
pub fn ship_by_myself() {
    with_connection(|connection| {
        if connection.has_given_up {
            return;
        }
        let patience = connection.settings.shutdown_patience;
        let deadline = Instant::now() + patience;
        while !state().try_lock_final_shipping() {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(LOCK_POLL);
        }
        let shipped = connection.ship(state(), deadline);
        state().unlock_final_shipping();
        if let Err(error) = shipped {
            connection.has_given_up = true;
            // Walsenders that wait for it are let go.
            state().set_give_up_commits();
            pgrx::warning!(
                "pg_quorum: the last WAL records could not be made durable within {} s: {error:#}",
                patience.as_secs()
            );
        }
    });
}

/// Reads pages without the link worker.
///
/// # Errors
/// As [`crate::shared::Ticket::collect`].
pub fn fetch_by_myself(
    fork: RelFork,
    blocks: &[u32],
    not_modified_since: Lsn,
    out: &mut [Page],
) -> Result<(), FetchError> {
    let storage = |message: String| FetchError::Storage { message };
    let fetched = with_connection(|connection| connection.read(fork, blocks, not_modified_since));
    let contents = fetched
        .ok_or_else(|| storage("this process cannot reach the storage nodes".to_owned()))?
        .map_err(|error| storage(format!("{error:#}")))?;
    for (to, from) in out.iter_mut().zip(&contents) {
        to.copy_from_slice(pages::bytes(from));
    }
    Ok(())
}

/// Asks which blocks the log has not changed, without the link worker.
///
/// # Errors
/// As [`crate::shared::Ticket::ask_unchanged`].
pub fn ask_unchanged_by_myself(
    fork: RelFork,
    first_block: u32,
    since: Lsn,
    lsn: Lsn,
) -> Result<u128, FetchError> {
    let storage = |message: String| FetchError::Storage { message };
    with_connection(|connection| {
        connection
            .with_reader(async |reader| Ok(pages::unchanged(reader, fork, first_block, since, lsn).await?))
    })
    .ok_or_else(|| storage("this process cannot reach the storage nodes".to_owned()))?
    .map_err(|error| storage(format!("{error:#}")))
}

fn with_connection<T>(work: impl FnOnce(&mut Connection) -> T) -> Option<T> {
    CONNECTION.with_borrow_mut(|slot| {
        if slot.is_none() {
            match Connection::open() {
                Ok(connection) => *slot = Some(connection),
                Err(error) => pgrx::warning!("pg_quorum: cannot talk to the storage nodes: {error:#}"),
            }
        }
        slot.as_mut().map(work)
    })
}

impl Connection {
    fn open() -> anyhow::Result<Connection> {
        let attachment = pgdata::load_attachment(&server::data_directory())?
            .ok_or_else(|| anyhow::anyhow!("this directory is not attached to a volume"))?;
        Ok(Connection {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            attachment,
            settings: LinkSettings::current()?,
            shipping: None,
            pages: None,
            has_given_up: false,
        })
    }

    fn ship(&mut self, state: &SharedState, deadline: Instant) -> anyhow::Result<()> {
        let Connection {
            runtime,
            attachment,
            settings,
            shipping,
            ..
        } = self;
        runtime.block_on(async {
            if shipping.is_none() {
                *shipping = Some(Shipping::start(attachment, settings, state.vdl())?);
            }
            let Some(shipping) = shipping else { return Ok(()) };
            shipping.append_all()?;
            let end = shipping.reader.end();
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, shipping.appender.wait_durable(end)).await {
                Ok(Ok(())) => {}
                Ok(Err(fenced)) => anyhow::bail!("another compute has taken the volume: {fenced}"),
                Err(_) => anyhow::bail!("fewer than four storage nodes answer"),
            }
            state.publish_vdl(end);
            shipping.appender.announce_vdl(Duration::from_secs(1)).await;
            Ok(())
        })
    }

    fn read(
        &mut self,
        fork: RelFork,
        blocks: &[u32],
        not_modified_since: Lsn,
    ) -> anyhow::Result<Vec<PageContent>> {
        let lsn = state().vdl().max(not_modified_since);
        self.with_reader(async |reader| Ok(pages::read(reader, lsn, fork, blocks, not_modified_since).await?))
    }

    fn with_reader<T>(
        &mut self,
        work: impl AsyncFnOnce(&PageReader) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Connection {
            runtime,
            attachment,
            settings,
            pages,
            ..
        } = self;
        runtime.block_on(async {
            let reader = match pages {
                Some(reader) => reader,
                none => none.insert(PageReader::new(attachment.clone(), &settings.transport)?),
            };
            work(reader).await
        })
    }
}

impl Shipping {
    fn start(attachment: &Attachment, settings: &LinkSettings, vdl: Lsn) -> anyhow::Result<Shipping> {
        let layout = Layout::new(&server::data_directory(), &attachment.facts);
        let wal = LocalWal::new(layout, attachment.facts);
        let appender = Appender::start(
            attachment.clone(),
            vdl,
            Arc::new(wal.clone()),
            settings.limits,
            settings.transport.clone(),
        )?;
        Ok(Shipping {
            appender,
            reader: wal.reader(vdl),
        })
    }

    /// Appends what the files hold. The write position is not published yet when PostgreSQL asks for a sync, so
    /// the files themselves say how far WAL goes: nobody else inserts any more, and what is not a whole record
    /// with its checksum ends the log.
    fn append_all(&mut self) -> anyhow::Result<()> {
        while let Some(batch) = self.reader.next_batch_in_files(BATCH_BYTES)? {
            self.appender.append(batch);
        }
        Ok(())
    }
}
