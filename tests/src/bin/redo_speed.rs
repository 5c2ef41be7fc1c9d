//! Replays WAL on one thread, pages in memory, and prints how long it took: the driver of `cargo xtask bench redo`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use pg_quorum_tests::volume::Volume;
use pg_quorum_tests::wal_files::WalFiles;

use pg_quorum_wal::{RawRecord, Record, RedoContext, apply, effects};
use serde::Serialize;

#[derive(Parser)]
struct Arguments {
    /// The data directory of a server that was stopped cleanly.
    #[arg(long)]
    base: PathBuf,
    /// `pg_wal` with what was written from its shutdown checkpoint on.
    #[arg(long)]
    wal: PathBuf,
}

/// What is printed, as JSON.
#[derive(Serialize)]
struct Replayed {
    records: u64,
    /// Pages that records changed.
    pages: u64,
    wal_bytes: u64,
    seconds: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut volume = Volume::load(&arguments.base);
    let wal = WalFiles::since_stop(&arguments.base, &arguments.wal);
    // Where the server was killed the log ends with an error.
    let records: Vec<RawRecord> = wal.records().map_while(Result::ok).collect();
    let ctx = RedoContext {
        hint_bits_logged: wal.facts.data_checksums,
        track_commit_timestamp: false,
    };
    let begin = Instant::now();
    let mut pages = 0;
    for raw in &records {
        pages += replay(raw, &mut volume, &ctx)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let end = records.last().map_or(wal.start, |last| last.end);
    let replayed = Replayed {
        records: records.len() as u64,
        pages,
        wal_bytes: end.bytes_since(wal.start),
        seconds,
    };
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
        if effect.extends || volume.existing(effect.key).is_some() {
            apply(&record, &effect.key, volume.page_mut(effect.key), ctx)?;
            pages += 1;
        }
    }
    Ok(pages)
}
