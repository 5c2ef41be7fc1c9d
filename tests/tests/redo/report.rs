//! The table of record types, over all runs together.

use std::collections::BTreeMap;
use std::fmt;

use pg_quorum_wal::{Rmgr, identify};

use crate::files::{FinalComparison, Rule};
use crate::replay::{KindCount, Mismatch, Replay};

/// Kinds that no server with the settings of a compute node writes, and why. They are decoded all the same.
const NEVER_WRITTEN: [(Rmgr, &str, &str); 3] = [
    (Rmgr::Xlog, "NOOP", "nothing in PostgreSQL 15 writes one"),
    (
        Rmgr::Heap,
        "HOT_UPDATE+INIT",
        "the old version is on the same page, so the page is not new",
    ),
    (
        Rmgr::Gist,
        "ASSIGN_LSN",
        "only wal_level = minimal makes it (gistGetFakeLSN), and it changes no page",
    ),
];

/// What a run was made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The scripts and steps that were written to make each kind of record.
    Workload,
    /// PostgreSQL's own regression tests.
    CoreRegression,
}

/// What happened to the records of one kind, in all runs.
#[derive(Default)]
struct Kind {
    by_workload: u64,
    by_core_regression: u64,
    pages: u64,
    compared: u64,
    restored: u64,
    /// Records by step of the workload.
    steps: BTreeMap<&'static str, u64>,
}

/// All runs together.
#[derive(Default)]
pub struct Coverage {
    kinds: BTreeMap<(Rmgr, &'static str), Kind>,
    legal: BTreeMap<Rule, u64>,
    relation_pages: u64,
    slru_pages: u64,
    pub mismatches: usize,
}

impl Coverage {
    /// Adds a run, and returns its differences.
    pub fn add<'a>(
        &mut self,
        source: Source,
        replay: &'a Replay,
        comparison: &'a FinalComparison,
    ) -> Vec<&'a Mismatch> {
        for (kind, count) in &replay.kinds {
            self.kinds.entry(*kind).or_default().add(source, count);
        }
        if source == Source::Workload {
            for ((kind, step), records) in &replay.made_by {
                let steps = &mut self.kinds.entry(*kind).or_default().steps;
                *steps.entry(step).or_default() += records;
            }
        }
        for (rule, pages) in &comparison.legal {
            *self.legal.entry(*rule).or_default() += pages;
        }
        self.relation_pages += comparison.relation_pages;
        self.slru_pages += comparison.slru_pages;
        let mismatches: Vec<_> = replay.mismatches.iter().chain(&comparison.mismatches).collect();
        self.mismatches += mismatches.len();
        mismatches
    }

    /// Kinds that no run made, but for those that nobody can make.
    pub fn never_seen(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        for rmgr in Rmgr::ALL {
            for info in (0..=0xF0).step_by(0x10) {
                if let Some(kind) = identify(rmgr, info)
                    && !self.kinds.contains_key(&(rmgr, kind))
                    && !NEVER_WRITTEN
                        .iter()
                        .any(|(other, name, _)| (*other, *name) == (rmgr, kind))
                {
                    kinds.push(format!("{rmgr}/{kind}"));
                }
            }
        }
        kinds.dedup();
        kinds
    }
}

impl Kind {
    fn add(&mut self, source: Source, count: &KindCount) {
        match source {
            Source::Workload => self.by_workload += count.records,
            Source::CoreRegression => self.by_core_regression += count.records,
        }
        self.pages += count.pages;
        self.compared += count.compared;
        self.restored += count.restored;
    }

    /// The step of the workload that makes most of them, and how many others make some.
    fn maker(&self) -> String {
        let most = self.steps.iter().max_by_key(|(_, records)| **records);
        match (most, self.steps.len()) {
            (None, _) => "-".to_owned(),
            (Some((step, _)), 1) => (*step).to_owned(),
            (Some((step, _)), steps) => format!("{step} and {} more", steps - 1),
        }
    }
}

/// The kinds that were seen; those that were not; how much was compared.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} {:<22} {:>10} {:>9} {:>9} {:>9} {:>9}  made by",
            "resource manager", "record", "regression", "workload", "pages", "compared", "restored"
        )?;
        let mut records = 0;
        for ((rmgr, name), kind) in &self.kinds {
            records += kind.by_core_regression + kind.by_workload;
            writeln!(
                f,
                "{:<18} {:<22} {:>10} {:>9} {:>9} {:>9} {:>9}  {}",
                rmgr.name(),
                name,
                kind.by_core_regression,
                kind.by_workload,
                kind.pages,
                kind.compared,
                kind.restored,
                kind.maker()
            )?;
        }
        writeln!(f, "{records} records")?;
        for (rmgr, kind, why) in NEVER_WRITTEN {
            writeln!(f, "cannot be seen: {rmgr}/{kind}: {why}")?;
        }
        let never_seen = self.never_seen();
        if !never_seen.is_empty() {
            writeln!(f, "never seen: {}", never_seen.join(", "))?;
        }
        writeln!(
            f,
            "compared with standbys' files, unmasked: {} pages of relations, {} of transaction state",
            self.relation_pages, self.slru_pages
        )?;
        for (rule, pages) in &self.legal {
            writeln!(f, "differ legally: {pages} pages: {}", rule.text())?;
        }
        writeln!(f, "mismatches: {}", self.mismatches)
    }
}
