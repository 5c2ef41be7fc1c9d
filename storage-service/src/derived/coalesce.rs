//! Turns log into pages in the background, and forgets what is not needed any more.
//!
//! A round has a target: a mark that no cut can undo and below which nobody reads. Its order is what
//! makes it safe to be stopped anywhere, and reads never see it half done:
//!
//! 1. An image of every page that changed, by the LSN of its last change. Until step 3 nobody needs them,
//!    but they are true: what a stopped round leaves is no harm.
//! 2. The images are on disk; then one commit, and it is on disk, too: metadata, resets, and the mark as the
//!    persisted position.
//! 3. Index and overlay forget what is persisted. Reads below the target are refused from here on.
//! 4. Versions that were superseded, and what resets hide, are deleted; then the resets themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_quorum_types::{Lsn, PageKey};

use super::build_page::build;
use super::cleanup;
use super::engine::{Counters, Engine, Work};
use super::error::DerivedError;
use super::marks::Mark;
use super::meta_key::{MetaKey, MetaRange, VolumeItem, encode_value};
use super::resets::{Dropped, ResetId};
use super::state::{PagePlan, State};
use super::store::{Batch, Space, VersionKey};

/// How often it is looked whether a round is due.
const POLL: Duration = Duration::from_millis(100);
/// A failed round is tried again after this.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Records that came less than this ago mean that the foreground is busy.
const BUSY_WITHIN: Duration = Duration::from_millis(100);

/// The thread's body: runs until the engine is stopped.
pub fn run(engine: &Arc<Engine>) {
    let mut activity = Activity::default();
    while !engine.is_stopping() {
        activity.look(engine);
        match due_target(engine, &activity) {
            None => engine.pause(POLL),
            Some(target) => match round(engine, target, &mut activity) {
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
struct Activity {
    scl: Lsn,
    changed: Instant,
}

impl Default for Activity {
    fn default() -> Self {
        Activity {
            scl: Lsn::INVALID,
            changed: Instant::now(),
        }
    }
}

impl Activity {
    fn look(&mut self, engine: &Engine) {
        let scl = engine.view.borrow().scl;
        if scl != self.scl {
            self.scl = scl;
            self.changed = Instant::now();
        }
    }
}

/// The mark to go to now, `None` if it is not worth a round yet.
fn due_target(engine: &Engine, activity: &Activity) -> Option<Mark> {
    let wanted_through = *engine.wanted_through.lock();
    let mut state = engine.state.write();
    let target = state.marks.at_or_below(engine.persistable(&state))?;
    if target.lsn <= state.applied {
        return None;
    }
    let is_due = wanted_through > state.applied
        || state.bytes() > engine.settings.index_bytes / 2
        || target.lsn.bytes_since(state.applied) >= engine.settings.round_wal_bytes
        || activity.changed.elapsed() >= engine.settings.idle_before_round;
    if !is_due {
        return None;
    }
    let target = target.clone();
    state.round_target = Some(target.lsn);
    Some(target)
}

fn round(engine: &Arc<Engine>, target: Mark, activity: &mut Activity) -> Result<(), DerivedError> {
    let keys = engine.state.read().index.pages_through(target.lsn);
    let mut superseded = Vec::new();
    for keys in keys.chunks(engine.settings.pages_per_batch) {
        if engine.is_stopping() {
            return Err(DerivedError::Stopping);
        }
        let started = Instant::now();
        write_images(engine, keys, target.lsn, &mut superseded)?;
        rest(engine, started.elapsed(), activity);
    }
    let metas = persist(engine, &target)?;
    engine.state.write().forget_through(target.lsn);
    Counters::add(&engine.counters.rounds, 1);
    cleanup::delete_superseded(engine, superseded)?;
    cleanup::delete_old_metadata(engine, &metas, target.lsn)?;
    cleanup::delete_hidden(engine, target.lsn)
}

/// Leaves the machine to the foreground for a while if that is busy and memory allows.
fn rest(engine: &Engine, worked: Duration, activity: &mut Activity) {
    activity.look(engine);
    let is_short = engine.state.read().bytes() > engine.settings.index_bytes / 4 * 3;
    let is_wanted = *engine.wanted_through.lock() > engine.state.read().applied;
    if activity.changed.elapsed() < BUSY_WITHIN && !is_short && !is_wanted {
        std::thread::sleep(worked * engine.settings.rest_factor);
    }
}

/// Step 1 for some pages. Adds the versions that the new images replace.
fn write_images(
    engine: &Engine,
    keys: &[PageKey],
    target: Lsn,
    superseded: &mut Vec<VersionKey>,
) -> Result<(), DerivedError> {
    let (plans, view) = {
        let state = engine.state.read();
        let plans: Vec<PagePlan> = keys.iter().map(|key| state.plan(*key, target)).collect();
        (plans, engine.store.view())
    };
    let mut batch = Batch::default();
    for plan in plans.iter().filter(|plan| !plan.records.is_empty()) {
        let built = build(plan, view.as_ref(), engine.log.as_ref())?;
        engine.unbuildable.note(plan.key, &built);
        let Some(version) = built.version else {
            continue;
        };
        let key = plan.key.to_bytes();
        let all = MetaRange::of_key(&key);
        for older in view.versions(Space::Pages, &all.from, &all.to) {
            let older = older?;
            if older.lsn < version {
                superseded.push(older);
            }
        }
        batch.put(Space::Pages, &key, version, built.page.to_bytes());
        Counters::add(&engine.counters.images_written, 1);
    }
    engine.store.commit(batch)?;
    Ok(())
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
