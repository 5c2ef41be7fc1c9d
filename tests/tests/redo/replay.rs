//! Replays WAL on a [`Volume`] and compares each page with its writer's image, which redo never sees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pg_quorum_tests::volume::Volume;
use pg_quorum_tests::wal_files::WalFiles;
use pg_quorum_types::{BLOCK_SIZE, ForkNumber, Lsn, PageKey};
use pg_quorum_wal::{BlockImage, Page, Record, RedoContext, Rmgr, apply, effects, mask_page, restore_image};

use crate::steps::Steps;
use crate::wrong_redo::WrongRedo;

/// How many differences are kept: the first ones tell the story.
const MISMATCH_LIMIT: usize = 50;

/// What happened to the records of one kind.
#[derive(Clone, Copy, Default)]
pub struct KindCount {
    pub records: u64,
    /// Pages that redo changed.
    pub pages: u64,
    /// Pages that were compared with an image that redo had not seen.
    pub compared: u64,
    /// Pages that an image in the record replaced.
    pub restored: u64,
}

/// A byte that is not what PostgreSQL has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Start of the record after which it was seen, and its kind; `None` in the final comparison.
    pub record: Option<(Lsn, String)>,
    pub key: PageKey,
    pub what: Difference,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    Byte { offset: usize, ours: u8, theirs: u8 },
    Refused(String),
    OnlyOurs,
    OnlyTheirs,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.record {
            Some((lsn, kind)) => write!(f, "{lsn} {kind}: ")?,
            None => f.write_str("at the end: ")?,
        }
        write!(f, "{}: ", self.key)?;
        match &self.what {
            Difference::Byte { offset, ours, theirs } => {
                write!(f, "byte {offset} is {ours:#04x}, PostgreSQL has {theirs:#04x}")
            }
            Difference::Refused(why) => f.write_str(why),
            Difference::OnlyOurs => f.write_str("PostgreSQL has no such page"),
            Difference::OnlyTheirs => f.write_str("is missing"),
        }
    }
}

/// The first byte that differs.
pub fn first_difference(ours: &Page, theirs: &Page) -> Option<Difference> {
    let offset = (0..BLOCK_SIZE).find(|at| ours[*at] != theirs[*at])?;
    Some(Difference::Byte {
        offset,
        ours: ours[offset],
        theirs: theirs[offset],
    })
}

/// What is replayed.
pub struct Log {
    pub files: WalFiles,
    pub ctx: RedoContext,
    pub steps: Steps,
}

/// What is made wrong on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub redo: WrongRedo,
    /// The masks hide the whole special space, too.
    pub masks_hide_special_space: bool,
}

/// The outcome of a replay.
#[derive(Default)]
pub struct Replay {
    pub volume: Volume,
    pub kinds: BTreeMap<(Rmgr, &'static str), KindCount>,
    /// Records of each kind by the step that wrote them.
    pub made_by: BTreeMap<((Rmgr, &'static str), &'static str), u64>,
    pub wal_bytes: u64,
    pub mismatches: Vec<Mismatch>,
    /// Pages that were made wrong on purpose.
    pub spoiled: BTreeSet<PageKey>,
    fault: Option<Fault>,
}

impl Replay {
    /// Replays the whole log on `volume`.
    pub fn run(volume: Volume, log: &Log, fault: Option<Fault>) -> Replay {
        let mut replay = Replay {
            volume,
            fault,
            ..Replay::default()
        };
        for raw in log.files.records() {
            let raw = raw.unwrap_or_else(|error| panic!("{error}"));
            let record = Record::decode(&raw).unwrap_or_else(|error| panic!("{error}"));
            replay.record(&record, &log.ctx);
            let kind = (record.rmgr, record.kind_name());
            *replay
                .made_by
                .entry((kind, log.steps.at(record.start)))
                .or_default() += 1;
            replay.wal_bytes = record.end.0 - log.files.start.0;
            if replay.mismatches.len() >= MISMATCH_LIMIT {
                break;
            }
        }
        replay
    }

    fn record(&mut self, record: &Record<'_>, ctx: &RedoContext) {
        let kind = (record.rmgr, record.kind_name());
        let effects = effects(record, ctx).unwrap_or_else(|error| panic!("{error}"));
        for change in &effects.meta {
            self.volume.change(change);
        }
        let (record, images) = without_check_images(record);
        let mut count = KindCount {
            records: 1,
            ..KindCount::default()
        };
        for effect in &effects.pages {
            if !effect.extends && self.volume.existing(effect.key).is_none() {
                continue;
            }
            let page = self.volume.page_mut(effect.key);
            match apply(&record, &effect.key, page, ctx) {
                Ok(()) => {
                    count.pages += 1;
                    if let Some(fault) = self.fault
                        && fault.redo.spoil(&record, effect.key, page)
                    {
                        self.spoiled.insert(effect.key);
                    }
                }
                Err(error) => self.note(&record, effect.key, Difference::Refused(error.to_string())),
            }
        }
        count.restored = record
            .blocks
            .iter()
            .filter(|block| block.applied_image().is_some())
            .count() as u64;
        for (key, block, image) in images {
            if self.compare(&record, key, block, &image) {
                count.compared += 1;
            }
        }
        let total = self.kinds.entry(kind).or_default();
        total.records += count.records;
        total.pages += count.pages;
        total.compared += count.compared;
        total.restored += count.restored;
    }

    fn compare(&mut self, record: &Record<'_>, key: PageKey, block: u32, image: &BlockImage<'_>) -> bool {
        if let PageKey::Relation { rel, .. } = key
            && rel.fork == ForkNumber::FreeSpaceMap
        {
            return false;
        }
        let mut ours = self.volume.page(key);
        let mut theirs: Page = [0; BLOCK_SIZE];
        let masked = restore_image(image, &mut theirs)
            .and_then(|()| mask_page(record.rmgr, &mut theirs, block))
            .and_then(|()| mask_page(record.rmgr, &mut ours, block));
        if self.fault.is_some_and(|fault| fault.masks_hide_special_space) {
            for page in [&mut ours, &mut theirs] {
                let special = usize::from(u16::from_le_bytes([page[16], page[17]]));
                page[special..].fill(0);
            }
        }
        match masked {
            Ok(()) => {
                if let Some(difference) = first_difference(&ours, &theirs) {
                    self.note(record, key, difference);
                }
            }
            Err(fault) => self.note(record, key, Difference::Refused(fault.to_string())),
        }
        true
    }

    fn note(&mut self, record: &Record<'_>, key: PageKey, what: Difference) {
        self.mismatches.push(Mismatch {
            record: Some((record.start, format!("{}/{}", record.rmgr, record.kind_name()))),
            key,
            what,
        });
    }
}

/// The record as a server without `wal_consistency_checking` would have written it, and the images that it lost.
pub fn without_check_images<'a>(record: &Record<'a>) -> (Record<'a>, Vec<(PageKey, u32, BlockImage<'a>)>) {
    let mut record = record.clone();
    let mut images = Vec::new();
    for block in &mut record.blocks {
        if let Some(image) = block.image.take_if(|image| !image.apply) {
            images.push((block.key(), block.block, image));
        }
    }
    (record, images)
}
