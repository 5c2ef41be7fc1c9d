//! A node's derived state over a log in memory, and a writer of small, real WAL records.
#![allow(dead_code)] // each test file uses its own part

mod records;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pg_quorum_types::{Base, DatabaseKey, ForkNumber, Lsn, PageKey, RelFileNode, RelFork};
use pg_quorum_wal::{InRun, RawRecord};
use storage_service::derived::{ContentItem, Derived, DerivedSettings, ReadPage, RecordLog};
use storage_service::log::{LogPosition, LogRecords, LogView};
use tokio::sync::watch;
use uuid::Uuid;

pub use records::{FACTS, WalWriter, control_file};

/// The base ends here: in the middle of a WAL segment.
pub const BASE: Lsn = Lsn(0x500_0400);

/// Records in a vector; the position is the index.
#[derive(Default)]
pub struct MemoryLog {
    records: Mutex<Vec<RawRecord>>,
}

impl MemoryLog {
    pub fn push(&self, record: RawRecord) {
        self.records.lock().push(record);
    }

    /// Forgets records that end above `to`, as a cut does.
    pub fn cut(&self, to: Lsn) {
        self.records.lock().retain(|record| record.end <= to);
    }
}

impl RecordLog for MemoryLog {
    fn read_records(&self, previous_end: Lsn, max_bytes: usize, found: &mut LogRecords) -> io::Result<()> {
        let records = self.records.lock();
        let from = records.partition_point(|record| record.end <= previous_end);
        let mut bytes = 0;
        for (index, raw) in records.iter().enumerate().skip(from) {
            if bytes >= max_bytes {
                break;
            }
            bytes += raw.bytes.len();
            let part = found.add_parts(std::slice::from_ref(&raw.bytes));
            let record = InRun {
                start: raw.start,
                end: raw.end,
                part: 0,
                at: 0,
                length: raw.bytes.len(),
            };
            let position = LogPosition {
                file: 0,
                offset: index as u32,
                length: raw.bytes.len() as u32,
            };
            found.push(part, &record, position);
        }
        Ok(())
    }

    fn read_each(
        &self,
        positions: &mut dyn Iterator<Item = LogPosition>,
        _buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        let records = self.records.lock();
        for position in positions {
            let record = records.get(position.offset as usize);
            let record = record.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            if !take(&record.bytes) {
                break;
            }
        }
        Ok(())
    }
}

/// A node without a network.
pub struct Node {
    pub directory: tempfile::TempDir,
    pub log: Arc<MemoryLog>,
    pub view: watch::Sender<LogView>,
    pub settings: DerivedSettings,
    pub derived: Derived,
    pub writer: WalWriter,
}

/// Rounds happen only when a test asks for one.
pub fn quiet_settings() -> DerivedSettings {
    DerivedSettings {
        idle_before_round: Duration::from_secs(3600),
        ..DerivedSettings::default()
    }
}

pub fn empty_base() -> Vec<ContentItem> {
    vec![ContentItem::ControlFile(control_file(&FACTS))]
}

/// An empty base whose last checkpoint says something else in these words of `CheckPoint`, each by its offset.
pub fn empty_base_of_checkpoint(words: &[(usize, u32)]) -> Vec<ContentItem> {
    vec![ContentItem::ControlFile(records::control_file_with(
        &FACTS, words,
    ))]
}

impl Node {
    /// A node whose base holds nothing but what every base must.
    pub fn new() -> Node {
        Node::with_base(quiet_settings(), empty_base())
    }

    pub fn with_base(settings: DerivedSettings, items: Vec<ContentItem>) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let log = Arc::new(MemoryLog::default());
        let view = watch::Sender::new(LogView {
            scl: BASE,
            vdl: BASE,
            ..LogView::default()
        });
        let derived = open(&directory, &settings, &log, &view);
        let base = Base {
            id: Uuid::from_u128(1),
            lsn: BASE,
        };
        derived.begin_import(base, FACTS).unwrap();
        derived.import_items(base, items).unwrap();
        derived.finish_import(base).unwrap();
        Node {
            directory,
            log,
            view,
            settings,
            derived,
            writer: WalWriter::new(FACTS, BASE),
        }
    }

    /// Stops the node without a word and opens its directory again.
    pub fn restart(mut self) -> Node {
        self.derived.shut_down();
        self.derived = open(&self.directory, &self.settings, &self.log, &self.view);
        self.wait_indexed();
        self
    }

    /// Appends a record, without making it durable. Returns its end.
    pub fn append(&mut self, record: RawRecord) -> Lsn {
        let end = record.end;
        self.log.push(record);
        self.view.send_modify(|view| view.scl = end);
        end
    }

    /// Everything appended so far is durable in the quorum.
    pub fn make_durable(&self) {
        self.view.send_modify(|view| view.vdl = view.scl);
    }

    pub fn end(&self) -> Lsn {
        self.view.borrow().scl
    }

    pub fn wait_indexed(&self) {
        let end = self.end();
        wait_until("everything is indexed", || self.derived.indexed_lsn() >= end);
    }

    /// Appended, durable, indexed, and turned into pages.
    pub fn coalesce(&self) {
        self.make_durable();
        self.wait_indexed();
        let end = self.end();
        wait_until("everything is coalesced", || {
            self.derived.request_coalescing();
            self.derived.applied_lsn() >= end
        });
    }

    /// A cut as a Start makes it, and the log's.
    pub fn cut(&mut self, to: Lsn) {
        self.log.cut(to);
        self.view.send_modify(|view| view.scl = to);
        self.derived.cut(to);
        self.writer.go_back(to);
    }

    pub fn page(&self, fork: RelFork, block: u32, at: Lsn) -> ReadPage {
        self.derived
            .page(PageKey::Relation { rel: fork, block }, at)
            .unwrap()
    }

    /// The byte that [`WalWriter::full_page`] filled a page with, `None` for zeros.
    pub fn fill(&self, fork: RelFork, block: u32, at: Lsn) -> Option<u8> {
        match self.page(fork, block, at) {
            ReadPage::Page(page) => Some(page[8191]),
            ReadPage::Zeros => None,
            ReadPage::Failed(why) => panic!("{why}"),
        }
    }

    pub fn size(&self, fork: RelFork, at: Lsn) -> Option<u32> {
        self.derived.relation_size(fork, at).unwrap()
    }

    /// The compute image at `at`, all of it.
    pub fn image(&self, at: Lsn) -> (Lsn, Vec<ContentItem>) {
        let mut items = Vec::new();
        let mut last_record = None;
        self.derived
            .compute_image(at, false, &mut |part| {
                last_record = last_record.or(part.last_record_start);
                items.extend(part.items);
                true
            })
            .unwrap();
        (last_record.unwrap(), items)
    }
}

fn open(
    directory: &tempfile::TempDir,
    settings: &DerivedSettings,
    log: &Arc<MemoryLog>,
    view: &watch::Sender<LogView>,
) -> Derived {
    let log = Arc::clone(log) as Arc<dyn RecordLog>;
    Derived::open(directory.path(), settings.clone(), log, view.subscribe()).unwrap()
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub const DATABASE: DatabaseKey = DatabaseKey { spc: 1663, db: 5 };

pub fn rel(number: u32) -> RelFileNode {
    RelFileNode {
        spc: DATABASE.spc,
        db: DATABASE.db,
        rel: number,
    }
}

pub fn main_fork(number: u32) -> RelFork {
    RelFork {
        rel: rel(number),
        fork: ForkNumber::Main,
    }
}

pub fn free_space_map(number: u32) -> RelFork {
    RelFork {
        fork: ForkNumber::FreeSpaceMap,
        ..main_fork(number)
    }
}
