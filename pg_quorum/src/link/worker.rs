//! The link worker's main thread: WAL out, durability in.
//!
//! One current-thread runtime drives the six streams; PostgreSQL's functions are called between its turns, on
//! the same thread. It reads no catalog, takes no heavyweight lock and waits for no backend: everybody waits
//! for it. When the last ordinary backend has gone it logs what only pages know.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pg_quorum_client::{Appender, Attachment, Durability, Fenced};
use pg_quorum_types::Lsn;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::backends_rounds::BackendsRounds;
use super::last_records::LastRecords;
use super::local_wal::{LocalWal, WalReader};
use super::quorum_watch::QuorumWatch;
use super::read_point::ReadPoints;
use crate::attach::Layout;
use crate::pg::eventfd::{self, EventFd};
use crate::pg::{cache_files, server, syncrep, worker};
use crate::shared::{self, SharedState};

/// Records of one batch, about.
const BATCH_BYTES: usize = 512 << 10;
/// The longest sleep: quorum watch.
const TICK: Duration = Duration::from_millis(200);
/// How often SQL gets a new picture of the segments.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// After a write to `pg_wal` the write position follows within microseconds, unless the process that wrote is
/// not scheduled: that long the worker looks again each millisecond.
const WRITE_GRACE: Duration = Duration::from_millis(50);
/// How long it looks again without sleeping.
const SPIN: Duration = Duration::from_micros(30);
/// While segments have much WAL to index: how often it is looked how far they are.
const INDEX_POLL: Duration = Duration::from_millis(10);
/// While the server stops: how often the backends that are left are counted.
const STOP_POLL: Duration = Duration::from_millis(20);

/// How the worker's life ends.
#[derive(Debug)]
pub enum End {
    /// The last ordinary backend has gone and everything is shipped, or the time for that is over.
    Stopped {
        is_everything_durable: bool,
    },
    Fenced(Arc<Fenced>),
}

pub struct Worker {
    state: &'static SharedState,
    wakeup: AsyncFd<&'static EventFd>,
    appender: Appender,
    durability: watch::Receiver<Durability>,
    reader: WalReader,
    attachment: Attachment,
    quorum_watch: QuorumWatch,
    backends_rounds: BackendsRounds,
    read_points: Arc<ReadPoints>,
    /// Batches that are not durable yet: their ends and when they were handed over.
    in_flight: VecDeque<(Lsn, Instant)>,
    writes_seen: u64,
    hot_until: Instant,
    last_tick: Instant,
    last_status: Instant,
    stop_deadline: Option<Instant>,
    /// What is logged before the end; `None` until the last ordinary backend has gone.
    last_records: Option<LastRecords>,
}

impl Worker {
    /// Opens the streams. On the runtime that will run it.
    ///
    /// # Errors
    /// Descriptors, addresses.
    pub fn start(
        state: &'static SharedState,
        attachment: Attachment,
        settings: &super::LinkSettings,
        read_points: Arc<ReadPoints>,
    ) -> anyhow::Result<Worker> {
        let wakeup = shared::wal_wakeup().ok_or_else(|| anyhow::anyhow!("no wake-up was made"))?;
        let layout = Layout::new(&server::data_directory(), &attachment.facts);
        let wal = LocalWal::new(layout, attachment.facts);
        let start = attachment.vdl;
        let appender = Appender::start(
            attachment.clone(),
            start,
            Arc::new(wal.clone()),
            settings.limits,
            settings.transport.clone(),
        )?;
        let now = Instant::now();
        Ok(Worker {
            state,
            wakeup: eventfd::register(wakeup)?,
            durability: appender.durability(),
            appender,
            reader: wal.reader(start),
            attachment,
            quorum_watch: QuorumWatch::new(now),
            backends_rounds: BackendsRounds::default(),
            read_points,
            in_flight: VecDeque::new(),
            writes_seen: 0,
            hot_until: now,
            last_tick: now,
            last_status: now,
            stop_deadline: None,
            last_records: None,
        })
    }

    /// Until the server stops or somebody else has taken the volume.
    ///
    /// # Errors
    /// WAL of this server that cannot be read: nothing can be shipped any more.
    pub async fn run(mut self) -> anyhow::Result<End> {
        loop {
            worker::reload_configuration_if_asked();
            self.state.publish_indexed(self.appender.indexed());
            let has_shipped = self.ship_written().await?;
            if let Some(fenced) = self.take_durability() {
                return Ok(End::Fenced(fenced));
            }
            let now = Instant::now();
            if now.saturating_duration_since(self.last_tick) >= TICK {
                self.last_tick = now;
                self.tick(now);
            }
            if worker::stop_requested()
                && let Some(is_everything_durable) = self.may_stop(now, has_shipped)
            {
                self.appender.announce_vdl(Duration::from_secs(1)).await;
                self.publish_status();
                return Ok(End::Stopped {
                    is_everything_durable,
                });
            }
            if !has_shipped {
                self.sleep(now).await?;
            }
        }
    }

    /// Ships one batch of what has been written; false if there is none. The runtime gets a turn after each.
    async fn ship_written(&mut self) -> anyhow::Result<bool> {
        let writes = self.state.wal_writes();
        let is_news = writes != self.writes_seen;
        if is_news {
            self.writes_seen = writes;
            self.hot_until = Instant::now() + WRITE_GRACE;
        }
        let mut batch = self.reader.next_batch(server::written_lsn(), BATCH_BYTES)?;
        if batch.is_none() && is_news && self.spin() {
            batch = self.reader.next_batch(server::written_lsn(), BATCH_BYTES)?;
        }
        let Some(batch) = batch else {
            self.state.note_look(self.reader.end());
            return Ok(false);
        };
        let counters = &self.state.counters;
        shared::add(
            &counters.wal_bytes_shipped,
            batch.end.bytes_since(batch.previous_end),
        );
        shared::add(&counters.batches_shipped, 1);
        counters
            .records_shipped
            .store(self.reader.records(), Ordering::Relaxed);
        self.in_flight.push_back((batch.end, Instant::now()));
        self.appender.append(batch);
        tokio::task::yield_now().await;
        Ok(true)
    }

    /// Publishes a VDL that has moved and wakes the commits below it.
    fn take_durability(&mut self) -> Option<Arc<Fenced>> {
        if !self.durability.has_changed().unwrap_or(false) {
            return None;
        }
        let Durability { vdl, fenced } = self.durability.borrow_and_update().clone();
        if fenced.is_some() {
            return fenced;
        }
        if vdl > self.state.vdl() {
            syncrep::release_waiters(vdl);
            self.state.publish_vdl(vdl);
            let now = Instant::now();
            while let Some((end, since)) = self.in_flight.front()
                && *end <= vdl
            {
                let latency = now.saturating_duration_since(*since);
                self.state.counters.quorum_latency.record(latency);
                self.in_flight.pop_front();
            }
        }
        None
    }

    fn tick(&mut self, now: Instant) {
        let read_point = self.read_points.lowest(|| self.state.vdl());
        self.appender.set_pgmrpl(read_point);
        if now.saturating_duration_since(self.last_status) >= STATUS_EVERY {
            self.last_status = now;
            self.publish_status();
            cache_files::measure_disk(&server::data_directory());
        }
        self.backends_rounds.look(self.state);
        // The limit may have become lower, and what had to stay may be free.
        cache_files::make_room();
        let heard = self.appender.quorum_heard_at();
        self.quorum_watch
            .look(self.state, || self.appender.stats(), heard, now);
    }

    fn publish_status(&self) {
        super::status::publish(self.state, &self.attachment, &self.appender.stats());
    }

    /// Asked to stop: says when it is time, and whether everything is durable then.
    ///
    /// What has been written last may end inside a record, whose rest nobody is left to write before the
    /// checkpointer: it ships that by itself.
    fn may_stop(&mut self, now: Instant, has_shipped: bool) -> Option<bool> {
        if !server::is_stopping() {
            return None;
        }
        let patience = crate::settings::shutdown_timeout();
        let deadline = *self.stop_deadline.get_or_insert(now + patience);
        let is_over = now >= deadline && self.quorum_watch.is_lost();
        if is_over && !self.state.give_up_commits() {
            pgrx::warning!(
                "pg_quorum: fewer than four storage nodes answer; commits that wait are given up without an acknowledgement"
            );
            self.state.set_give_up_commits();
        }
        if self.state.give_up_commits() {
            syncrep::terminate_waiters();
        }
        if server::ordinary_backends() > 0 {
            return None;
        }
        let last_records = self.last_records.get_or_insert_with(LastRecords::gather);
        if !is_over && last_records.write_some() {
            return None;
        }
        let is_everything_durable = !has_shipped && self.reader.end() <= self.state.vdl();
        (is_everything_durable || is_over).then_some(is_everything_durable)
    }

    async fn sleep(&mut self, now: Instant) -> anyhow::Result<()> {
        let is_hot = now < self.hot_until;
        self.state.set_worker_sleeps(true);
        if self.state.wal_writes() != self.writes_seen {
            self.state.set_worker_sleeps(false);
            return Ok(());
        }
        let longest = if is_hot {
            Duration::from_millis(1)
        } else if self.state.unindexed_bytes() > crate::settings::max_unindexed_bytes() / 2 {
            INDEX_POLL
        } else if worker::stop_requested() {
            STOP_POLL
        } else {
            TICK
        };
        tokio::select! {
            biased;
            ready = self.wakeup.readable() => {
                let mut ready = ready?;
                ready.get_inner().drain();
                ready.clear_ready();
            }
            _ = self.durability.changed() => self.durability.mark_changed(),
            () = tokio::time::sleep(longest) => {}
        }
        self.state.set_worker_sleeps(false);
        Ok(())
    }

    /// Looks for a while whether the write position moves; true if it did.
    fn spin(&self) -> bool {
        let until = Instant::now() + SPIN;
        while Instant::now() < until {
            if server::written_lsn() > self.reader.end() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }
}
