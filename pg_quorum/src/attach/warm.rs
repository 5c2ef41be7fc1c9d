//! Warm start: local files that the last run has left behind are good for the next start, or most of them are.
//!
//! The files were never synced, so the machine must not have been started anew since; and nobody else may have held the
//! volume. A note in the directory says on which boot, and up to which epoch, files, presence table and `pg_control` are
//! what one server has left. It is passed on to each epoch that this directory takes, and it is away from the moment on
//! that an attach begins to change the directory until it has ended: what an attach that was broken off leaves is a
//! mixture, of which nothing is kept.
//!
//! After a clean stop whose last record is durable, and is the log's last one still, everything is good: every page was
//! written by a server whose records are all durable, and no hint bit bears witness to a commit that was cut.
//!
//! After a crash the chunks are kept that were not written behind the cut; which of their pages the log has changed since
//! the last checkpoint is asked for when they are read (`crate::cache`, module `kept`, has the proof).
//!
//! A cluster that has just been imported is good, too: it was stopped cleanly, and the volume is what its files are.

use std::collections::HashMap;
use std::fs;

use pg_quorum_client::pgdata::{self, Built, Failure, Layout, Result};
use pg_quorum_types::RelFork;

use super::import;
use crate::cache::{ChunkKey, Crash, Kept};
use crate::pg::presence_file;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const NOTE: &str = "pg_quorum/whole_since_boot";

/// From here on the files are what the presence table says, for as long as the machine runs and nobody but the holder of
/// epoch `number` has written the volume.
pub fn note_whole(layout: &Layout, number: u64) -> Result<()> {
    let Some(note) = note(number) else { return Ok(()) };
    // On the next boot it is worth nothing.
    pgdata::write_atomically(&layout.join(NOTE), note.as_bytes())
        .map_err(|error| Failure::new(error.to_string()))
}

/// The files are about to become a mixture.
pub fn forget_whole(layout: &Layout) -> Result<()> {
    let path = layout.join(NOTE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether files and presence table are what the server of epoch `number` has left on this boot, however it ended.
pub fn is_whole_since(layout: &Layout, number: u64) -> bool {
    let noted = fs::read_to_string(layout.join(NOTE)).ok();
    let is_noted = noted.is_some() && noted == note(number);
    is_noted && presence_file::table().is_usable()
}

/// Keeps what the crash has left of the forks that the volume has. The files have been brought to the volume's lengths.
pub fn keep_after_crash(built: &Built, crash: Crash) -> Result<Kept> {
    let found = built.paged_forks.iter().zip(&built.found_blocks);
    let blocks: HashMap<RelFork, u32> = found.map(|((fork, _), found)| (*fork, *found)).collect();
    presence_file::table()
        .keep_after_crash(crash, |fork| blocks.get(&fork).copied())
        .map_err(|full| Failure::new(full.to_string()))
}

/// Every block of an imported cluster is present.
pub fn mark_imported(layout: &Layout) -> Result<()> {
    let table = presence_file::table();
    import::for_each_fork(layout, |fork, blocks| {
        let mut block = 0;
        while block < blocks {
            let chunk = ChunkKey::of(fork, block);
            let held = table.hold(chunk).map_err(|full| Failure::new(full.to_string()))?;
            let end = chunk.end_block().min(blocks);
            (block..end).for_each(|block| held.set_present(block));
            block = end;
        }
        Ok(())
    })
}

/// What the note says: the boot, and the epoch.
fn note(number: u64) -> Option<String> {
    let boot = fs::read_to_string(BOOT_ID).ok()?;
    Some(format!("{}\nepoch {number}\n", boot.trim_end()))
}
