//! The WAL segments of a stopped server, record by record.

use std::fs;
use std::path::{Path, PathBuf};

use pg_quorum_types::{ClusterFacts, Lsn};
use pg_quorum_wal::{ControlFile, RawRecord, WalError, WalSplitter};

/// A directory of WAL segments that is read from the start of a record on.
pub struct WalFiles {
    pub pg_wal: PathBuf,
    pub facts: ClusterFacts,
    pub start: Lsn,
}

impl WalFiles {
    /// WAL in `pg_wal` from the shutdown checkpoint on with which the server of `pgdata` was stopped.
    ///
    /// # Panics
    /// `pg_control` cannot be read.
    pub fn since_stop(pgdata: &Path, pg_wal: &Path) -> WalFiles {
        let control = fs::read(pgdata.join("global/pg_control")).expect("read pg_control");
        let control = ControlFile::parse(&control).expect("a pg_control of PostgreSQL 15");
        WalFiles {
            pg_wal: pg_wal.to_owned(),
            facts: control.facts(),
            start: control.last_checkpoint(),
        }
    }

    /// All records in order, one at a time: with their images they can be much larger than memory. Where the
    /// server was killed, the last item may be an error.
    pub fn records(&self) -> Records<'_> {
        Records {
            files: self,
            splitter: WalSplitter::new(self.facts, self.start),
            next_segment: self.start.0 / u64::from(self.facts.wal_segment_bytes),
            has_ended: false,
        }
    }

    /// The segment's bytes from `start` on, `None` if there is no such file.
    fn segment(&self, segment: u64) -> Option<Vec<u8>> {
        let segment_bytes = u64::from(self.facts.wal_segment_bytes);
        let segments_per_id = 0x1_0000_0000 / segment_bytes;
        let name = format!(
            "{:08X}{:08X}{:08X}",
            self.facts.timeline,
            segment / segments_per_id,
            segment % segments_per_id
        );
        let mut bytes = fs::read(self.pg_wal.join(name)).ok()?;
        bytes.drain(..self.start.0.saturating_sub(segment * segment_bytes) as usize);
        Some(bytes)
    }
}

/// See [`WalFiles::records`].
pub struct Records<'a> {
    files: &'a WalFiles,
    splitter: WalSplitter,
    next_segment: u64,
    has_ended: bool,
}

impl Iterator for Records<'_> {
    type Item = Result<RawRecord, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            match self.splitter.next_record() {
                Ok(Some(record)) => return Some(Ok(record)),
                Ok(None) => match self.files.segment(self.next_segment) {
                    Some(bytes) => {
                        self.splitter.feed(&bytes);
                        self.next_segment += 1;
                    }
                    None => self.has_ended = true,
                },
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
