//! All of a log, from WAL files to pages in memory, one record after the other on one thread: what a startup process
//! does, with the functions that a node applies records with. No index, no store, no images.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use pg_quorum_tests::volume::Volume;
use pg_quorum_tests::wal_files::WalFiles;
use pg_quorum_wal::{Effects, Page, Record, RedoContext, apply};
use serde::Serialize;
use smallvec::SmallVec;

use crate::{Wal, cpu_seconds};

/// Records that are looked at ahead: as many as keep memory busy, and few enough to stay in the cache themselves.
const AHEAD: usize = 16;
/// Of a page's header: where its items begin (`pd_upper`), with the new ones in front of them.
const AT_UPPER: usize = 14;

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
    let mut records = files.records();
    while let Some(run) = records.next_run() {
        let mut unread = run.iter();
        let mut decoded: [(Record<'_>, Effects); AHEAD] =
            std::array::from_fn(|_| (Record::empty(), Effects::default()));
        while unread.len() > 0 {
            let mut count = 0;
            for ((record, _), (start, end, bytes)) in decoded.iter_mut().zip(unread.by_ref()) {
                record.read(start, end, bytes)?;
                replayed.wal_bytes = end.bytes_since(files.start);
                count += 1;
            }
            let decoded = &mut decoded[..count];
            for (record, effects) in &mut *decoded {
                effects.read(record, &ctx)?;
            }
            fetch(decoded, &volume);
            replayed.records += decoded.len() as u64;
            for (record, effects) in &*decoded {
                replayed.page_changes += replay(record, effects, &mut volume, &ctx)?;
            }
        }
    }
    replayed.seconds = begin.elapsed().as_secs_f64();
    replayed.cpu_seconds = cpu_seconds() - cpu_before;
    println!("{}", serde_json::to_string(&replayed)?);
    Ok(())
}

/// Touches the pages that will be changed, first their headers, then where new items go: they come from memory side by
/// side, not one after the other.
fn fetch(decoded: &[(Record<'_>, Effects)], volume: &Volume) {
    let effects = decoded.iter().flat_map(|(_, effects)| &effects.pages);
    let pages: SmallVec<[&Page; 2 * AHEAD]> =
        effects.filter_map(|effect| volume.existing(effect.key)).collect();
    let upper = |page: &&Page| usize::from(u16::from_le_bytes([page[AT_UPPER], page[AT_UPPER + 1]]));
    let places: SmallVec<[usize; 2 * AHEAD]> = pages.iter().map(upper).collect();
    let before = |(page, upper): (&&Page, &usize)| upper.checked_sub(1).and_then(|at| page.get(at)).copied();
    black_box(
        pages
            .iter()
            .zip(&places)
            .filter_map(before)
            .fold(0, |sum, byte| sum ^ byte),
    );
}

/// Returns how many pages the record changes.
fn replay(record: &Record<'_>, effects: &Effects, volume: &mut Volume, ctx: &RedoContext) -> Result<u64> {
    for change in &effects.meta {
        volume.change(change);
    }
    let mut pages = 0;
    for effect in &effects.pages {
        if let Some(page) = volume.page_of(effect) {
            apply(record, &effect.key, page, ctx)?;
            pages += 1;
        }
    }
    Ok(pages)
}
