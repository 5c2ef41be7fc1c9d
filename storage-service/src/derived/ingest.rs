//! Follows the log: reads records below the SCL in order and makes their effects visible to reads.
//!
//! One thread, and a helper that reads ahead when there is much to catch up with. It reads and decodes a batch
//! without any lock, then adds it under the state's lock if no cut came between. The copy of a database is a
//! barrier: everything before it is persisted first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use pg_quorum_types::{Lsn, RelFork};
use pg_quorum_wal::{Effects, MetaChange, PageEffect, Record, WalError};

use super::copy_database;
use super::engine::{Counters, Engine, Work};
use super::error::DerivedError;
use super::index::IndexEntry;
use super::marks::Mark;
use super::meta_key::{MetaKey, MetaValue};
use super::record_changes::{Changes, Known, SizeCache};
use super::record_log::{LogRecords, StoredRecord};

/// How long records gather before they are indexed.
const GATHER_FOR: Duration = Duration::from_millis(20);
/// A failed batch is tried again after this: the log may be repaired from a peer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The thread's body: runs until the engine is stopped.
pub fn run(engine: &Arc<Engine>) {
    let mut own = Own::default();
    let mut sizes_of_cuts = 0;
    let mut view = engine.view.clone();
    while !engine.is_stopping() {
        let cuts = engine.state.read().cuts;
        if cuts != sizes_of_cuts {
            own.sizes.clear();
            sizes_of_cuts = cuts;
        }
        view.mark_unchanged();
        match ingest_batch(engine, &mut own, cuts) {
            Ok(Progress::Went) => engine.clear_failure(Work::Indexing),
            Ok(Progress::NothingNew) => {
                wait_for_log(engine, &mut view);
                gather(engine);
            }
            Err(DerivedError::Stopping) => return,
            Err(error) => {
                own.sizes.clear();
                engine.set_failure(Work::Indexing, &error);
                engine.pause(RETRY_PAUSE);
            }
        }
    }
}

enum Progress {
    Went,
    NothingNew,
}

/// Sleeps until the segment tells something new, or there was a cut or a stop.
fn wait_for_log(engine: &Engine, view: &mut tokio::sync::watch::Receiver<super::record_log::LogView>) {
    futures::executor::block_on(async {
        futures::select! {
            _ = view.changed().fuse() => {}
            () = engine.wake_ingest.notified().fuse() => {}
        }
    });
}

/// Lets records gather for a moment, which saves the foreground's commits more than it costs, unless somebody waits
/// for them.
fn gather(engine: &Engine) {
    let mut wanted = engine.wanted_indexed.lock();
    if *wanted <= engine.state.read().indexed && !engine.is_stopping() {
        engine.is_wanted.wait_for(&mut wanted, GATHER_FOR);
    }
}

/// What the thread keeps from one batch to the next.
#[derive(Default)]
struct Own {
    sizes: SizeCache,
    /// The batch that is indexed.
    batch: LogBatch,
    /// The next one, read while one is indexed.
    next: LogBatch,
    /// Behind which record it was read, with how many cuts: void if the batch before ends elsewhere, or the log was cut.
    next_follows: Option<(Lsn, u64)>,
    changes: Changes,
}

/// Records as they come from the log.
#[derive(Default)]
struct LogBatch {
    records: LogRecords,
    apart: TakenApart,
}

impl LogBatch {
    /// Those behind `previous_end`, instead of what is there.
    fn read(&mut self, engine: &Engine, previous_end: Lsn) -> Result<(), DerivedError> {
        self.clear();
        let max_bytes = engine.settings.ingest_batch_bytes;
        let read = engine
            .log
            .read_records(previous_end, max_bytes, &mut self.records);
        read.map_err(|error| DerivedError::Log {
            at: previous_end,
            problem: error.to_string(),
        })
    }

    /// Gives the log's memory back.
    fn clear(&mut self) {
        self.records.clear();
        self.apart.clear();
    }
}

/// One batch: from the last indexed record on, at most to the SCL.
fn ingest_batch(engine: &Arc<Engine>, own: &mut Own, cuts: u64) -> Result<Progress, DerivedError> {
    wait_for_room(engine)?;
    let scl = engine.view.borrow().scl;
    let last = engine.state.read().marks.last().clone();
    if scl <= last.lsn {
        return Ok(Progress::NothingNew);
    }
    if own.next_follows.take() == Some((last.lsn, cuts)) {
        std::mem::swap(&mut own.batch, &mut own.next);
    } else {
        own.batch.read(engine, last.lsn)?;
    }
    let end = own.batch.records.end().unwrap_or(last.lsn);
    let Own {
        sizes,
        batch,
        next,
        changes,
        ..
    } = own;
    let index = || {
        let progress = index_records(engine, batch, last, scl, changes, sizes, cuts);
        batch.clear();
        progress
    };
    // Whoever is that far behind is not in the foreground's way.
    if scl.0.saturating_sub(end.0) < engine.settings.ingest_batch_bytes as u64 {
        return index();
    }
    let read_next = |is_awaited: &AtomicBool| -> Result<(), DerivedError> {
        next.read(engine, end)?;
        next.apart.fill(&next.records, is_awaited);
        Ok(())
    };
    let (read, progress) = engine.settings.redo_threads.with_ahead(read_next, index);
    // What could not be read is tried again, and then said.
    own.next_follows = matches!(read, Some(Ok(()))).then_some((end, cuts));
    progress
}

/// The first of a batch's records, taken apart while the batch before is indexed.
#[derive(Default)]
struct TakenApart {
    records: Vec<ApartRecord>,
    /// Theirs, one behind the other.
    pages: Vec<PageEffect>,
}

/// One of them.
#[derive(Clone, Copy)]
struct ApartRecord {
    xid: u32,
    /// How many pages it changes, `None` if it may do more than that: then its turn must have come.
    pages: Option<u32>,
}

impl TakenApart {
    /// As many as there is time for. What cannot be taken apart is left to its turn.
    fn fill(&mut self, records: &LogRecords, is_awaited: &AtomicBool) {
        let (mut record, mut effects) = (Record::empty(), Effects::default());
        for stored in records.iter() {
            if is_awaited.load(Ordering::Relaxed) || self.push(stored, &mut record, &mut effects).is_err() {
                break;
            }
        }
    }

    fn clear(&mut self) {
        self.records.clear();
        self.pages.clear();
    }

    /// `record` and `effects` are memory that is kept.
    fn push<'r>(
        &mut self,
        stored: StoredRecord<'r>,
        record: &mut Record<'r>,
        effects: &mut Effects,
    ) -> Result<(), WalError> {
        record.read(stored.start, stored.end, stored.bytes)?;
        let is_of_pages = effects.read_pages_only(record)?;
        self.records.push(ApartRecord {
            xid: record.xid,
            pages: is_of_pages.then_some(effects.pages.len() as u32),
        });
        if is_of_pages {
            self.pages.extend_from_slice(&effects.pages);
        }
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = (u32, Option<&[PageEffect]>)> {
        let mut rest = &self.pages[..];
        self.records.iter().map(move |record| {
            let pages = record.pages.map(|count| {
                let (pages, behind) = rest.split_at(count as usize);
                rest = behind;
                pages
            });
            (record.xid, pages)
        })
    }
}

fn index_records(
    engine: &Arc<Engine>,
    from_log: &LogBatch,
    last: Mark,
    scl: Lsn,
    changes: &mut Changes,
    sizes: &mut SizeCache,
    cuts: u64,
) -> Result<Progress, DerivedError> {
    let known = KnownState {
        engine,
        at: last.lsn,
        cuts,
    };
    let mut batch = Batch::after(last, changes);
    let mut apart = from_log.apart.iter();
    let (mut record, mut effects) = (Record::empty(), Effects::default());
    for stored in from_log.records.iter() {
        if stored.end > scl {
            break;
        }
        if let Some((xid, Some(pages))) = apart.next() {
            batch.add_pages(stored, xid, pages, sizes, &known)?;
            continue;
        }
        record.read(stored.start, stored.end, stored.bytes)?;
        let Some(change) = batch.add(stored, &record, &mut effects, sizes, &known)? else {
            continue;
        };
        if batch.records > 0 {
            break; // what came before the copy first
        }
        let behind = copy_database::Behind {
            mark: batch.mark_behind(&record)?,
            boundaries: batch.segment_boundaries(engine, record.end),
        };
        copy_database::carry_out(engine, &record, &change, behind, cuts)?;
        sizes.clear();
        return Ok(Progress::Went);
    }
    if batch.records == 0 {
        return Ok(Progress::NothingNew);
    }
    publish(engine, batch, sizes, cuts);
    Ok(Progress::Went)
}

/// Makes a batch visible, unless the log was cut since it was read.
fn publish(engine: &Engine, batch: Batch<'_>, sizes: &mut SizeCache, cuts: u64) {
    Counters::add(&engine.counters.records_indexed, batch.records);
    Counters::add(
        &engine.counters.wal_bytes_indexed,
        batch.mark.lsn.bytes_since(batch.from),
    );
    let mut state = engine.state.write();
    if state.cuts != cuts {
        sizes.clear();
        return;
    }
    batch.changes.apply_to(&mut state);
    state.indexed = batch.mark.lsn;
    let needed = state.round_target;
    state.marks.push(batch.mark, needed);
    engine.tell_indexed(&state);
    if state.round_target.is_none() && state.bytes() > engine.settings.round_index_bytes() {
        engine.wanted.notify_all();
    }
}

/// While memory is short, indexing waits for the background. For a reader it goes on until memory is used up.
fn wait_for_room(engine: &Engine) -> Result<(), DerivedError> {
    let is_full = || {
        let wanted = *engine.wanted_indexed.lock();
        let state = engine.state.read();
        let limit = if wanted > state.indexed {
            engine.settings.index_bytes
        } else {
            engine.settings.ample_index_bytes()
        };
        state.bytes() > limit && state.applied < state.indexed
    };
    if !is_full() {
        return Ok(());
    }
    Counters::add(&engine.counters.index_full_waits, 1);
    while is_full() {
        if engine.is_stopping() {
            return Err(DerivedError::Stopping);
        }
        engine.want_applied(Lsn::INVALID);
        engine.wait_for_round(Duration::from_millis(50));
    }
    Ok(())
}

/// Records that were read and decoded but are not visible yet.
struct Batch<'a> {
    from: Lsn,
    mark: Mark,
    changes: &'a mut Changes,
    records: u64,
}

impl<'a> Batch<'a> {
    fn after(mark: Mark, changes: &'a mut Changes) -> Batch<'a> {
        changes.clear();
        Batch {
            from: mark.lsn,
            mark,
            changes,
            records: 0,
        }
    }

    /// Adds a record, unless it copies a database: then that is returned. After an error the batch is void. What is in
    /// `effects` does not matter.
    fn add(
        &mut self,
        stored: StoredRecord<'_>,
        record: &Record<'_>,
        effects: &mut Effects,
        sizes: &mut SizeCache,
        known: &KnownState<'_>,
    ) -> Result<Option<MetaChange>, DerivedError> {
        let context = self.mark.checkpoint.redo_context(known.engine.facts());
        effects.read(record, &context)?;
        if let Some(copy) = take_copy(effects) {
            return Ok(Some(copy));
        }
        let metas = effects.meta.drain(..);
        self.changes
            .add(entry_of(stored), &effects.pages, metas, sizes, known)?;
        self.mark.checkpoint.track(record)?;
        self.end_record(stored, known);
        let next_context = self.mark.checkpoint.redo_context(known.engine.facts());
        if next_context != context {
            self.changes.add_context(record.end, next_context);
        }
        Ok(None)
    }

    /// The same for a record that only changes these pages.
    fn add_pages(
        &mut self,
        stored: StoredRecord<'_>,
        xid: u32,
        pages: &[PageEffect],
        sizes: &mut SizeCache,
        known: &KnownState<'_>,
    ) -> Result<(), DerivedError> {
        self.changes.add(entry_of(stored), pages, [], sizes, known)?;
        self.mark.checkpoint.advance_past_xid(xid);
        self.end_record(stored, known);
        Ok(())
    }

    fn end_record(&mut self, stored: StoredRecord<'_>, known: &KnownState<'_>) {
        for (key, value) in self.segment_boundaries(known.engine, stored.end) {
            self.changes.put(stored.end, key, Some(value));
        }
        self.mark.lsn = stored.end;
        self.mark.last_record_start = stored.start;
        self.records += 1;
    }

    /// The mark behind a record that follows the batch.
    fn mark_behind(&self, record: &Record<'_>) -> Result<Mark, DerivedError> {
        let mut checkpoint = self.mark.checkpoint;
        checkpoint.track(record)?;
        Ok(Mark {
            lsn: record.end,
            last_record_start: record.start,
            checkpoint,
        })
    }

    /// For each WAL segment that begins inside the record that ends at `end`: where the record before it ended.
    /// WAL is rebuilt from there.
    fn segment_boundaries(&self, engine: &Engine, end: Lsn) -> Vec<(MetaKey, Bytes)> {
        // A power of two: a division for each record is much of what indexing it costs.
        let segment_bytes = engine.facts().wal_segment_bytes;
        let first_at_or_behind =
            |lsn: Lsn| (lsn.0 + u64::from(segment_bytes - 1)) >> segment_bytes.trailing_zeros();
        let numbers = first_at_or_behind(self.mark.lsn)..first_at_or_behind(end);
        if numbers.is_empty() {
            return Vec::new();
        }
        let value = || Bytes::copy_from_slice(&self.mark.lsn.0.to_le_bytes());
        numbers
            .map(|number| (MetaKey::SegmentBoundary(number), value()))
            .collect()
    }
}

/// Of a page that needs what was there before.
fn entry_of(stored: StoredRecord<'_>) -> IndexEntry {
    IndexEntry {
        start: stored.start,
        end: stored.end,
        position: stored.position,
        full: false,
    }
}

/// The copy of a database in a record's effects.
fn take_copy(effects: &mut Effects) -> Option<MetaChange> {
    let is_copy = |change: &MetaChange| matches!(change, MetaChange::DatabaseCopied { .. });
    let at = effects.meta.iter().position(is_copy)?;
    Some(effects.meta.remove(at))
}

/// Look-ups as of the last indexed record.
struct KnownState<'a> {
    engine: &'a Engine,
    at: Lsn,
    cuts: u64,
}

impl KnownState<'_> {
    fn look_up<T>(
        &self,
        look_up: impl FnOnce(&super::state::State, &dyn super::store::StoreView) -> Result<T, DerivedError>,
        nothing: T,
    ) -> Result<T, DerivedError> {
        let state = self.engine.state.read();
        if state.cuts != self.cuts {
            return Ok(nothing); // the batch is void anyway
        }
        let view = self.engine.store.view();
        look_up(&state, view.as_ref())
    }
}

impl Known for KnownState<'_> {
    fn size(&self, fork: RelFork) -> Result<Option<u32>, DerivedError> {
        self.look_up(|state, view| state.size(view, fork, self.at), None)
    }

    fn meta(&self, key: &MetaKey) -> Result<MetaValue, DerivedError> {
        self.look_up(|state, view| state.meta(view, key, self.at), None)
    }

    fn pg_major(&self) -> u32 {
        self.engine.facts().pg_major
    }
}
