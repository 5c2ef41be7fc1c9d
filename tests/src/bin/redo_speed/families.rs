//! Single records by kind: each is decoded and applied to the page as it was before it.
//!
//! Records and pages are of a real log; which of a kind are taken is spread over it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use pg_quorum_tests::volume::Volume;
use pg_quorum_tests::wal_files::WalFiles;
use pg_quorum_types::PageKey;
use pg_quorum_wal::{Page, PageEffect, RawRecord, Record, RedoContext, apply, effects};
use serde::Serialize;

use crate::Wal;

/// Changes of pages that are taken of a family, at most; and without so many it is left out.
const MOST: u64 = 500;
const LEAST: u64 = 100;
/// Passes over a family; the median counts.
const PASSES: usize = 5;

/// What is printed.
#[derive(Serialize)]
struct Families {
    families: BTreeMap<String, Family>,
}

#[derive(Serialize)]
struct Family {
    changes: usize,
    seconds: f64,
}

/// One record's change of one page.
struct Change {
    raw: RawRecord,
    key: PageKey,
    before: Box<Page>,
}

pub fn run(wal: &Wal) -> Result<()> {
    let files = WalFiles::since_stop(&wal.base, &wal.wal);
    let ctx = RedoContext {
        hint_bits_logged: files.facts.data_checksums,
        track_commit_timestamp: false,
    };
    let mut families = BTreeMap::new();
    for (name, changes) in sample(wal, &files, &ctx)? {
        let seconds = measure(&changes, &ctx)?;
        let changes = changes.len();
        families.insert(name, Family { changes, seconds });
    }
    println!("{}", serde_json::to_string(&Families { families })?);
    Ok(())
}

/// `heap_insert_init` and the like; what an image replaces is a family of its own.
fn family(record: &Record<'_>, effect: &PageEffect) -> String {
    let has_image = match effect.key {
        PageKey::Relation { rel, block } => record
            .block_of(rel, block)
            .is_some_and(|block| block.applied_image().is_some()),
        PageKey::Slru { .. } => false,
    };
    if has_image {
        return "image".to_owned();
    }
    let name = format!("{}_{}", record.rmgr, record.kind_name()).to_lowercase();
    name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
}

fn sample(wal: &Wal, files: &WalFiles, ctx: &RedoContext) -> Result<BTreeMap<String, Vec<Change>>> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    each_change(wal, files, ctx, |_, record, effect, _| {
        *counts.entry(family(record, effect)).or_default() += 1;
    })?;
    counts.retain(|_, count| *count >= LEAST);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut changes: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    each_change(wal, files, ctx, |raw, record, effect, before| {
        let name = family(record, effect);
        let Some(count) = counts.get(&name) else { return };
        let number = seen.entry(name.clone()).or_default();
        if number.is_multiple_of(count.div_ceil(MOST)) {
            changes.entry(name).or_default().push(Change {
                raw: raw.clone(),
                key: effect.key,
                before: Box::new(*before),
            });
        }
        *number += 1;
    })?;
    Ok(changes)
}

/// Replays the log and shows each change that can be made, with the page as it is before it.
fn each_change(
    wal: &Wal,
    files: &WalFiles,
    ctx: &RedoContext,
    mut show: impl FnMut(&RawRecord, &Record<'_>, &PageEffect, &Page),
) -> Result<()> {
    let mut volume = Volume::load(&wal.base);
    for raw in files.records().map_while(Result::ok) {
        let record = Record::decode(&raw)?;
        let effects = effects(&record, ctx)?;
        for change in &effects.meta {
            volume.change(change);
        }
        for effect in &effects.pages {
            let Some(page) = volume.page_of(effect) else {
                continue;
            };
            let before = *page;
            apply(&record, &effect.key, page, ctx)?;
            show(&raw, &record, effect, &before);
        }
    }
    Ok(())
}

/// Seconds for all changes.
fn measure(changes: &[Change], ctx: &RedoContext) -> Result<f64> {
    let mut pages: Vec<Box<Page>> = changes.iter().map(|change| change.before.clone()).collect();
    let mut passes: Vec<Duration> = Vec::new();
    for _ in 0..PASSES {
        for (page, change) in pages.iter_mut().zip(changes) {
            page.copy_from_slice(&change.before[..]);
        }
        let begin = Instant::now();
        for (page, change) in pages.iter_mut().zip(changes) {
            apply(&Record::decode(&change.raw)?, &change.key, page, ctx)?;
        }
        passes.push(begin.elapsed());
    }
    passes.sort_unstable();
    Ok(passes[PASSES / 2].as_secs_f64())
}
