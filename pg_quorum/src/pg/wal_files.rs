//! Which descriptors of this process are WAL segments.
//!
//! Every `open` of the main program passes here, so a descriptor number that is used again for another file is
//! forgotten. A process has few segments open at a time: the table is small, and the oldest entry goes first.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use pg_quorum_types::Lsn;

use super::config;

const FILES: usize = 8;

/// Descriptor plus one (zero: unused), and the segment's first LSN. One thread per process uses them.
static DESCRIPTORS: [AtomicI32; FILES] = [const { AtomicI32::new(0) }; FILES];
static STARTS: [AtomicU64; FILES] = [const { AtomicU64::new(0) }; FILES];
static OLDEST: AtomicUsize = AtomicUsize::new(0);

/// `path` has been opened as `fd`.
pub fn remember(fd: i32, path: &[u8]) {
    let known = DESCRIPTORS
        .iter()
        .position(|held| held.load(Ordering::Relaxed) == fd + 1);
    let segment = segment_of(path, config::wal_segment_bytes());
    match (known, segment) {
        (Some(index), Some(start)) => STARTS[index].store(start.0, Ordering::Relaxed),
        (Some(index), None) => DESCRIPTORS[index].store(0, Ordering::Relaxed),
        (None, Some(start)) => {
            let index = OLDEST.fetch_add(1, Ordering::Relaxed) % FILES;
            DESCRIPTORS[index].store(fd + 1, Ordering::Relaxed);
            STARTS[index].store(start.0, Ordering::Relaxed);
        }
        (None, None) => {}
    }
}

/// The first LSN of the segment that `fd` is, `None` for any other file.
pub fn segment_start(fd: i32) -> Option<Lsn> {
    let index = DESCRIPTORS
        .iter()
        .position(|held| held.load(Ordering::Relaxed) == fd + 1)?;
    Some(Lsn(STARTS[index].load(Ordering::Relaxed)))
}

/// The first LSN of `pg_wal/TTTTTTTTLLLLLLLLSSSSSSSS` (`XLogFileName`).
fn segment_of(path: &[u8], segment_bytes: u64) -> Option<Lsn> {
    let name = path.strip_prefix(b"pg_wal/")?;
    if name.len() != 24 || segment_bytes == 0 {
        return None;
    }
    let number = |from: usize| {
        let digits = std::str::from_utf8(&name[from..from + 8]).ok()?;
        u64::from_str_radix(digits, 16).ok()
    };
    number(0)?;
    let start = number(8)? << 32 | number(16)?.checked_mul(segment_bytes)?;
    Some(Lsn(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_name_gives_its_first_lsn() {
        let of = |name: &[u8]| segment_of(name, 16 << 20);
        assert_eq!(of(b"pg_wal/000000010000000A00000003"), Some(Lsn(0xA_0300_0000)));
        assert_eq!(of(b"pg_wal/000000010000000A00000003.partial"), None);
        assert_eq!(of(b"pg_wal/00000002.history"), None);
        assert_eq!(of(b"base/5/000000010000000A00000003"), None);
    }
}
