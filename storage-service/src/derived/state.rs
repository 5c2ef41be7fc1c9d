//! What is known of the log beyond the persisted state, and how to look things up in both together.
//!
//! ```text
//!            applied                indexed        SCL
//!  -- store ----|-- index, overlay ----|-- not read yet --|
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use pg_quorum_types::{ClusterFacts, Lsn, PageKey, RelFork};

use super::error::DerivedError;
use super::index::{IndexEntry, PageIndex, Pending, Portion};
use super::marks::{Contexts, Mark, Marks};
use super::meta_key::{self, MetaKey, MetaRange, MetaValue};
use super::overlay::Overlay;
use super::resets::Resets;
use super::store::{Space, StoreView};

/// The part of the derived state that is in memory.
pub struct State {
    /// End of the last record whose effects are persisted.
    pub applied: Lsn,
    /// End of the last record that is in the index.
    pub indexed: Lsn,
    pub index: PageIndex,
    pub overlay: Overlay,
    pub resets: Resets,
    pub marks: Marks,
    pub contexts: Contexts,
    /// Rises with every cut: what was read from the log before it is void.
    pub cuts: u64,
    /// Positions that somebody reads at for a while, with how many do. The persisted state does not pass them.
    pub pins: BTreeMap<Lsn, usize>,
    /// Where the round of coalescing that is under way goes.
    pub round_target: Option<Lsn>,
}

/// All that is needed to build some pages as of an LSN, but for their base images.
#[derive(Debug)]
pub struct Plan {
    pub at: Lsn,
    pub pages: Vec<PlannedPage>,
    /// In LSN order.
    pub records: Vec<PlannedRecord>,
    pub contexts: Contexts,
    /// Set if `at` is below the persisted state: then only pages that did not change since can be read.
    pub unchanged_until: Option<Lsn>,
}

/// See [`Plan`].
#[derive(Clone, Copy, Debug)]
pub struct PlannedPage {
    pub key: PageKey,
    /// Nothing below this counts.
    pub hidden_below: Lsn,
}

/// One record's change of one page.
#[derive(Clone, Copy, Debug)]
pub struct PlannedRecord {
    /// Index in [`Plan::pages`].
    pub page: u32,
    pub entry: IndexEntry,
}

impl State {
    /// The state right behind what is persisted.
    pub fn new(applied: Mark, facts: &ClusterFacts, resets: Resets) -> State {
        State {
            applied: applied.lsn,
            indexed: applied.lsn,
            index: PageIndex::default(),
            overlay: Overlay::default(),
            resets,
            contexts: Contexts::new(applied.lsn, applied.checkpoint.redo_context(facts)),
            marks: Marks::new(applied),
            cuts: 0,
            pins: BTreeMap::new(),
            round_target: None,
        }
    }

    /// Memory in use, about.
    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.overlay.bytes() + self.resets.bytes()
    }

    /// The lowest position that a read may hold on to.
    pub fn floor(&self) -> Lsn {
        self.round_target.unwrap_or(self.applied)
    }

    /// What is needed to build pages as of `at`, which must not be above `indexed`.
    pub fn plan(&self, keys: &[PageKey], at: Lsn) -> Plan {
        assert!(at <= self.indexed, "a page is asked for above what is indexed");
        let mut plan = self.plan_pages(keys, at);
        for (number, page) in (0..).zip(&plan.pages) {
            let records = self.index.records(&page.key, page.hidden_below..=at);
            let planned = |entry| PlannedRecord { page: number, entry };
            plan.records.extend(records.into_iter().map(planned));
        }
        // Runs in order, one behind the other: a stable sort is a merge.
        plan.records.sort_by_key(|record| record.entry.end);
        plan
    }

    /// What is needed to build a portion of a round that goes to `target`, of which nothing is forgotten yet.
    pub fn plan_portion(&self, pending: &Pending, portion: &Portion, target: Lsn) -> Plan {
        let mut plan = self.plan_pages(&portion.keys, target);
        let records = self.index.portion_records(pending, portion);
        let planned = records.map(|(page, entry)| PlannedRecord { page, entry });
        plan.records.extend(
            planned.filter(|record| record.entry.end >= plan.pages[record.page as usize].hidden_below),
        );
        plan
    }

    fn plan_pages(&self, keys: &[PageKey], at: Lsn) -> Plan {
        let page = |key: &PageKey| PlannedPage {
            key: *key,
            hidden_below: self.resets.hidden_page(key, at.max(self.applied)),
        };
        Plan {
            at,
            pages: keys.iter().map(page).collect(),
            records: Vec::new(),
            contexts: self.contexts.clone(),
            unchanged_until: (at < self.applied).then_some(self.applied),
        }
    }

    /// A metadata value as of `at`, which must be neither below `applied` nor above `indexed`.
    ///
    /// # Errors
    /// The store fails.
    pub fn meta(&self, view: &dyn StoreView, key: &MetaKey, at: Lsn) -> Result<MetaValue, DerivedError> {
        Ok(self
            .meta_version(view, &key.to_bytes(), at)?
            .and_then(|(_, value)| value))
    }

    fn meta_version(
        &self,
        view: &dyn StoreView,
        key: &[u8],
        at: Lsn,
    ) -> Result<Option<(Lsn, MetaValue)>, DerivedError> {
        assert!(
            self.applied <= at && at <= self.indexed,
            "metadata is asked for outside of what is known"
        );
        if let Some(version) = self.overlay.newest(key, at) {
            return Ok(Some(version));
        }
        let Some((lsn, value)) = view.newest(Space::Meta, key, self.applied)? else {
            return Ok(None);
        };
        Ok(Some((lsn, decode(&value)?)))
    }

    /// Blocks of a fork as of `at`, `None` if it does not exist. `at` as for [`State::meta`].
    ///
    /// # Errors
    /// The store fails.
    pub fn size(&self, view: &dyn StoreView, fork: RelFork, at: Lsn) -> Result<Option<u32>, DerivedError> {
        let version = self.meta_version(view, &MetaKey::Size(fork).to_bytes(), at)?;
        match version {
            Some((lsn, Some(value))) if lsn >= self.resets.hidden_size(fork, at) => {
                Ok(Some(decode_size(&value)?))
            }
            _ => Ok(None),
        }
    }

    /// The overlay's part of a range as of `at`: newest versions by stored key.
    pub fn overlay_range(&self, range: &MetaRange, at: Lsn) -> BTreeMap<Vec<u8>, (Lsn, MetaValue)> {
        self.overlay
            .newest_in(range, at)
            .map(|(key, lsn, value)| (key.clone(), (lsn, value)))
            .collect()
    }

    /// Forgets what is persisted up to the mark at `target`.
    pub fn forget_through(&mut self, target: Lsn) {
        self.applied = target;
        self.round_target = None;
        self.index.forget_through(target);
        self.overlay.forget_through(target);
        self.marks.forget_below(target);
        self.contexts.forget_below(target);
        self.check();
    }

    /// Goes back to the last mark at or below `to`: what is above it must be read from the log again.
    pub fn cut(&mut self, to: Lsn) {
        assert!(
            to >= self.applied,
            "a cut to {to} would undo persisted state at {}",
            self.applied
        );
        self.cuts += 1;
        if to >= self.indexed {
            return;
        }
        self.marks.cut(to);
        let back_to = self.marks.last().lsn;
        self.indexed = back_to;
        self.index.cut(back_to);
        self.overlay.cut(back_to);
        self.resets.cut(back_to);
        self.contexts.cut(back_to);
        self.check();
    }

    /// Invariant: the persisted state never passes what is indexed, and marks span both.
    fn check(&self) {
        assert!(self.applied <= self.indexed, "applied passes indexed");
        assert_eq!(
            self.marks.applied().lsn,
            self.applied,
            "the first mark is the applied one"
        );
        assert!(self.marks.last().lsn <= self.indexed, "a mark passes indexed");
    }
}

/// Parses a stored metadata value.
pub fn decode(value: &Bytes) -> Result<MetaValue, DerivedError> {
    meta_key::decode_value(value).ok_or_else(|| DerivedError::Damaged("a metadata value".to_owned()))
}

/// Parses the value of a [`MetaKey::Size`].
pub fn decode_size(value: &Bytes) -> Result<u32, DerivedError> {
    match value[..].try_into() {
        Ok(bytes) => Ok(u32::from_le_bytes(bytes)),
        Err(_) => Err(DerivedError::Damaged(format!("a size of {} bytes", value.len()))),
    }
}

/// The inverse of [`decode_size`].
pub fn encode_size(blocks: u32) -> Bytes {
    Bytes::copy_from_slice(&blocks.to_le_bytes())
}
