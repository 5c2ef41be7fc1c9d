//! Files that are read at a start: `pg_control`, a segment's metadata.

use pg_quorum_quorum::segment::{decode_meta, encode_meta};
use pg_quorum_types::Lsn;
use pg_quorum_wal::ControlFile;

use crate::FACTS;

/// Bytes of `pg_control` in front of its checksum (`ControlFileData`, 15.18).
const CONTROL_BYTES: usize = 288;

/// `pg_control`: as given, and with versions and a checksum that let it in.
pub fn control(input: &[u8]) {
    check_control(input);
    let mut file = vec![0; CONTROL_BYTES];
    let given = &input[..input.len().min(CONTROL_BYTES)];
    file[..given.len()].copy_from_slice(given);
    file[8..12].copy_from_slice(&FACTS.pg_control_version.to_le_bytes());
    file[12..16].copy_from_slice(&FACTS.catalog_version.to_le_bytes());
    let crc = crc32c::crc32c(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    check_control(&file);
}

fn check_control(file: &[u8]) {
    let Ok(mut control) = ControlFile::parse(file) else {
        return;
    };
    let facts = control.facts();
    let state = control.checkpoint_state();
    assert_eq!(ControlFile::parse(&control.to_bytes()).as_ref(), Ok(&control));
    control.set_shut_down_at(&state, Lsn(0x100_0028));
    let again = ControlFile::parse(&control.to_bytes()).expect("what is written can be read");
    assert_eq!((again.facts(), again.state()), (facts, control.state()));
    assert_eq!(again.parameters(), state.parameters);
}

/// A segment's metadata: as given, and as the body of a file with the right length and checksum.
pub fn segment_meta(input: &[u8]) {
    let _ = decode_meta(input);
    let mut file = Vec::with_capacity(20 + input.len());
    file.extend_from_slice(b"PGQSEGM\n");
    file.extend_from_slice(&1_u32.to_le_bytes());
    file.extend_from_slice(&(input.len() as u32).to_le_bytes());
    file.extend_from_slice(&crc32c::crc32c(input).to_le_bytes());
    file.extend_from_slice(input);
    if let Ok(meta) = decode_meta(&file) {
        assert_eq!(encode_meta(&meta), file, "what is read is what was written");
    }
}
