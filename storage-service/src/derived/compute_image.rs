//! Everything that a compute needs as of an LSN besides pages of relations.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use pg_quorum_types::{BLOCK_SIZE, DatabaseKey, ForkNumber, Lsn, PageKey, RelFork, SlruKind};
use pg_quorum_wal::{CheckpointState, ControlFile, Record};

use super::content::ContentItem;
use super::engine::Engine;
use super::error::DerivedError;
use super::marks::Mark;
use super::meta_key::{MetaKey, MetaRange, MetaValue, VolumeItem};
use super::read_pages::{self, ReadPage};
use super::read_point::ReadPoint;
use super::record_changes::{OriginValue, PreparedValue};
use super::record_log::LogRecords;
use super::resets::Resets;
use super::slru_range::{self, PageRange};
use super::state::{decode, decode_size};
use super::store::{Space, StoreView};

/// A part of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImagePart {
    /// Start of the last record before the image's LSN: in the first part.
    pub last_record_start: Option<Lsn>,
    pub items: Vec<ContentItem>,
}

/// Items without pages in one part.
const ITEMS_PER_PART: usize = 2000;
/// Pages in one item.
const PAGES_PER_ITEM: usize = 64;
/// Records that are read from the log at once.
const LOG_READ_BYTES: usize = 1 << 20;

/// Hands out the image's parts until `give` returns false.
pub fn stream(
    read_point: &ReadPoint,
    control_file_only: bool,
    give: &mut dyn FnMut(ImagePart) -> bool,
) -> Result<(), DerivedError> {
    let engine = read_point.engine();
    let at = read_point.at();
    let mark = mark_at(engine, at)?;
    let (image, mut overlay) = Image::take(engine, at);
    let first = ImagePart {
        last_record_start: Some(mark.last_record_start),
        items: vec![image.control_file(&mark)?],
    };
    let mut out = Out {
        give,
        items: Vec::new(),
        wanted: true,
    };
    out.part(first);
    if control_file_only {
        return Ok(());
    }
    image.content(&mut overlay, &mut out)?;
    image.slrus(&mark.checkpoint, &mut out)?;
    let init_forks = image.sizes(&mut overlay, &mut out)?;
    for (fork, blocks) in init_forks {
        image.pages(
            (0..blocks).map(|block| (block, PageKey::Relation { rel: fork, block })),
            |first_block, pages| ContentItem::RelationPages {
                fork,
                first_block,
                pages,
            },
            &mut out,
        )?;
    }
    out.flush();
    Ok(())
}

/// The state right at `at`, from the mark before it and the records between.
fn mark_at(engine: &Engine, at: Lsn) -> Result<Mark, DerivedError> {
    let mut mark = {
        let state = engine.state.read();
        let floor = state.applied;
        let mark = state.marks.at_or_below(at).cloned();
        mark.ok_or(DerivedError::TooOld { asked: at, floor })?
    };
    while mark.lsn < at {
        let from = mark.lsn;
        let failed = |problem: String| DerivedError::Log { at: from, problem };
        let mut records = LogRecords::default();
        engine
            .log
            .read_records(from, LOG_READ_BYTES, &mut records)
            .map_err(|error| failed(error.to_string()))?;
        let Some(end) = records.end() else {
            return Err(failed("no record where one must follow".to_owned()));
        };
        for stored in records.iter().take_while(|stored| stored.end <= at) {
            mark.checkpoint
                .track(&Record::parse(stored.start, stored.end, stored.bytes)?)?;
            mark.lsn = stored.end;
            mark.last_record_start = stored.start;
        }
        if mark.lsn < at && end > at {
            return Err(failed(format!("no record ends at {at}")));
        }
    }
    Ok(mark)
}

type OverlayPart = BTreeMap<Vec<u8>, (Lsn, MetaValue)>;

/// The store, and what of memory belongs to it, at one moment.
struct Image<'a> {
    engine: &'a Engine,
    view: Box<dyn StoreView>,
    resets: Resets,
    at: Lsn,
    applied: Lsn,
}

impl<'a> Image<'a> {
    fn take(engine: &'a Engine, at: Lsn) -> (Image<'a>, OverlayPart) {
        let state = engine.state.read();
        let mut overlay = state.overlay_range(&MetaRange::sizes(), at);
        overlay.extend(state.overlay_range(&MetaRange::content(), at));
        let image = Image {
            engine,
            view: engine.store.view(),
            resets: state.resets.clone(),
            at,
            applied: state.applied,
        };
        (image, overlay)
    }

    fn control_file(&self, mark: &Mark) -> Result<ContentItem, DerivedError> {
        let key = MetaKey::Volume(VolumeItem::ControlFile).to_bytes();
        let damaged = || DerivedError::Damaged("the imported control file".to_owned());
        let stored = self.view.newest(Space::Meta, &key, self.applied)?;
        let bytes = decode(&stored.ok_or_else(damaged)?.1)?.ok_or_else(damaged)?;
        let mut control = ControlFile::parse(&bytes).map_err(|_| damaged())?;
        control.set_shut_down_at(&mark.checkpoint, mark.checkpoint.last_checkpoint);
        Ok(ContentItem::ControlFile(control.to_bytes().into()))
    }

    /// Everything in a range as of the image's LSN, in no particular order.
    fn each(
        &self,
        range: &MetaRange,
        overlay: &mut OverlayPart,
        mut take: impl FnMut(MetaKey, Lsn, Bytes) -> Result<(), DerivedError>,
    ) -> Result<(), DerivedError> {
        let mut take = |key: &[u8], lsn: Lsn, value: MetaValue| match (MetaKey::from_bytes(key), value) {
            (_, None) => Ok(()),
            (Some(key), Some(value)) => take(key, lsn, value),
            (None, _) => Err(DerivedError::Damaged("a metadata key".to_owned())),
        };
        let mut newest: Option<(Vec<u8>, Lsn, Bytes)> = None;
        let mut from_store = |(key, lsn, value): (Vec<u8>, Lsn, Bytes)| {
            let (lsn, value) = match overlay.remove(&key) {
                Some(version) => version,
                None => (lsn, decode(&value)?),
            };
            take(&key, lsn, value)
        };
        for version in self.view.scan(Space::Meta, &range.from, &range.to) {
            let (version, value) = version?;
            if version.lsn > self.applied {
                continue;
            }
            // Versions of one key follow each other, oldest first.
            if newest.as_ref().is_some_and(|(key, ..)| *key != version.key)
                && let Some(previous) = newest.take()
            {
                from_store(previous)?;
            }
            newest = Some((version.key, version.lsn, value));
        }
        if let Some(last) = newest {
            from_store(last)?;
        }
        for (key, (lsn, value)) in overlay.iter().filter(|(key, _)| range.contains(key)) {
            take(key, *lsn, value.clone())?;
        }
        Ok(())
    }

    /// Sizes of all forks. Returns the init forks, whose pages a compute needs.
    fn sizes(
        &self,
        overlay: &mut OverlayPart,
        out: &mut Out<'_>,
    ) -> Result<Vec<(RelFork, u32)>, DerivedError> {
        let mut init_forks = Vec::new();
        self.each(&MetaRange::sizes(), overlay, |key, lsn, value| {
            let MetaKey::Size(fork) = key else {
                return Err(DerivedError::Damaged("the key of a size".to_owned()));
            };
            if lsn < self.resets.hidden_size(fork, self.at) {
                return Ok(());
            }
            let blocks = decode_size(&value)?;
            if fork.fork == ForkNumber::Init {
                init_forks.push((fork, blocks));
            }
            out.item(ContentItem::RelationSize { fork, blocks });
            Ok(())
        })?;
        Ok(init_forks)
    }

    /// Databases, tablespaces, prepared transactions, origins, files.
    fn content(&self, overlay: &mut OverlayPart, out: &mut Out<'_>) -> Result<(), DerivedError> {
        let mut databases: BTreeMap<DatabaseKey, (Bytes, Bytes)> = BTreeMap::new();
        self.each(&MetaRange::content(), overlay, |key, _, value| {
            let damaged = || DerivedError::Damaged(format!("the value of {key:?}"));
            match key {
                MetaKey::Database(database) => databases.entry(database).or_default().0 = value,
                MetaKey::RelationMap(database) => databases.entry(database).or_default().1 = value,
                MetaKey::Tablespace(spc) => out.item(ContentItem::Tablespace { spc, location: value }),
                MetaKey::Prepared(xid) => {
                    let value = PreparedValue::from_bytes(&value).ok_or_else(damaged)?;
                    out.item(ContentItem::PreparedTransaction {
                        xid,
                        start: value.start,
                        end: value.end,
                        state: value.state,
                    });
                }
                MetaKey::Origin(origin) => {
                    let value = OriginValue::from_bytes(&value).ok_or_else(damaged)?;
                    out.item(ContentItem::ReplicationOrigin {
                        origin,
                        remote_lsn: value.remote_lsn,
                        local_lsn: value.local_lsn,
                    });
                }
                MetaKey::File(path) => out.item(ContentItem::File { path, content: value }),
                MetaKey::Size(_)
                | MetaKey::SegmentBoundary(_)
                | MetaKey::WalPrefix(_)
                | MetaKey::Volume(_)
                | MetaKey::Reset { .. } => return Err(damaged()),
            }
            Ok(())
        })?;
        for (database, (version_file, relation_map)) in databases {
            out.item(ContentItem::Database {
                database,
                version_file,
                relation_map,
            });
        }
        Ok(())
    }

    fn slrus(&self, state: &CheckpointState, out: &mut Out<'_>) -> Result<(), DerivedError> {
        let first_member = self.first_member(state)?;
        let ranges = [
            Some(slru_range::clog(state)),
            Some(slru_range::multixact_offsets(state)),
            Some(slru_range::multixact_members(state, first_member)),
            slru_range::commit_timestamps(state),
        ];
        for range in ranges.into_iter().flatten() {
            let PageRange { kind, .. } = range;
            self.pages(
                range.pages().map(|page| (page, PageKey::Slru { kind, page })),
                |first_page, pages| ContentItem::SlruPages {
                    kind,
                    first_page,
                    pages,
                },
                out,
            )?;
        }
        Ok(())
    }

    /// The first member of the oldest multixact that has any. One that was given out right before a crash may have
    /// none: neither it nor its members are in the log.
    fn first_member(&self, state: &CheckpointState) -> Result<Option<u32>, DerivedError> {
        for (page, bytes) in slru_range::offset_places(state) {
            let key = PageKey::Slru {
                kind: SlruKind::MultiXactOffset,
                page,
            };
            match read_pages::page(self.engine, key, self.at)? {
                ReadPage::Page(page) => {
                    let first = slru_range::first_offset(&page[bytes]);
                    if first.is_some() {
                        return Ok(first);
                    }
                }
                ReadPage::Zeros => {}
                ReadPage::Failed(why) => return Err(DerivedError::Damaged(why)),
            }
        }
        Ok(None)
    }

    /// Pages in runs of adjacent ones.
    fn pages(
        &self,
        keys: impl Iterator<Item = (u32, PageKey)>,
        item: impl Fn(u32, Bytes) -> ContentItem,
        out: &mut Out<'_>,
    ) -> Result<(), DerivedError> {
        let mut run = BytesMut::new();
        let mut first = 0;
        let mut next = None;
        for (number, key) in keys {
            if !out.wanted {
                return Ok(());
            }
            if next != Some(number) || run.len() >= PAGES_PER_ITEM * BLOCK_SIZE {
                if !run.is_empty() {
                    out.large_item(item(first, run.split().freeze()));
                }
                first = number;
            }
            match read_pages::page(self.engine, key, self.at)? {
                ReadPage::Page(page) => run.extend_from_slice(&page[..]),
                ReadPage::Zeros => run.resize(run.len() + BLOCK_SIZE, 0),
                ReadPage::Failed(why) => return Err(DerivedError::Damaged(why)),
            }
            next = number.checked_add(1);
        }
        if !run.is_empty() {
            out.large_item(item(first, run.freeze()));
        }
        Ok(())
    }
}

/// Gathers small items to parts.
struct Out<'a> {
    give: &'a mut dyn FnMut(ImagePart) -> bool,
    items: Vec<ContentItem>,
    /// False once the receiver has gone.
    wanted: bool,
}

impl Out<'_> {
    fn part(&mut self, part: ImagePart) {
        if self.wanted {
            self.wanted = (self.give)(part);
        }
    }

    fn item(&mut self, item: ContentItem) {
        self.items.push(item);
        if self.items.len() >= ITEMS_PER_PART {
            self.flush();
        }
    }

    fn large_item(&mut self, item: ContentItem) {
        self.items.push(item);
        self.flush();
    }

    fn flush(&mut self) {
        if !self.items.is_empty() {
            let items = std::mem::take(&mut self.items);
            self.part(ImagePart {
                last_record_start: None,
                items,
            });
        }
    }
}
