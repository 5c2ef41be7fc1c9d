//! Warm start: local files that a clean stop has left behind are good for the next start.
//!
//! After a clean stop whose last record is durable, and is the log's last one still, nobody has written the volume
//! since, and every page that the directory holds was written by a server whose records are all durable: no hint bit bears
//! witness to a commit that was cut. The files were never synced, so the machine must not have been started anew
//! since; a note in the directory says on which boot they became whole.
//!
//! A cluster that has just been imported is good for the same reason: it was stopped cleanly, and the volume is what
//! its files are.

use std::fs;

use pg_quorum_client::pgdata::{self, Failure, Layout, Result};

use super::import;
use crate::cache::ChunkKey;
use crate::pg::presence_file;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const NOTE: &str = "pg_quorum/whole_since_boot";

/// From here on the files are what the presence table says, for as long as the machine runs.
pub fn note_whole(layout: &Layout) -> Result<()> {
    let Some(boot) = boot_id() else { return Ok(()) };
    // On the next boot it is worth nothing.
    pgdata::write_atomically(&layout.join(NOTE), boot.as_bytes())
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

/// Whether files and presence table can be kept, after a clean stop that was the last thing that happened to the
/// volume.
pub fn is_whole(layout: &Layout) -> bool {
    let noted = fs::read_to_string(layout.join(NOTE)).ok();
    noted.is_some() && noted == boot_id() && presence_file::table().is_usable()
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

fn boot_id() -> Option<String> {
    fs::read_to_string(BOOT_ID).ok()
}
