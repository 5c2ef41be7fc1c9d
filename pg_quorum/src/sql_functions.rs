//! What schema `quorum` shows: thin functions over shared memory, given names and columns in `sql/`.

use std::time::{Duration, Instant};

use pg_quorum_types::{BLOCK_SIZE, Lsn};
use pgrx::datum::Interval;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::{name, pg_extern};

use crate::pg::{cache_files, config, interrupts, presence_file, prewarm as pg_prewarm, wal};
use crate::shared::{self, Histogram, LinkState, LogWait};

/// SQL declares it `pg_lsn`, which has the same datum.
type PgLsn = i64;

fn pg_lsn(lsn: Lsn) -> PgLsn {
    lsn.0.cast_signed()
}

fn count(counter: &std::sync::atomic::AtomicU64) -> i64 {
    counter.load(std::sync::atomic::Ordering::Relaxed).cast_signed()
}

/// The volume durable LSN.
#[pg_extern]
fn durable_lsn() -> PgLsn {
    pg_lsn(shared::state().vdl())
}

/// Waits until everything below `lsn` is durable; false: `timeout` was over first; null for a null LSN.
#[pg_extern]
fn wait_for_lsn(lsn: Option<PgLsn>, timeout: Option<Interval>) -> Option<bool> {
    let micros = timeout.map(|timeout| u64::try_from(timeout.as_micros()).unwrap_or(0));
    let deadline = micros.and_then(|micros| Instant::now().checked_add(Duration::from_micros(micros)));
    let end = config::wal_layout().end_of_records_below(Lsn(lsn?.cast_unsigned()));
    loop {
        let left = deadline.map_or(INTERRUPT_PERIOD, |deadline| {
            deadline
                .saturating_duration_since(Instant::now())
                .min(INTERRUPT_PERIOD)
        });
        match shared::state().wait_for_vdl(end, Some(left), &interrupts::may_leave) {
            LogWait::Reached => return Some(true),
            LogWait::TimedOut if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                return Some(false);
            }
            LogWait::TimedOut | LogWait::Interrupted => {
                interrupts::process();
                // An LSN inside of a record becomes durable with its rest.
                wal::flush_inserted();
            }
        }
    }
}

/// How often a wait processes all interrupts of its session.
const INTERRUPT_PERIOD: Duration = Duration::from_millis(500);

#[pg_extern]
#[allow(clippy::type_complexity)] // a row of named columns
fn volume_state() -> TableIterator<
    'static,
    (
        name!(volume, String),
        name!(epoch, i64),
        name!(durable_lsn, PgLsn),
        name!(state, &'static str),
        name!(has_quorum, bool),
        name!(message, String),
        name!(cached_chunks, i64),
    ),
> {
    let shared = shared::state();
    let state = match shared.link() {
        LinkState::Starting => "starting",
        LinkState::Running => "running",
        LinkState::Gone => "stopping",
        LinkState::Fenced => "fenced",
    };
    TableIterator::once((
        shared.volume.get(),
        shared.epoch().cast_signed(),
        pg_lsn(shared.vdl()),
        state,
        !shared.quorum_lost(),
        shared.link_message.get(),
        presence_file::table().live_entries().cast_signed(),
    ))
}

#[pg_extern]
#[allow(clippy::type_complexity)] // a row of named columns
fn segment_states() -> TableIterator<
    'static,
    (
        name!(node, String),
        name!(az, String),
        name!(address, String),
        name!(segment, String),
        name!(state, String),
        name!(message, String),
        name!(epoch, i64),
        name!(scl, PgLsn),
        name!(lag_bytes, i64),
        name!(append_p50_us, i64),
        name!(append_p99_us, i64),
        name!(pages_served, i64),
    ),
> {
    let shared = shared::state();
    let reports = shared.segments.reports();
    let furthest = reports
        .iter()
        .map(|report| report.scl)
        .max()
        .unwrap_or(Lsn::INVALID);
    TableIterator::new(reports.into_iter().map(move |report| {
        (
            report.node,
            report.az,
            report.address,
            report.segment,
            report.state,
            report.message,
            report.epoch.cast_signed(),
            pg_lsn(report.scl),
            furthest.bytes_since(report.scl).cast_signed(),
            report.append_p50_us.cast_signed(),
            report.append_p99_us.cast_signed(),
            report.pages_served.cast_signed(),
        )
    }))
}

#[pg_extern]
fn counters() -> TableIterator<'static, (name!(name, &'static str), name!(value, i64))> {
    let counters = &shared::state().counters;
    let rows = [
        ("wal_bytes_shipped", &counters.wal_bytes_shipped),
        ("records_shipped", &counters.records_shipped),
        ("batches_shipped", &counters.batches_shipped),
        ("messages_sent", &counters.messages_sent),
        ("bytes_sent", &counters.bytes_sent),
        ("page_requests", &counters.page_requests),
        ("pages_fetched", &counters.pages_fetched),
        ("page_errors", &counters.page_errors),
        ("cache_hits", &counters.cache_hits),
        ("cache_misses", &counters.cache_misses),
        ("pages_dropped", &counters.pages_dropped),
        ("pages_refetched", &counters.pages_refetched),
        ("pages_passed_by", &counters.pages_passed_by),
        ("kept_good", &counters.kept_good),
        ("kept_gone", &counters.kept_gone),
        ("pages_read_ahead", &counters.pages_read_ahead),
        ("pages_prefetched", &counters.pages_prefetched),
        ("misses_in_flight", &counters.misses_in_flight),
        ("commit_waits", &counters.commit_waits),
        ("index_waits", &counters.index_waits),
        ("free_space_pages_logged", &counters.free_space_pages_logged),
        ("free_space_rounds", &counters.free_space_rounds),
    ];
    TableIterator::new(rows.into_iter().map(|(name, counter)| (name, count(counter))))
}

/// Bucket `n` of `buckets` (from zero) counts waits below `2^n` microseconds.
#[pg_extern]
#[allow(clippy::type_complexity)] // a row of named columns
fn latencies() -> TableIterator<
    'static,
    (
        name!(name, &'static str),
        name!(samples, i64),
        name!(total_us, i64),
        name!(p50_us, Option<i64>),
        name!(p99_us, Option<i64>),
        name!(buckets, Vec<i64>),
    ),
> {
    let counters = &shared::state().counters;
    let rows = [
        ("commit_wait", &counters.commit_wait),
        ("page_wait", &counters.page_wait),
        ("quorum", &counters.quorum_latency),
    ];
    TableIterator::new(
        rows.into_iter()
            .map(|(name, histogram)| latency_row(name, histogram)),
    )
}

fn latency_row(
    name: &'static str,
    histogram: &Histogram,
) -> (&'static str, i64, i64, Option<i64>, Option<i64>, Vec<i64>) {
    let buckets: Vec<i64> = histogram
        .counts()
        .iter()
        .map(|count| count.cast_signed())
        .collect();
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    (
        name,
        buckets.iter().sum(),
        micros(histogram.total()),
        histogram.quantile(0.5).map(micros),
        histogram.quantile(0.99).map(micros),
        buckets,
    )
}

/// What the local page cache holds, in bytes.
#[pg_extern]
#[allow(clippy::type_complexity)] // a row of named columns
fn cache_state() -> TableIterator<
    'static,
    (
        name!(size_limit, Option<i64>),
        name!(cached, i64),
        name!(only_here, i64),
        name!(awaiting, i64),
        name!(working_set_1min, i64),
        name!(working_set_10min, i64),
        name!(working_set_1h, i64),
    ),
> {
    let bytes = |pages: u64| pages.saturating_mul(BLOCK_SIZE as u64).cast_signed();
    let usage = cache_files::usage();
    let [minute, ten_minutes, hour] = usage.working_sets.map(bytes);
    let limit = cache_files::limit_pages();
    TableIterator::once((
        (limit != u64::MAX).then(|| bytes(limit)),
        bytes(usage.present),
        bytes(usage.local),
        bytes(usage.awaiting),
        minute,
        ten_minutes,
        hour,
    ))
}

/// Reads absent blocks of a relation's fork into the local page cache. How many were absent.
#[pg_extern]
fn prewarm(relation: Oid, fork: &str, first_block: Option<i64>, last_block: Option<i64>) -> i64 {
    pg_prewarm::prewarm(relation, fork, first_block, last_block).cast_signed()
}

/// Drops what may be dropped from the local page cache, of one relation or of all. How many pages that were.
#[pg_extern]
fn drop_cache(relation: Option<Oid>) -> i64 {
    pg_prewarm::drop_cache(relation).cast_signed()
}
