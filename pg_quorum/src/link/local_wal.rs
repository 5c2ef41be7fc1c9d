//! The server's own `pg_wal` as the retransmission buffer.
//!
//! Files are in the page cache and hold what was written to them; nothing is kept in a second place. What is
//! read is bounded by the caller: `GetXLogWriteRecPtr()` while sessions insert, since whole pages are written
//! and bytes behind that point may be half-copied.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pg_quorum_client::{Batch, WalSource, WalSourceError};
use pg_quorum_types::{ClusterFacts, Lsn};
use pg_quorum_wal::{RECORD_HEADER_BYTES, RawRecord, WalLayout, WalSplitter};

use crate::attach::Layout;

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// WAL files of one timeline.
#[derive(Clone, Debug)]
pub struct LocalWal {
    layout: Arc<Layout>,
    facts: ClusterFacts,
}

impl LocalWal {
    pub fn new(layout: Layout, facts: ClusterFacts) -> LocalWal {
        LocalWal {
            layout: Arc::new(layout),
            facts,
        }
    }

    /// A reader of what follows `from`, the end of a record.
    pub fn reader(&self, from: Lsn) -> WalReader {
        WalReader {
            wal: self.clone(),
            splitter: WalSplitter::new(self.facts, from),
            open: None,
            end: from,
            records: 0,
        }
    }
}

/// Reads records in order.
pub struct WalReader {
    wal: LocalWal,
    splitter: WalSplitter,
    open: Option<(Lsn, File)>,
    /// End of the last record that was returned.
    end: Lsn,
    records: u64,
}

/// WAL that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LocalWalError {
    /// The segment file is gone.
    #[error("WAL at {0} is not held here any more")]
    NotHeld(Lsn),
    #[error("WAL at {lsn} cannot be read: {source}")]
    Io { lsn: Lsn, source: std::io::Error },
    #[error(transparent)]
    Wal(#[from] pg_quorum_wal::WalError),
}

impl WalReader {
    /// End of the last record that was returned.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// How many records were returned.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whole records up to `until` (bytes at and above it are not looked at), about `max_bytes` of them;
    /// `None` if there is none yet.
    ///
    /// # Errors
    /// Files that are gone or unreadable, bytes that are no WAL.
    pub fn next_batch(&mut self, until: Lsn, max_bytes: usize) -> Result<Option<Batch>, LocalWalError> {
        self.collect(max_bytes, |reader| reader.next_record(until))
    }

    /// As [`WalReader::next_batch`], up to where whole, valid records end in the files. When nobody else
    /// inserts: bytes that are no record then are the end of the log.
    ///
    /// # Errors
    /// Files that are unreadable.
    pub fn next_batch_in_files(&mut self, max_bytes: usize) -> Result<Option<Batch>, LocalWalError> {
        let layout = WalLayout::new(&self.wal.facts);
        // What was fed before may have been the end of a page that has been written again since.
        self.splitter = WalSplitter::new(self.wal.facts, self.end);
        let batch = self.collect(max_bytes, |reader| reader.next_record_in_files(layout));
        match batch {
            Err(LocalWalError::NotHeld(_) | LocalWalError::Wal(_)) => Ok(None),
            other => other,
        }
    }

    fn collect(
        &mut self,
        max_bytes: usize,
        mut next: impl FnMut(&mut WalReader) -> Result<Option<RawRecord>, LocalWalError>,
    ) -> Result<Option<Batch>, LocalWalError> {
        let previous_end = self.end;
        let mut records = BytesMut::new();
        while records.len() < max_bytes {
            match next(self) {
                Ok(Some(record)) => {
                    records.extend_from_slice(&record.bytes);
                    self.end = record.end;
                    self.records += 1;
                }
                Ok(None) => break,
                // What came before it goes out first; the error comes again.
                Err(_) if self.end > previous_end => break,
                Err(error) => return Err(error),
            }
        }
        if self.end == previous_end {
            return Ok(None);
        }
        Ok(Some(Batch {
            previous_end,
            end: self.end,
            records: Bytes::from(records),
            gaps: Vec::new(),
        }))
    }

    /// A record whose length stands in the file, and no byte behind it: files are preallocated.
    fn next_record_in_files(&mut self, layout: WalLayout) -> Result<Option<RawRecord>, LocalWalError> {
        let start = layout.next_record_start(self.end);
        let (file, offset) = self.file_at(start)?;
        let mut header = [0; RECORD_HEADER_BYTES];
        file.read_exact_at(&mut header[..4], offset)
            .map_err(|source| LocalWalError::Io { lsn: start, source })?;
        if header == [0; RECORD_HEADER_BYTES] {
            return Ok(None);
        }
        let end = layout.record_end(start, &header)?;
        if let Some(record) = self.next_record(end)? {
            return Ok(Some(record));
        }
        // A segment switch: it takes the rest of its segment.
        let segment_bytes = self.wal.layout.wal_segment_bytes();
        self.next_record(Lsn(end.0.next_multiple_of(segment_bytes)))
    }

    fn next_record(&mut self, until: Lsn) -> Result<Option<RawRecord>, LocalWalError> {
        loop {
            if let Some(record) = self.splitter.next_record()? {
                return Ok(Some(record));
            }
            if !self.read_more(until)? {
                return Ok(None);
            }
        }
    }

    /// Feeds the splitter; false if nothing is left below `until`.
    fn read_more(&mut self, until: Lsn) -> Result<bool, LocalWalError> {
        let at = self.splitter.fed_up_to();
        if at >= until {
            return Ok(false);
        }
        let segment_bytes = self.wal.layout.wal_segment_bytes();
        let in_segment = segment_bytes - at.0 % segment_bytes;
        let wanted = until.bytes_since(at).min(in_segment).min(READ_BYTES as u64);
        let (file, offset) = self.file_at(at)?;
        let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(READ_BYTES)];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|source| LocalWalError::Io { lsn: at, source })?;
        self.splitter.feed(bytes.into());
        Ok(true)
    }

    fn file_at(&mut self, at: Lsn) -> Result<(&File, u64), LocalWalError> {
        let (path, start) = self.wal.layout.wal_file(at);
        if self.open.as_ref().is_none_or(|(open, _)| *open != start) {
            let file = File::open(&path).map_err(|source| match source.kind() {
                ErrorKind::NotFound => LocalWalError::NotHeld(at),
                _ => LocalWalError::Io { lsn: at, source },
            })?;
            self.open = Some((start, file));
        }
        match &self.open {
            Some((_, file)) => Ok((file, at.bytes_since(start))),
            None => Err(LocalWalError::NotHeld(at)),
        }
    }
}

impl WalSource for LocalWal {
    fn read(&self, after: Lsn, until: Lsn, max_bytes: usize) -> Result<Batch, WalSourceError> {
        let failed = |message: String| WalSourceError::Failed { after, message };
        match self.reader(after).next_batch(until, max_bytes) {
            Ok(Some(batch)) => Ok(batch),
            Ok(None) => Err(failed("no whole record is there".to_owned())),
            Err(LocalWalError::NotHeld(_)) => Err(WalSourceError::NotHeld(after)),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
