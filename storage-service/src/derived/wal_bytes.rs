//! WAL as PostgreSQL wrote it, from the base's prefix and the log's records.

use pg_quorum_types::Lsn;
use pg_quorum_wal::WalBuilder;

use super::engine::Engine;
use super::error::DerivedError;
use super::meta_key::{MetaKey, MetaRange, MetaValue};
use super::record_log::LogRecords;
use super::state::decode;
use super::store::Space;

/// Records that are read from the log at once.
const LOG_READ_BYTES: usize = 1 << 20;

/// Hands out `[start, end)` piece by piece.
pub struct WalReader<'a> {
    engine: &'a Engine,
    /// Where the next piece starts.
    at: Lsn,
    end: Lsn,
    /// Set once the base's prefix is behind us.
    builder: Option<WalBuilder>,
    /// End of the last record that was given to the builder.
    pushed: Lsn,
}

impl<'a> WalReader<'a> {
    /// # Errors
    /// `end` is above what is indexed.
    pub fn new(engine: &'a Engine, start: Lsn, end: Lsn) -> Result<WalReader<'a>, DerivedError> {
        let indexed = engine.state.read().indexed;
        if end > indexed {
            return Err(engine.not_indexed(end, indexed));
        }
        Ok(WalReader {
            engine,
            at: start,
            end,
            builder: None,
            pushed: Lsn::INVALID,
        })
    }

    /// The next bytes and where they start; `None` at the end.
    ///
    /// # Errors
    /// The log is trimmed there, or cannot be read.
    pub fn next_piece(&mut self) -> Result<Option<(Lsn, Vec<u8>)>, DerivedError> {
        while self.at < self.end {
            let (start, bytes) = if self.at < self.engine.base.base.lsn {
                self.prefix_piece()?
            } else {
                self.log_piece()?
            };
            // From the start of what could be had to what is asked for.
            let skip = usize::try_from(self.at.bytes_since(start)).unwrap_or(usize::MAX);
            if skip >= bytes.len() {
                continue;
            }
            let wanted = usize::try_from(self.end.bytes_since(self.at)).unwrap_or(usize::MAX);
            let take = wanted.min(bytes.len() - skip);
            let at = self.at;
            self.at = at + take as u64;
            return Ok(Some((at, bytes[skip..skip + take].to_vec())));
        }
        Ok(None)
    }

    fn prefix_piece(&self) -> Result<(Lsn, Vec<u8>), DerivedError> {
        let too_old = || DerivedError::TooOld {
            asked: self.at,
            floor: self.engine.base.base.lsn,
        };
        let view = self.engine.store.view();
        let range = MetaRange::wal_prefix();
        // The last piece that starts at or before the position.
        let behind = MetaKey::WalPrefix(self.at + 1).to_bytes();
        let mut found = None;
        for version in view.versions(Space::Meta, &range.from, &behind) {
            found = Some(version?);
        }
        let version = found.ok_or_else(too_old)?;
        let value = view.newest(Space::Meta, &version.key, Lsn::MAX)?;
        let value: MetaValue = match value {
            Some((_, value)) => decode(&value)?,
            None => None,
        };
        match (MetaKey::from_bytes(&version.key), value) {
            (Some(MetaKey::WalPrefix(lsn)), Some(wal)) if lsn + wal.len() as u64 > self.at => {
                Ok((lsn, wal.to_vec()))
            }
            _ => Err(too_old()),
        }
    }

    fn log_piece(&mut self) -> Result<(Lsn, Vec<u8>), DerivedError> {
        let from = match self.builder {
            Some(_) => self.pushed,
            None => self.record_end_at_or_below(self.at)?,
        };
        let builder = self
            .builder
            .get_or_insert_with(|| WalBuilder::new(*self.engine.facts(), from));
        let failed = |problem: String| DerivedError::Log { at: from, problem };
        let mut records = LogRecords::default();
        self.engine
            .log
            .read_records(from, LOG_READ_BYTES, &mut records)
            .map_err(|error| failed(error.to_string()))?;
        let Some(end) = records.end() else {
            return Err(failed("no record where one must follow".to_owned()));
        };
        self.pushed = end;
        for record in records.iter() {
            builder.push(record.start, record.end, record.bytes)?;
        }
        Ok((from, builder.take()))
    }

    /// The end of a record from which on the log is whole, at or below `at`: as noted at the start of the WAL
    /// segment, or the base.
    fn record_end_at_or_below(&self, at: Lsn) -> Result<Lsn, DerivedError> {
        let engine = self.engine;
        let number = at.0 / u64::from(engine.facts().wal_segment_bytes);
        let key = MetaKey::SegmentBoundary(number).to_bytes();
        let state = engine.state.read();
        let noted = match state.overlay.newest(&key, Lsn::MAX) {
            Some((_, value)) => value,
            None => match engine.store.view().newest(Space::Meta, &key, state.applied)? {
                Some((_, value)) => decode(&value)?,
                None => None,
            },
        };
        let noted = noted
            .and_then(|value| value[..].try_into().ok())
            .map(u64::from_le_bytes);
        Ok(noted.map_or(engine.base.base.lsn, Lsn))
    }
}
