//! The WAL segments of a stopped server, record by record.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;
use pg_quorum_types::{ClusterFacts, Lsn};
use pg_quorum_wal::{ControlFile, RawRecord, RecordRun, WalError, WalSplitter};

/// A directory of WAL segments that is read from the start of a record on.
#[derive(Clone)]
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

    /// All records in order, one at a time: with their images they can be much larger than memory. The newest
    /// timeline's history leads. Where the server was killed, the last item may be an error.
    pub fn records(&self) -> Records {
        let mut legs = self.legs();
        Records {
            files: self.clone(),
            current: self.reader(legs.remove(0)),
            legs: legs.into(),
            has_ended: false,
        }
    }

    /// The stretches of the log, by timeline: a promoted server leaves the old one where its history file says.
    fn legs(&self) -> Vec<Leg> {
        let first = Leg {
            timeline: self.facts.timeline,
            start: self.start,
            end: None,
        };
        let mut legs = vec![first];
        let entries = fs::read_dir(&self.pg_wal).expect("read pg_wal");
        let histories = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let Some(newest) = histories.filter(|name| name.ends_with(".history")).max() else {
            return legs;
        };
        let newest_timeline = u32::from_str_radix(&newest[..8], 16).expect("a history file's name");
        let history = fs::read_to_string(self.pg_wal.join(&newest)).expect("read the history file");
        let mut switches = Vec::new();
        for line in history.lines().filter(|line| !line.trim().is_empty()) {
            let mut fields = line.split_whitespace();
            let timeline: u32 = fields
                .next()
                .and_then(|field| field.parse().ok())
                .expect("a timeline");
            let switch: Lsn = fields
                .next()
                .and_then(|field| field.parse().ok())
                .expect("an LSN");
            switches.push((timeline, switch));
        }
        let timelines = switches.iter().map(|(timeline, _)| *timeline).skip(1);
        for ((_, switch), next) in switches.iter().zip(timelines.chain([newest_timeline])) {
            if *switch <= self.start {
                continue;
            }
            legs.last_mut().expect("one leg").end = Some(*switch);
            legs.push(Leg {
                timeline: next,
                start: *switch,
                end: None,
            });
        }
        legs
    }

    fn reader(&self, leg: Leg) -> LegReader {
        let facts = ClusterFacts {
            timeline: leg.timeline,
            ..self.facts
        };
        LegReader {
            leg,
            splitter: WalSplitter::new(facts, leg.start),
            fed: leg.start,
            segment: None,
        }
    }

    /// The segment's bytes where the page cache has them, `None` if there is no such file.
    fn segment(&self, leg: Leg, segment: u64) -> Option<Bytes> {
        let segment_bytes = u64::from(self.facts.wal_segment_bytes);
        let segments_per_id = 0x1_0000_0000 / segment_bytes;
        let name = format!(
            "{:08X}{:08X}{:08X}",
            leg.timeline,
            segment / segments_per_id,
            segment % segments_per_id
        );
        let file = File::open(self.pg_wal.join(name)).ok()?;
        // SAFETY: nobody writes to the files or truncates them. Their server is stopped; a standby that replays them at
        // the same time only reads them, and at most removes one, which its mapping outlives.
        #[allow(unsafe_code)]
        let segment = unsafe { Mmap::map(&file) }.expect("map a WAL segment");
        Some(Bytes::from_owner(segment))
    }
}

/// A stretch of the log on one timeline.
#[derive(Clone, Copy)]
struct Leg {
    timeline: u32,
    start: Lsn,
    /// Where the next timeline begins.
    end: Option<Lsn>,
}

struct LegReader {
    leg: Leg,
    splitter: WalSplitter,
    /// Up to here the splitter has bytes.
    fed: Lsn,
    /// The segment that they came from, by its number.
    segment: Option<(u64, Bytes)>,
}

/// Bytes that the splitter gets at once: whole pages.
const PIECE_BYTES: u64 = 256 << 10;

impl LegReader {
    /// False if there is no more WAL. The rest of its last segment is zeros, which nobody reads.
    fn feed(&mut self, files: &WalFiles) -> bool {
        if self.splitter.stands_at_zeros() {
            return false;
        }
        let segment_bytes = u64::from(files.facts.wal_segment_bytes);
        let (number, offset) = (self.fed.0 / segment_bytes, self.fed.0 % segment_bytes);
        if self.segment.as_ref().is_none_or(|(open, _)| *open != number) {
            self.segment = files.segment(self.leg, number).map(|bytes| (number, bytes));
        }
        let Some((_, segment)) = &self.segment else {
            return false;
        };
        let end = (offset + 1).next_multiple_of(PIECE_BYTES);
        self.splitter.feed(segment.slice(offset as usize..end as usize));
        self.fed = self.fed + (end - offset);
        true
    }
}

/// See [`WalFiles::records`].
pub struct Records {
    files: WalFiles,
    current: LegReader,
    legs: VecDeque<Leg>,
    has_ended: bool,
}

impl Records {
    /// The next records that stand together, of a log with one timeline: `None` at its end, also if that is an error.
    /// Not to be mixed with the iterator.
    ///
    /// # Panics
    /// The log changes its timeline.
    pub fn next_run(&mut self) -> Option<RecordRun<'_>> {
        let current = &mut self.current;
        assert!(current.leg.end.is_none(), "a log with several timelines");
        while !current.splitter.advance_run().ok()? {
            if !current.feed(&self.files) {
                return None;
            }
        }
        Some(current.splitter.run())
    }
}

impl Iterator for Records {
    type Item = Result<RawRecord, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            let current = &mut self.current;
            match current.splitter.next_record() {
                Ok(Some(record)) => {
                    if current.leg.end == Some(record.end)
                        && let Some(next) = self.legs.pop_front()
                    {
                        self.current = self.files.reader(next);
                    }
                    return Some(Ok(record));
                }
                Ok(None) => self.has_ended = !current.feed(&self.files),
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
