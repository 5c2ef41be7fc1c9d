//! `pg_wal` of a fresh attach: the segment that the epoch-start record stands in, whole from its start.
//!
//! A standby asks from a segment's start: it must get real bytes, never zeros.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use pg_quorum_types::Lsn;

use super::failure::{Failure, Result};
use super::layout::Layout;
use crate::{Attachment, StateError, Transport, read_wal};

/// Writes the WAL from the start of the segment that holds `first` up to `end`; the rest of the last segment
/// is a hole.
pub async fn rebuild(
    layout: &Layout,
    attachment: &Attachment,
    first: Lsn,
    end: Lsn,
    transport: &Transport,
) -> Result<()> {
    let failed = |error: StateError| {
        Failure::new("the storage nodes could not give the WAL that a start needs").detail(error.to_string())
    };
    let (_, start) = layout.wal_file(first);
    let mut wal = read_wal(attachment, start, end, transport).map_err(failed)?;
    while let Some(chunk) = wal.next().await.map_err(failed)? {
        write(layout, chunk.lsn, &chunk.wal)?;
    }
    Ok(())
}

/// Puts bytes of the log where they belong; the rest of a segment is a hole.
pub fn write(layout: &Layout, mut lsn: Lsn, mut wal: &[u8]) -> Result<()> {
    while !wal.is_empty() {
        let (path, start) = layout.wal_file(lsn);
        let room = start.0 + layout.wal_segment_bytes() - lsn.0;
        let (now, later) = wal.split_at(wal.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Failure::file("open", &path))?;
        file.set_len(layout.wal_segment_bytes())
            .and_then(|()| file.write_all_at(now, lsn.bytes_since(start)))
            .map_err(Failure::file("write", &path))?;
        lsn = lsn + now.len() as u64;
        wal = later;
    }
    Ok(())
}
