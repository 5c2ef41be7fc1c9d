//! Turns log into pages in the background, and forgets what is not needed any more.
//!
//! A round has a target: a mark that no cut can undo and below which nobody reads. Its order is what
//! makes it safe to be stopped anywhere, and reads never see it half done:
//!
//! 1. An image of every page that changed, by the LSN of its last change, in any order and by several threads.
//!    Until step 3 nobody needs them, but they are true: what a stopped round leaves is no harm.
//! 2. The images are on disk; then one commit, and it is on disk, too: metadata, resets, and the mark as the
//!    persisted position.
//! 3. Index and overlay forget what is persisted. Reads below the target are refused from here on.
//! 4. Versions that were superseded, and what resets hide, are deleted; then the resets themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pg_quorum_types::Lsn;

use super::build_page::{Scratch, build};
use super::cleanup;
use super::engine::{Counters, Engine, Work};
use super::error::DerivedError;
use super::index::{Pending, PendingPage, Portion};
use super::marks::Mark;
use super::meta_key::{MetaKey, MetaRange, VolumeItem, encode_value};
use super::resets::{Dropped, ResetId};
use super::state::State;
use super::store::{Batch, Space, VersionKey};

/// A page with so many records in a round changes all the time.
const HOT_PAGE_RECORDS: usize = 512;
/// How often it is looked whether a round is due.
const POLL: Duration = Duration::from_millis(100);
/// A failed round is tried again after this.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Records that came less than this ago mean that the foreground is busy.
const BUSY_WITHIN: Duration = Duration::from_millis(100);

/// The thread's body: runs until the engine is stopped.
pub fn run(engine: &Arc<Engine>) {
    let activity = Activity::default();
    while !engine.is_stopping() {
        let quiet_for = activity.quiet_for(engine);
        match due_target(engine, quiet_for) {
            None => engine.pause(POLL),
            Some(target) => match round(engine, target, &activity) {
                Ok(()) => {
                    engine.clear_failure(Work::Coalescing);
                    engine.notify_round_done();
                }
                Err(DerivedError::Stopping) => return,
                Err(error) => {
                    engine.state.write().round_target = None;
                    engine.set_failure(Work::Coalescing, &error);
                    engine.pause(RETRY_PAUSE);
                }
            },
        }
    }
}

/// When records came last.
struct Activity(Mutex<(Lsn, Instant)>);

impl Default for Activity {
    fn default() -> Self {
        Activity(Mutex::new((Lsn::INVALID, Instant::now())))
    }
}

impl Activity {
    /// How long nothing has come.
    fn quiet_for(&self, engine: &Engine) -> Duration {
        let scl = engine.view.borrow().scl;
        let mut seen = self.0.lock();
        if scl != seen.0 {
            *seen = (scl, Instant::now());
        }
        seen.1.elapsed()
    }

    /// The foreground is busy, and what the background does can wait.
    fn is_busy(&self, engine: &Engine) -> bool {
        if self.quiet_for(engine) >= BUSY_WITHIN {
            return false;
        }
        let (bytes, applied) = {
            let state = engine.state.read();
            (state.bytes(), state.applied)
        };
        let is_short = bytes > engine.settings.ample_index_bytes();
        let is_wanted = *engine.wanted_through.lock() > applied;
        !is_short && !is_wanted
    }
}

/// The mark to go to now, `None` if it is not worth a round yet.
fn due_target(engine: &Engine, quiet_for: Duration) -> Option<Mark> {
    let wanted_through = *engine.wanted_through.lock();
    let mut state = engine.state.write();
    let target = state.marks.at_or_below(engine.persistable(&state))?;
    if target.lsn <= state.applied {
        return None;
    }
    let is_due = wanted_through > state.applied
        || state.bytes() > engine.settings.round_index_bytes()
        || target.lsn.bytes_since(state.applied) >= engine.settings.round_wal_bytes
        || quiet_for >= engine.settings.idle_before_round;
    if !is_due {
        return None;
    }
    let target = target.clone();
    state.round_target = Some(target.lsn);
    Some(target)
}

fn round(engine: &Arc<Engine>, target: Mark, activity: &Activity) -> Result<(), DerivedError> {
    let threads = &engine.settings.redo_threads;
    let divide = |pages| portions(pages, engine.settings.pages_per_batch, threads.count());
    let may_help = || !activity.is_busy(engine);
    let may_help_now = may_help(); // it looks at the state, too
    let pending = engine
        .state
        .read()
        .index
        .pending(target.lsn, threads, may_help_now, divide);
    let work = |portion: &Portion, scratch: &mut Scratch| {
        if engine.is_stopping() {
            return Err(DerivedError::Stopping);
        }
        let started = Instant::now();
        let superseded = write_images(engine, &pending, portion, target.lsn, scratch)?;
        // Leaves the machine to the foreground for a while.
        if activity.is_busy(engine) {
            std::thread::sleep(started.elapsed() * engine.settings.rest_factor);
        }
        Ok(superseded)
    };
    let superseded = threads.run(&pending.portions, may_help, work)?;
    let metas = persist(engine, &target)?;
    {
        let mut state = engine.state.write();
        state.forget_through(target.lsn);
        engine.tell_indexed(&state);
    }
    Counters::add(&engine.counters.rounds, 1);
    cleanup::delete_superseded(engine, superseded.into_iter().flatten().collect())?;
    cleanup::delete_old_metadata(engine, &metas, target.lsn)?;
    cleanup::delete_hidden(engine, target.lsn)
}

/// Cuts a round into what a thread does at once. Pages that change all the time come first, so that no thread is
/// left alone with one of them in the end. Their records are all over the log, which is read once for each portion:
/// so they stand together, in no more portions than there are threads.
fn portions(pages: Vec<PendingPage>, pages_per_portion: usize, threads: usize) -> Vec<Vec<PendingPage>> {
    let is_hot = |page: &PendingPage| page.record_count >= HOT_PAGE_RECORDS;
    let (mut hot, cold): (Vec<_>, Vec<_>) = pages.into_iter().partition(is_hot);
    hot.sort_by_key(|page| std::cmp::Reverse(page.record_count));
    let hot_portions = hot.len().min(threads.max(hot.len().div_ceil(pages_per_portion)));
    let mut portions = vec![(0, Vec::new()); hot_portions];
    for page in hot {
        let has_room = |(_, pages): &&mut (usize, Vec<_>)| pages.len() < pages_per_portion;
        let lightest = portions
            .iter_mut()
            .filter(has_room)
            .min_by_key(|(records, _)| *records);
        if let Some((records, pages)) = lightest {
            *records += page.record_count;
            pages.push(page);
        }
    }
    let cold = cold.chunks(pages_per_portion).map(<[_]>::to_vec);
    portions.into_iter().map(|(_, pages)| pages).chain(cold).collect()
}

/// Step 1 for some pages. Returns the versions that the new images replace.
fn write_images(
    engine: &Engine,
    pending: &Pending,
    portion: &Portion,
    target: Lsn,
    scratch: &mut Scratch,
) -> Result<Vec<VersionKey>, DerivedError> {
    let (plan, view) = {
        let state = engine.state.read();
        (state.plan_portion(pending, portion, target), engine.store.view())
    };
    let mut superseded = Vec::new();
    let mut batch = Batch::default();
    let built = build(&plan, view.as_ref(), engine.log.as_ref(), scratch)?;
    // Of what was hidden since the records came nothing is left.
    let changed = portion
        .keys
        .iter()
        .zip(built)
        .filter(|(_, built)| built.has_records);
    for (key, built) in changed {
        engine.unbuildable.note(*key, &built);
        let Some(version) = built.version else {
            continue;
        };
        let key = key.to_bytes();
        let all = MetaRange::of_key(&key);
        for older in view.versions(Space::Pages, &all.from, &all.to) {
            let older = older?;
            if older.lsn < version {
                superseded.push(older);
            }
        }
        batch.put(Space::Pages, &key, version, built.page.to_bytes());
        scratch.give_back(built.page);
        Counters::add(&engine.counters.images_written, 1);
    }
    engine.store.commit(batch)?;
    Ok(superseded)
}

/// Step 2. Returns the stored keys of all metadata that got a new version, with it.
fn persist(engine: &Engine, target: &Mark) -> Result<Vec<VersionKey>, DerivedError> {
    let mut batch = Batch::default();
    let mut written = Vec::new();
    {
        let state = engine.state.read();
        put_overlay(&state, target.lsn, &mut batch, &mut written);
        for (id, dropped) in state.resets.through(target.lsn) {
            if id.0 > state.applied {
                put_reset(&mut batch, id, dropped);
            }
        }
    }
    written.push(put_applied(&mut batch, target));
    // The images first: a position that is on disk never lacks one of them.
    engine.store.flush(Space::Pages)?;
    engine.store.commit(batch)?;
    engine.store.flush(Space::Meta)?;
    Ok(written)
}

fn put_overlay(state: &State, target: Lsn, batch: &mut Batch, written: &mut Vec<VersionKey>) {
    for (key, lsn, value) in state.overlay.newest_of_all(target) {
        if let Some(MetaKey::Size(fork)) = MetaKey::from_bytes(key)
            && lsn < state.resets.hidden_size(fork, target)
        {
            continue;
        }
        batch.put(Space::Meta, key, lsn, encode_value(&value));
        written.push(VersionKey {
            key: key.clone(),
            lsn,
        });
    }
}

/// Notes what is to be deleted, so that it stays hidden over a restart.
pub fn put_reset(batch: &mut Batch, (lsn, number): ResetId, dropped: Dropped) {
    let key = MetaKey::Reset { lsn, number }.to_bytes();
    batch.put(Space::Meta, &key, lsn, encode_value(&Some(dropped.to_bytes())));
}

/// Notes the persisted position.
pub fn put_applied(batch: &mut Batch, mark: &Mark) -> VersionKey {
    let key = MetaKey::Volume(VolumeItem::Applied).to_bytes();
    batch.put(Space::Meta, &key, mark.lsn, encode_value(&Some(mark.to_bytes())));
    VersionKey { key, lsn: mark.lsn }
}
