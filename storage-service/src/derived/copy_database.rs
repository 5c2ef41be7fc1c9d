//! A database copied as files (`XLOG_DBASE_CREATE_FILE_COPY`): every page, size and file of the source as
//! of the record becomes the destination's.
//!
//! A barrier for indexing: everything before the record is persisted first, the record itself must be
//! beyond any cut, and then the copy is made inside the store and becomes the persisted state.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pg_quorum_types::{DatabaseKey, Lsn, PageKey, RelFileNode, RelFork};
use pg_quorum_wal::{MetaChange, Record};

use super::cleanup::{fork_pages, parse_page_key};
use super::coalesce::{put_applied, put_reset};
use super::engine::Engine;
use super::error::DerivedError;
use super::marks::Mark;
use super::meta_key::{MetaKey, MetaRange, encode_value};
use super::resets::{Dropped, Resets};
use super::state::{decode, decode_size, encode_size};
use super::store::{Batch, Space, StoreView};

/// Images that are copied in one commit.
const COPIED_BYTES_PER_BATCH: usize = 1 << 20;
const POLL: Duration = Duration::from_millis(50);

/// What holds behind the record.
pub struct Behind {
    pub mark: Mark,
    /// WAL segments that begin inside of it.
    pub boundaries: Vec<(MetaKey, Bytes)>,
}

/// Carries the record out. Returns early, with nothing done, if the log is cut meanwhile.
///
/// # Errors
/// The store fails, or the engine is stopped.
pub fn carry_out(
    engine: &Arc<Engine>,
    record: &Record<'_>,
    change: &MetaChange,
    behind: Behind,
    cuts: u64,
) -> Result<(), DerivedError> {
    let outcome = carry_out_at(engine, record, change, behind, cuts);
    engine.state.write().round_target = None;
    outcome
}

fn carry_out_at(
    engine: &Arc<Engine>,
    record: &Record<'_>,
    change: &MetaChange,
    behind: Behind,
    cuts: u64,
) -> Result<(), DerivedError> {
    let MetaChange::DatabaseCopied { from, to } = *change else {
        unreachable!("only copies are carried out here");
    };
    if !wait_until_persisted(engine, record.end, cuts)? {
        return Ok(());
    }
    tracing::info!(?from, ?to, at = %record.end, "copying a database");
    // Both of one moment: a reset is forgotten once what it hides is deleted.
    let (view, resets) = {
        let state = engine.state.read();
        (engine.store.view(), state.resets.clone())
    };
    let copy = Copy {
        engine,
        view: view.as_ref(),
        resets,
        from,
        to,
        at: record.end,
    };
    let mut last = Batch::default();
    copy.sizes_and_pages(&mut last)?;
    copy.files(&mut last)?;
    for (key, value) in behind.boundaries {
        last.put(
            Space::Meta,
            &key.to_bytes(),
            record.end,
            encode_value(&Some(value)),
        );
    }
    let behind = behind.mark;
    engine.store.flush(Space::Pages)?;
    let reset = Dropped::Database(to);
    let mut state = engine.state.write();
    if state.cuts != cuts {
        return Ok(());
    }
    let id = state.resets.push(record.end, reset);
    put_reset(&mut last, id, reset);
    put_applied(&mut last, &behind);
    engine.store.commit(last)?;
    engine.store.flush(Space::Meta)?;
    state.indexed = behind.lsn;
    let lsn = behind.lsn;
    state.marks.push(behind, None);
    state.forget_through(lsn);
    engine.tell_indexed(&state);
    Ok(())
}

/// Waits until all before the record is persisted and the record itself may be: from then on nobody gets a read
/// point below it. False if a cut came.
fn wait_until_persisted(engine: &Engine, end: Lsn, cuts: u64) -> Result<bool, DerivedError> {
    loop {
        if engine.is_stopping() {
            return Err(DerivedError::Stopping);
        }
        let indexed = {
            let mut state = engine.state.write();
            if state.cuts != cuts {
                return Ok(false);
            }
            if state.applied == state.indexed && engine.persistable(&state) >= end {
                state.round_target = Some(end);
                return Ok(true);
            }
            state.indexed
        };
        engine.want_applied(indexed);
        engine.wait_for_round(POLL);
    }
}

struct Copy<'a> {
    engine: &'a Engine,
    view: &'a dyn StoreView,
    resets: Resets,
    from: DatabaseKey,
    to: DatabaseKey,
    at: Lsn,
}

impl Copy<'_> {
    fn target(&self, fork: RelFork) -> RelFork {
        RelFork {
            rel: RelFileNode {
                spc: self.to.spc,
                db: self.to.db,
                rel: fork.rel.rel,
            },
            fork: fork.fork,
        }
    }

    /// Copies pages by the batch; sizes, which make them visible, go into the last commit.
    fn sizes_and_pages(&self, last: &mut Batch) -> Result<(), DerivedError> {
        let range = MetaRange::sizes_of(self.from);
        let mut newest: Option<(RelFork, Lsn, Bytes)> = None;
        for version in self.view.scan(Space::Meta, &range.from, &range.to) {
            let (version, value) = version?;
            let Some(MetaKey::Size(fork)) = MetaKey::from_bytes(&version.key) else {
                return Err(DerivedError::Damaged("the key of a size".to_owned()));
            };
            // Versions of one key follow each other, oldest first.
            if let Some(previous) = newest.replace((fork, version.lsn, value))
                && previous.0 != fork
            {
                self.fork(previous, last)?;
            }
        }
        newest.map_or(Ok(()), |newest| self.fork(newest, last))
    }

    fn fork(&self, (fork, lsn, value): (RelFork, Lsn, Bytes), last: &mut Batch) -> Result<(), DerivedError> {
        let hidden = self.resets.hidden_size(fork, self.at);
        let Some(size) = decode(&value)?.filter(|_| lsn >= hidden) else {
            return Ok(());
        };
        let blocks = decode_size(&size)?;
        let target = MetaKey::Size(self.target(fork));
        last.put(
            Space::Meta,
            &target.to_bytes(),
            self.at,
            encode_value(&Some(encode_size(blocks))),
        );
        self.pages(fork, blocks)
    }

    fn pages(&self, fork: RelFork, blocks: u32) -> Result<(), DerivedError> {
        let range = fork_pages(fork, 0);
        let mut batch = Batch::default();
        let mut newest: Option<(PageKey, Lsn, Bytes)> = None;
        for version in self.view.scan(Space::Pages, &range.from, &range.to) {
            let (version, image) = version?;
            let key = parse_page_key(&version.key)
                .ok_or_else(|| DerivedError::Damaged("the key of a page".to_owned()))?;
            if let Some(previous) = newest.replace((key, version.lsn, image))
                && previous.0 != key
            {
                self.page(previous, blocks, &mut batch);
            }
            if batch.bytes() >= COPIED_BYTES_PER_BATCH {
                self.engine.store.commit(std::mem::take(&mut batch))?;
            }
        }
        if let Some(newest) = newest {
            self.page(newest, blocks, &mut batch);
        }
        self.engine.store.commit(batch)?;
        Ok(())
    }

    fn page(&self, (key, lsn, image): (PageKey, Lsn, Bytes), blocks: u32, batch: &mut Batch) {
        let PageKey::Relation { rel: fork, block } = key else {
            return;
        };
        let hidden = self.resets.hidden_page(&key, self.at);
        if block < blocks && lsn >= hidden {
            let copy = PageKey::Relation {
                rel: self.target(fork),
                block,
            };
            batch.put(Space::Pages, &copy.to_bytes(), self.at, image);
        }
    }

    fn files(&self, last: &mut Batch) -> Result<(), DerivedError> {
        let state = self.engine.state.read();
        let applied = state.applied;
        let pairs = [
            (MetaKey::Database(self.from), MetaKey::Database(self.to)),
            (MetaKey::RelationMap(self.from), MetaKey::RelationMap(self.to)),
        ];
        for (from, to) in pairs {
            let value = state.meta(self.view, &from, applied)?;
            last.put(Space::Meta, &to.to_bytes(), self.at, encode_value(&value));
        }
        Ok(())
    }
}
