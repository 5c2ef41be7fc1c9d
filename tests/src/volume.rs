//! All pages of a cluster in memory, as data files hold them or as redo makes them.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use pg_quorum_types::{BLOCK_SIZE, DatabaseKey, ForkNumber, PageKey, RelFileNode, RelFork, SlruKind};
use pg_quorum_wal::{MetaChange, Page, PageEffect};
use rustc_hash::FxHashMap;
use storage_service::derived::ContentItem;

use crate::fork::Fork;

/// Pages of a file of an SLRU.
const SLRU_PAGES_PER_FILE: u32 = 32;
/// Blocks of a relation's segment file.
const BLOCKS_PER_SEGMENT: usize = 131_072;
/// Pages of one item of a content.
const PAGES_PER_ITEM: usize = 128;
/// The tablespace of `global/`.
const GLOBAL_TABLESPACE: u32 = 1664;
/// The tablespace of `base/`.
const DEFAULT_TABLESPACE: u32 = 1663;

/// Forks with their pages, and pages of transaction state.
#[derive(Default)]
pub struct Volume {
    pub forks: FxHashMap<RelFork, Fork>,
    pub slru: FxHashMap<(SlruKind, u32), Page>,
}

impl Volume {
    /// Reads the data files of a stopped server. Free space maps and temporary relations are left out.
    ///
    /// # Panics
    /// A file cannot be read.
    pub fn load(pgdata: &Path) -> Volume {
        let mut volume = Volume::default();
        let shared = DatabaseKey {
            spc: GLOBAL_TABLESPACE,
            db: 0,
        };
        volume.load_database(&pgdata.join("global"), shared);
        volume.load_tablespace(&pgdata.join("base"), DEFAULT_TABLESPACE);
        for (name, path) in entries(&pgdata.join("pg_tblspc")) {
            for (_, version) in entries(&path) {
                volume.load_tablespace(&version, name.parse().expect("a tablespace's number"));
            }
        }
        for kind in SlruKind::ALL {
            volume.load_slru(&pgdata.join(kind.directory()), kind);
        }
        volume
    }

    fn load_tablespace(&mut self, directory: &Path, spc: u32) {
        for (name, path) in entries(directory) {
            if let Ok(db) = name.parse() {
                self.load_database(&path, DatabaseKey { spc, db });
            }
        }
    }

    fn load_database(&mut self, directory: &Path, database: DatabaseKey) {
        for (name, path) in entries(directory) {
            if let Some((fork, segment)) = parse_file_name(&name, database) {
                let first = segment * BLOCKS_PER_SEGMENT;
                let pages = self.forks.entry(fork).or_default();
                for (block, page) in (first..).zip(read_pages(&path)) {
                    *pages.get_or_extend(block) = page;
                }
            }
        }
    }

    fn load_slru(&mut self, directory: &Path, kind: SlruKind) {
        for (name, path) in entries(directory) {
            let file = u32::from_str_radix(&name, 16).expect("an SLRU file's number");
            for (page, bytes) in (file * SLRU_PAGES_PER_FILE..).zip(read_pages(&path)) {
                self.slru.insert((kind, page), bytes);
            }
        }
    }

    /// The page, zeros if there is none.
    pub fn page(&self, key: PageKey) -> Page {
        self.existing(key).copied().unwrap_or([0; BLOCK_SIZE])
    }

    pub fn existing(&self, key: PageKey) -> Option<&Page> {
        match key {
            PageKey::Relation { rel, block } => self.forks.get(&rel)?.get(block as usize),
            PageKey::Slru { kind, page } => self.slru.get(&(kind, page)),
        }
    }

    /// The page to change, made if it does not exist, and with it the pages before it.
    pub fn page_mut(&mut self, key: PageKey) -> &mut Page {
        match key {
            PageKey::Relation { rel, block } => {
                self.forks.entry(rel).or_default().get_or_extend(block as usize)
            }
            PageKey::Slru { kind, page } => self.slru.entry((kind, page)).or_insert([0; BLOCK_SIZE]),
        }
    }

    /// The page that a record changes: `None` if it is to be changed only if it exists, and does not.
    pub fn page_of(&mut self, effect: &PageEffect) -> Option<&mut Page> {
        if let PageKey::Relation { rel, block } = effect.key
            && !effect.extends
        {
            return self.forks.get_mut(&rel)?.get_mut(block as usize);
        }
        Some(self.page_mut(effect.key))
    }

    /// Carries out a change that is not a page's.
    pub fn change(&mut self, change: &MetaChange) {
        match change {
            MetaChange::RelationCreated { fork } => {
                self.forks.entry(*fork).or_default();
            }
            MetaChange::RelationTruncated { fork, blocks } => {
                if let Some(pages) = self.forks.get_mut(fork) {
                    pages.truncate(*blocks as usize);
                }
            }
            MetaChange::RelationDropped { rel } => self.forks.retain(|fork, _| fork.rel != *rel),
            MetaChange::DatabaseCopied { from, to } => self.copy_database(*from, *to),
            MetaChange::DatabaseDropped { database } => {
                self.forks
                    .retain(|fork, _| (fork.rel.spc, fork.rel.db) != (database.spc, database.db));
            }
            MetaChange::SlruTruncated(truncation) => {
                self.slru
                    .retain(|(kind, page), _| *kind != truncation.kind || !truncation.removes(*page));
            }
            _ => {}
        }
    }

    /// The volume as a node imports it, with what `pg_control` says.
    pub fn into_content(self, control_file: Bytes) -> impl Iterator<Item = ContentItem> {
        let relations = self.forks.into_iter().flat_map(|(fork, pages)| {
            let size = ContentItem::RelationSize {
                fork,
                blocks: pages.blocks() as u32,
            };
            let pages: Vec<Page> = pages.iter().copied().collect();
            let pieces: Vec<ContentItem> = pages
                .chunks(PAGES_PER_ITEM)
                .enumerate()
                .map(|(number, pages)| ContentItem::RelationPages {
                    fork,
                    first_block: (number * PAGES_PER_ITEM) as u32,
                    pages: pages.concat().into(),
                })
                .collect();
            std::iter::once(size).chain(pieces)
        });
        let transactions = self
            .slru
            .into_iter()
            .map(|((kind, page), bytes)| ContentItem::SlruPages {
                kind,
                first_page: page,
                pages: Bytes::copy_from_slice(&bytes),
            });
        relations
            .chain(transactions)
            .chain([ContentItem::ControlFile(control_file)])
    }

    fn copy_database(&mut self, from: DatabaseKey, to: DatabaseKey) {
        let copies: Vec<(RelFork, Fork)> = self
            .forks
            .iter()
            .filter(|(fork, _)| (fork.rel.spc, fork.rel.db) == (from.spc, from.db))
            .map(|(fork, pages)| (in_database(*fork, to), pages.clone()))
            .collect();
        self.forks.extend(copies);
    }
}

fn in_database(fork: RelFork, database: DatabaseKey) -> RelFork {
    let rel = RelFileNode {
        spc: database.spc,
        db: database.db,
        ..fork.rel
    };
    RelFork { rel, ..fork }
}

fn entries(directory: &Path) -> Vec<(String, std::path::PathBuf)> {
    fs::read_dir(directory)
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
                .collect()
        })
        .unwrap_or_default()
}

fn read_pages(path: &Path) -> Vec<Page> {
    let bytes = fs::read(path).expect("read a data file");
    let (pages, rest) = bytes.as_chunks::<BLOCK_SIZE>();
    assert!(rest.is_empty(), "{} has half a page at its end", path.display());
    pages.to_vec()
}

/// `16384_vm.1` and the like; `None` for what is no relation, a temporary one, or a free space map.
fn parse_file_name(name: &str, database: DatabaseKey) -> Option<(RelFork, usize)> {
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, segment.parse().ok()?),
        None => (name, 0),
    };
    let (number, fork) = match name.split_once('_') {
        None => (name, ForkNumber::Main),
        Some((number, "vm")) => (number, ForkNumber::VisibilityMap),
        Some((number, "init")) => (number, ForkNumber::Init),
        Some(_) => return None,
    };
    let rel = RelFileNode {
        spc: database.spc,
        db: database.db,
        rel: number.parse().ok()?,
    };
    Some((RelFork { rel, fork }, segment))
}
