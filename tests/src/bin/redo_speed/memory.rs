//! All of a log, from WAL files to pages in memory, one record after the other on one thread: what a startup process
//! does, with the functions that a node applies records with. No index, no store, no images.

use std::time::Instant;

use anyhow::Result;
use pg_quorum_tests::volume::Volume;
use pg_quorum_tests::wal_files::WalFiles;
use pg_quorum_wal::{RawRecord, Record, RedoContext, apply, effects};
use serde::Serialize;

use crate::{Wal, cpu_seconds};

/// Records that are read before they are replayed.
const RECORDS_AHEAD: usize = 512;

/// What is printed.
#[derive(Serialize)]
struct Replayed {
    records: u64,
    /// Changes of pages.
    page_changes: u64,
    wal_bytes: u64,
    seconds: f64,
    /// Time of the thread on a core.
    cpu_seconds: f64,
}

pub fn run(wal: &Wal) -> Result<()> {
    let mut volume = Volume::load(&wal.base);
    let files = WalFiles::since_stop(&wal.base, &wal.wal);
    let ctx = RedoContext {
        hint_bits_logged: files.facts.data_checksums,
        track_commit_timestamp: false,
    };
    let begin = Instant::now();
    let mut replayed = Replayed {
        records: 0,
        page_changes: 0,
        wal_bytes: 0,
        seconds: 0.0,
        cpu_seconds: 0.0,
    };
    let cpu_before = cpu_seconds();
    // Where the server was killed the log ends with an error.
    let mut records = files.records().map_while(Result::ok);
    let mut ahead = Vec::with_capacity(RECORDS_AHEAD);
    loop {
        ahead.clear();
        ahead.extend(records.by_ref().take(RECORDS_AHEAD));
        let Some(last) = ahead.last() else { break };
        replayed.records += ahead.len() as u64;
        replayed.wal_bytes = last.end.bytes_since(files.start);
        for raw in &ahead {
            replayed.page_changes += replay(raw, &mut volume, &ctx)?;
        }
    }
    replayed.seconds = begin.elapsed().as_secs_f64();
    replayed.cpu_seconds = cpu_seconds() - cpu_before;
    println!("{}", serde_json::to_string(&replayed)?);
    Ok(())
}

/// Returns how many pages the record changes.
fn replay(raw: &RawRecord, volume: &mut Volume, ctx: &RedoContext) -> Result<u64> {
    let record = Record::decode(raw)?;
    let effects = effects(&record, ctx)?;
    for change in &effects.meta {
        volume.change(change);
    }
    let mut pages = 0;
    for effect in &effects.pages {
        if let Some(page) = volume.page_of(effect) {
            apply(&record, &effect.key, page, ctx)?;
            pages += 1;
        }
    }
    Ok(pages)
}
