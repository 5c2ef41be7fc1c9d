//! Replication slots that an attach keeps: which WAL they still need.

use std::fs;
use std::io::ErrorKind;

use pg_quorum_client::pgdata::{Failure, Layout, Result, read_directory};
use pg_quorum_types::Lsn;

/// Place of `restart_lsn` in a slot's state file (`ReplicationSlotOnDisk`, slot.c, 15.18): behind a header of 16 bytes
/// name, database, persistency, xmin and catalog_xmin.
const RESTART_LSN_OFFSET: usize = 16 + 64 + 4 * 4;

/// The oldest WAL that a slot needs, `None` if there is no slot that needs any.
pub fn oldest_wal(layout: &Layout) -> Result<Option<Lsn>> {
    let mut oldest = None;
    for slot in read_directory(&layout.join("pg_replslot"))? {
        let path = slot.path().join("state");
        let state = match fs::read(&path) {
            Ok(state) => state,
            // What a crash left of a slot that was being made.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::file("read", &path)(error)),
        };
        let restart = state
            .get(RESTART_LSN_OFFSET..)
            .and_then(|rest| rest.first_chunk::<8>())
            .map(|bytes| Lsn(u64::from_le_bytes(*bytes)))
            .filter(|lsn| lsn.is_valid());
        oldest = [oldest, restart].into_iter().flatten().min();
    }
    Ok(oldest)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_slot_that_is_furthest_behind_counts() {
        let pgdata = tempfile::tempdir().unwrap();
        let layout = Layout::of_tests(pgdata.path());
        let slot = |name: &str, restart: u64| {
            let directory = layout.join(Path::new("pg_replslot").join(name));
            fs::create_dir_all(&directory).unwrap();
            let mut state = vec![0; 200];
            state[RESTART_LSN_OFFSET..][..8].copy_from_slice(&restart.to_le_bytes());
            fs::write(directory.join("state"), state).unwrap();
        };
        slot("reserves_nothing", 0);
        assert_eq!(oldest_wal(&layout).unwrap(), None);
        slot("ahead", 0x300_0000);
        slot("behind", 0x200_0028);
        fs::create_dir_all(layout.join("pg_replslot/half_made")).unwrap();
        assert_eq!(oldest_wal(&layout).unwrap(), Some(Lsn(0x200_0028)));
    }
}
