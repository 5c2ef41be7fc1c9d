//! Filling an empty PGDATA with a volume's content: everything but the pages of relations.
//!
//! Relation forks become sparse files of the right length, so that `stat()`, collision checks and directory
//! scans see the truth; the pages come when they are read. Init forks come whole, and unlogged relations
//! are reset from them, as `ResetUnloggedRelations` (reinit.c, 15.18) does after a crash.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use pg_quorum_proto::v1::{self, state_item::Item};
use pg_quorum_types::{BLOCK_SIZE, DatabaseKey, ForkNumber, RelFileNode, RelFork, SlruKind, VolumeId};
use pg_quorum_wal::ControlFile;

use super::clear::{read_directory, remove_tree};
use super::failure::{Failure, Result};
use super::layout::{BLOCKS_PER_FILE, Layout, SLRU_PAGES_PER_FILE};
use super::state_files::{Origin, origins_to_file, with_crc};
use super::{parallel, reconcile};

/// Where the files of tablespaces go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TablespacePlace {
    /// Where the cluster has them: in this volume's caches, which may be replaced.
    AsRecorded(VolumeId),
    /// In `pg_tblspc` itself, without links.
    InPlace,
    /// In a folder of this directory that has the tablespace's number as its name.
    Below(PathBuf),
}

/// What the directory has already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Files {
    /// Nothing.
    None,
    /// The files of relations as a crash has left them.
    OfACrash,
    /// The files of relations and of transaction state, as the volume has them: items are only counted.
    All,
}

/// Takes the items of a compute image in any order.
#[derive(Debug)]
pub struct Builder<'a> {
    layout: &'a Layout,
    place: TablespacePlace,
    files: Files,
    tablespaces: Vec<v1::state_item::Tablespace>,
    databases: Vec<v1::state_item::Database>,
    forks: Vec<(RelFork, u32)>,
    pages: Vec<(RelFork, u32, Vec<u8>)>,
    origins: Vec<Origin>,
    control_file: Option<Vec<u8>>,
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    pub forks: usize,
    pub databases: usize,
    pub prepared_transactions: usize,
    /// Forks whose pages are the volume's: not those of unlogged relations, which have been reset, and no init forks,
    /// which are complete. With their lengths in blocks.
    pub paged_forks: Vec<(RelFork, u32)>,
    /// For [`Files::OfACrash`]: how many blocks of each of them the directory had.
    pub found_blocks: Vec<u32>,
    /// `pg_control` as the volume has it. Not written yet.
    pub control_file: Vec<u8>,
}

impl<'a> Builder<'a> {
    pub fn new(layout: &'a Layout, place: TablespacePlace, files: Files) -> Builder<'a> {
        Builder {
            layout,
            place,
            files,
            tablespaces: Vec::new(),
            databases: Vec::new(),
            forks: Vec::new(),
            pages: Vec::new(),
            origins: Vec::new(),
            control_file: None,
        }
    }

    /// Writes an item, or keeps it until those that it depends on are there (a tablespace's link before its
    /// folders).
    pub fn accept(&mut self, item: v1::StateItem) -> Result<()> {
        match item.item {
            Some(Item::RelationSize(size)) => self.forks.push((relation_fork(size.fork)?, size.blocks)),
            Some(Item::Database(database)) => self.databases.push(database),
            Some(Item::ControlFile(control_file)) => self.control_file = Some(control_file.into()),
            Some(Item::Tablespace(tablespace)) => self.tablespaces.push(tablespace),
            // Also into a directory that keeps its files: histories of timelines are in pg_wal, which is emptied all the same.
            Some(Item::File(file)) => {
                let path = self.layout.join(inner_path(&file.path)?);
                write_file(&path, &file.content)?;
            }
            Some(_) if self.files == Files::All => {}
            Some(Item::RelationPages(pages)) => {
                self.pages
                    .push((relation_fork(pages.fork)?, pages.first_block, pages.pages.into()));
            }
            Some(Item::SlruPages(pages)) => write_slru_pages(self.layout, &pages)?,
            Some(Item::PreparedTransaction(prepared)) => {
                let path = self.layout.join(format!("pg_twophase/{:08X}", prepared.xid));
                write_file(&path, &with_crc(prepared.state.into()))?;
            }
            Some(Item::ReplicationOrigin(origin)) => self.origins.push(Origin {
                number: u16::try_from(origin.origin).map_err(|_| malformed("replication origin"))?,
                remote_lsn: origin.remote_lsn,
            }),
            // The compute gets its WAL with page headers and all from the Wal service.
            Some(Item::WalPrefix(_)) => {}
            None => return Err(malformed("item of an unknown kind")),
        }
        Ok(())
    }

    /// Builds what depends on other items.
    pub fn finish(mut self) -> Result<Built> {
        let control_file = self.control_file.take().ok_or_else(|| {
            Failure::new("the storage nodes' image of the volume has no pg_control").hint("This is a defect.")
        })?;
        let unlogged: HashSet<RelFileNode> = self
            .forks
            .iter()
            .filter(|(fork, _)| fork.fork == ForkNumber::Init)
            .map(|(fork, _)| fork.rel)
            .collect();
        let is_paged = |fork: &RelFork| fork.fork != ForkNumber::Init && !unlogged.contains(&fork.rel);
        let mut paged_forks = self.forks.clone();
        paged_forks.retain(|(fork, _)| is_paged(fork));
        let mut found_blocks = Vec::new();
        match self.files {
            Files::All => self.mark_locations()?,
            Files::None => self.make_files(&unlogged)?,
            Files::OfACrash => found_blocks = self.reconcile_files(&unlogged, &paged_forks)?,
        }
        Ok(Built {
            forks: self.forks.len(),
            paged_forks,
            found_blocks,
            databases: self.databases.len(),
            prepared_transactions: read_directory(&self.layout.join("pg_twophase"))?.len(),
            control_file,
        })
    }

    fn mark_locations(&self) -> Result<()> {
        let TablespacePlace::AsRecorded(volume) = &self.place else {
            return Ok(());
        };
        let mut locations = self.tablespaces.iter().filter_map(recorded_location);
        locations.try_for_each(|location| mark_location(&location, *volume))
    }

    fn make_files(&self, unlogged: &HashSet<RelFileNode>) -> Result<()> {
        for tablespace in &self.tablespaces {
            make_tablespace(self.layout, &self.place, tablespace)?;
        }
        for database in &self.databases {
            make_database(self.layout, database)?;
        }
        parallel::for_each(&self.forks, |(fork, blocks)| {
            match fork.fork == ForkNumber::Init || !unlogged.contains(&fork.rel) {
                true => make_fork(self.layout, *fork, *blocks),
                false => Ok(()),
            }
        })?;
        self.write_small_files(unlogged)
    }

    /// How many blocks of each of `paged_forks` there were.
    fn reconcile_files(
        &self,
        unlogged: &HashSet<RelFileNode>,
        paged_forks: &[(RelFork, u32)],
    ) -> Result<Vec<u32>> {
        let key = |database: &v1::state_item::Database| DatabaseKey {
            spc: database.spc,
            db: database.db,
        };
        let volume = reconcile::Volume {
            databases: self.databases.iter().map(key).collect(),
            forks: &self.forks,
            unlogged,
        };
        for tablespace in &self.tablespaces {
            keep_tablespace(self.layout, &self.place, tablespace)?;
        }
        reconcile::remove_others(self.layout, &volume, &self.tablespaces)?;
        for database in &self.databases {
            make_database(self.layout, database)?;
        }
        let found = reconcile::set_lengths(self.layout, paged_forks)?;
        for (fork, blocks) in self
            .forks
            .iter()
            .filter(|(fork, _)| fork.fork == ForkNumber::Init)
        {
            make_fork(self.layout, *fork, *blocks)?;
        }
        self.write_small_files(unlogged)?;
        Ok(found)
    }

    /// What depends on other files.
    fn write_small_files(&self, unlogged: &HashSet<RelFileNode>) -> Result<()> {
        for (fork, first_block, pages) in &self.pages {
            write_pages(self.layout, *fork, *first_block, pages)?;
        }
        for rel in unlogged {
            reset_unlogged(self.layout, *rel)?;
        }
        let path = self.layout.join("pg_logical/replorigin_checkpoint");
        write_file(&path, &origins_to_file(&self.origins))
    }
}

fn malformed(what: &str) -> Failure {
    Failure::new(format!(
        "the storage nodes' image of the volume has a malformed {what}"
    ))
    .hint("The extension and the storage nodes must be of versions that fit together.")
}

fn relation_fork(fork: Option<v1::RelationFork>) -> Result<RelFork> {
    let fork = fork.ok_or_else(|| malformed("relation fork"))?;
    let number = u8::try_from(fork.fork).ok().and_then(ForkNumber::from_number);
    Ok(RelFork {
        rel: RelFileNode {
            spc: fork.spc,
            db: fork.db,
            rel: fork.rel,
        },
        fork: number.ok_or_else(|| malformed("fork number"))?,
    })
}

/// A path that stays inside PGDATA.
fn inner_path(path: &str) -> Result<&Path> {
    let path = Path::new(path);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain {
        Ok(path)
    } else {
        Err(malformed("file path"))
    }
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(Failure::file("write", path))
}

fn write_slru_pages(layout: &Layout, pages: &v1::state_item::SlruPages) -> Result<()> {
    let kind = u8::try_from(pages.kind).ok().and_then(SlruKind::from_number);
    let kind = kind.ok_or_else(|| malformed("transaction log kind"))?;
    let mut page = pages.first_page;
    let mut rest = &pages.pages[..];
    if !rest.len().is_multiple_of(BLOCK_SIZE) {
        return Err(malformed("transaction log page"));
    }
    while !rest.is_empty() {
        let (path, in_file) = layout.slru_file(kind, page);
        let room = (SLRU_PAGES_PER_FILE - in_file) as usize * BLOCK_SIZE;
        let (now, later) = rest.split_at(rest.len().min(room));
        let file = open_for_writing(&path)?;
        file.write_all_at(now, u64::from(in_file) * BLOCK_SIZE as u64)
            .map_err(Failure::file("write", &path))?;
        page += SLRU_PAGES_PER_FILE - in_file;
        rest = later;
    }
    Ok(())
}

/// Pages of transaction state that a start reads although no record may have made them yet.
pub fn make_readable(layout: &Layout, control: &ControlFile) -> Result<()> {
    const XIDS_PER_PAGE: u32 = 8192 * 4;
    const OFFSETS_PER_PAGE: u32 = 8192 / 4;
    const MEMBERS_PER_PAGE: u32 = 8192 / 20 * 4;
    let checkpoint = control.checkpoint();
    ensure_slru_page(
        layout,
        SlruKind::Clog,
        (checkpoint.next_full_xid & 0xFFFF_FFFF) as u32 / XIDS_PER_PAGE,
    )?;
    ensure_slru_page(
        layout,
        SlruKind::MultiXactOffset,
        checkpoint.next_multi / OFFSETS_PER_PAGE,
    )?;
    ensure_slru_page(
        layout,
        SlruKind::MultiXactMember,
        checkpoint.next_multi_offset / MEMBERS_PER_PAGE,
    )
}

/// Makes sure that an SLRU page can be read: a page that no record has made yet is zeros.
fn ensure_slru_page(layout: &Layout, kind: SlruKind, page: u32) -> Result<()> {
    let (path, in_file) = layout.slru_file(kind, page);
    let file = open_for_writing(&path)?;
    let wanted = u64::from(in_file + 1) * BLOCK_SIZE as u64;
    let length = file.metadata().map_err(Failure::file("look at", &path))?.len();
    if length < wanted {
        file.set_len(wanted).map_err(Failure::file("extend", &path))?;
    }
    Ok(())
}

fn open_for_writing(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Failure::file("open", path))
}

/// The folder or link in `pg_tblspc`, and this version's folder in it (`create_tablespace_directories`).
fn make_tablespace(
    layout: &Layout,
    place: &TablespacePlace,
    tablespace: &v1::state_item::Tablespace,
) -> Result<()> {
    let link = layout.join(format!("pg_tblspc/{}", tablespace.spc));
    let location = match place {
        TablespacePlace::InPlace => None,
        TablespacePlace::Below(directory) => Some(directory.join(tablespace.spc.to_string())),
        TablespacePlace::AsRecorded(_) => recorded_location(tablespace),
    };
    if let Some(location) = location {
        fs::create_dir_all(&location).map_err(|error| {
            Failure::new(format!(
                "could not create the directory \"{}\" of tablespace {}: {error}",
                location.display(),
                tablespace.spc
            ))
            .hint("Create it, empty and owned by the user that runs the server, then start again.")
        })?;
        if let TablespacePlace::AsRecorded(volume) = place {
            empty_location(&location, &location.join(layout.version_directory()), *volume)?;
        }
        std::os::unix::fs::symlink(&location, &link).map_err(Failure::file("create link", &link))?;
    } else {
        fs::create_dir_all(&link).map_err(Failure::file("create directory", &link))?;
    }
    let version_directory = link.join(layout.version_directory());
    fs::create_dir_all(&version_directory).map_err(Failure::file("create directory", &version_directory))
}

/// Leaves a tablespace as it is if it is where it should be. Otherwise it is made anew.
fn keep_tablespace(
    layout: &Layout,
    place: &TablespacePlace,
    tablespace: &v1::state_item::Tablespace,
) -> Result<()> {
    let link = layout.join(format!("pg_tblspc/{}", tablespace.spc));
    let is_there = match recorded_location(tablespace) {
        Some(location) => fs::read_link(&link).is_ok_and(|leads_to| leads_to == location),
        None => !link.is_symlink() && link.is_dir(),
    };
    if is_there && link.join(layout.version_directory()).is_dir() {
        return Ok(());
    }
    remove_tree(&link)?;
    make_tablespace(layout, place, tablespace)
}

/// Where the tablespace is; `None`: in PGDATA.
fn recorded_location(tablespace: &v1::state_item::Tablespace) -> Option<PathBuf> {
    let path = &tablespace.location;
    (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
}

/// Removes what another compute of this volume has left behind in a tablespace's location: a cache like everything
/// here. A marker beside it says so; anything else may be another cluster's data.
fn empty_location(location: &Path, version_directory: &Path, volume: VolumeId) -> Result<()> {
    let is_used = version_directory
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some());
    if is_used && !marker(location, volume).exists() {
        return Err(
            Failure::new(format!("\"{}\" holds files that are not this volume's", version_directory.display()))
                .detail("Another cluster may use the same location for a tablespace.")
                .hint("Move that cluster's files away. If they are what an earlier compute of this volume has left behind, remove them."),
        );
    }
    remove_tree(version_directory)?;
    mark_location(location, volume)
}

fn marker(location: &Path, volume: VolumeId) -> PathBuf {
    location.join(format!(".pg_quorum-{volume}"))
}

/// What is in the location is this volume's.
fn mark_location(location: &Path, volume: VolumeId) -> Result<()> {
    write_file(&marker(location, volume), b"")
}

fn make_database(layout: &Layout, database: &v1::state_item::Database) -> Result<()> {
    let directory = layout.database(DatabaseKey {
        spc: database.spc,
        db: database.db,
    });
    fs::create_dir_all(&directory).map_err(Failure::file("create directory", &directory))?;
    if !database.version_file.is_empty() {
        write_file(&directory.join("PG_VERSION"), &database.version_file)?;
    }
    if !database.relation_map.is_empty() {
        write_file(&directory.join("pg_filenode.map"), &database.relation_map)?;
    }
    Ok(())
}

/// Sparse files of the fork's length: full ones of 1 GB, then the rest (md.c keeps a file, maybe empty, behind
/// a full one only when it has been opened; none is needed).
fn make_fork(layout: &Layout, fork: RelFork, blocks: u32) -> Result<()> {
    let mut segment = 0;
    let mut rest = blocks;
    loop {
        let here = rest.min(BLOCKS_PER_FILE);
        let path = layout.relation_file(fork, segment);
        let file = match File::create(&path) {
            // A folder that the image does not list: its database is being dropped or made.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(Failure::file("create directory", parent))?;
                }
                File::create(&path)
            }
            other => other,
        }
        .map_err(Failure::file("create", &path))?;
        file.set_len(u64::from(here) * BLOCK_SIZE as u64)
            .map_err(Failure::file("extend", &path))?;
        rest -= here;
        segment += 1;
        if rest == 0 {
            return Ok(());
        }
    }
}

fn write_pages(layout: &Layout, fork: RelFork, first_block: u32, pages: &[u8]) -> Result<()> {
    let (pages, rest) = pages.as_chunks::<BLOCK_SIZE>();
    if !rest.is_empty() {
        return Err(malformed("relation page"));
    }
    for (block, page) in (first_block..).zip(pages) {
        let path = layout.relation_file(fork, block / BLOCKS_PER_FILE);
        let offset = u64::from(block % BLOCKS_PER_FILE) * BLOCK_SIZE as u64;
        open_for_writing(&path)?
            .write_all_at(page, offset)
            .map_err(Failure::file("write", &path))?;
    }
    Ok(())
}

fn reset_unlogged(layout: &Layout, rel: RelFileNode) -> Result<()> {
    let init = layout.relation_file(
        RelFork {
            rel,
            fork: ForkNumber::Init,
        },
        0,
    );
    let main = layout.relation_file(
        RelFork {
            rel,
            fork: ForkNumber::Main,
        },
        0,
    );
    fs::copy(&init, &main).map_err(Failure::file("reset from its init fork", &main))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgdata::make_directories;

    fn fork(rel: u32, fork: ForkNumber) -> v1::RelationFork {
        v1::RelationFork {
            spc: 1663,
            db: 5,
            rel,
            fork: fork as u32,
        }
    }

    fn item(item: Item) -> v1::StateItem {
        v1::StateItem { item: Some(item) }
    }

    fn size(rel: u32, number: ForkNumber, blocks: u32) -> v1::StateItem {
        item(Item::RelationSize(v1::state_item::RelationSize {
            fork: Some(fork(rel, number)),
            blocks,
        }))
    }

    #[test]
    fn an_image_becomes_a_directory_with_lengths_and_reset_unlogged_relations() {
        let pgdata = tempfile::tempdir().unwrap();
        let layout = Layout::of_tests(pgdata.path());
        make_directories(&layout).unwrap();
        let place = TablespacePlace::AsRecorded(VolumeId::random());
        let mut builder = Builder::new(&layout, place, Files::None);
        builder
            .accept(size(16384, ForkNumber::Main, BLOCKS_PER_FILE + 3))
            .unwrap();
        builder.accept(size(16390, ForkNumber::Init, 1)).unwrap();
        builder.accept(size(16390, ForkNumber::Main, 9)).unwrap();
        builder
            .accept(item(Item::RelationPages(v1::state_item::RelationPages {
                fork: Some(fork(16390, ForkNumber::Init)),
                first_block: 0,
                pages: vec![7; BLOCK_SIZE].into(),
            })))
            .unwrap();
        builder
            .accept(item(Item::SlruPages(v1::state_item::SlruPages {
                kind: 0,
                first_page: 31,
                pages: vec![1; 2 * BLOCK_SIZE].into(),
            })))
            .unwrap();
        builder
            .accept(item(Item::ControlFile(vec![0; BLOCK_SIZE].into())))
            .unwrap();
        builder.finish().unwrap();
        let length = |path: &str| fs::metadata(layout.join(path)).unwrap().len();
        assert_eq!(length("base/5/16384"), 1 << 30);
        assert_eq!(length("base/5/16384.1"), 3 * BLOCK_SIZE as u64);
        assert_eq!(
            fs::read(layout.join("base/5/16390")).unwrap(),
            vec![7; BLOCK_SIZE]
        );
        assert_eq!(length("pg_xact/0000"), 32 * BLOCK_SIZE as u64);
        assert_eq!(length("pg_xact/0001"), BLOCK_SIZE as u64);
    }

    #[test]
    fn many_forks_in_many_folders_get_their_lengths() {
        let pgdata = tempfile::tempdir().unwrap();
        let layout = Layout::of_tests(pgdata.path());
        make_directories(&layout).unwrap();
        let place = TablespacePlace::AsRecorded(VolumeId::random());
        let mut builder = Builder::new(&layout, place, Files::None);
        let forks = || (0..1000_u32).map(|number| (number % 7 + 5, 16384 + number, number % 3));
        for (db, rel, blocks) in forks() {
            let fork = Some(v1::RelationFork {
                db,
                ..fork(rel, ForkNumber::Main)
            });
            let size = v1::state_item::RelationSize { fork, blocks };
            builder.accept(item(Item::RelationSize(size))).unwrap();
        }
        builder
            .accept(item(Item::ControlFile(vec![0; BLOCK_SIZE].into())))
            .unwrap();
        assert_eq!(builder.finish().unwrap().forks, 1000);
        for (db, rel, blocks) in forks() {
            let file = fs::metadata(layout.join(format!("base/{db}/{rel}"))).unwrap();
            assert_eq!(file.len(), u64::from(blocks) * BLOCK_SIZE as u64, "{db}/{rel}");
        }
    }

    #[test]
    fn a_tablespace_is_linked_to_a_location_that_is_not_utf_8() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::of_tests(&root.path().join("pgdata"));
        make_directories(&layout).unwrap();
        let location = root.path().join(OsStr::from_bytes(b"sch\xF6n")); // LATIN1
        let place = TablespacePlace::AsRecorded(VolumeId::random());
        let mut builder = Builder::new(&layout, place, Files::None);
        builder
            .accept(item(Item::Tablespace(v1::state_item::Tablespace {
                spc: 16400,
                location: location.as_os_str().as_bytes().to_vec().into(),
            })))
            .unwrap();
        builder
            .accept(item(Item::ControlFile(vec![0; BLOCK_SIZE].into())))
            .unwrap();
        builder.finish().unwrap();
        assert_eq!(fs::read_link(layout.join("pg_tblspc/16400")).unwrap(), location);
        assert!(location.join(layout.version_directory()).is_dir());
    }

    #[test]
    fn a_path_that_leaves_the_directory_is_refused() {
        for path in ["/etc/passwd", "../x", "a/../../x"] {
            assert!(inner_path(path).is_err(), "{path}");
        }
        assert!(inner_path("pg_wal/00000002.history").is_ok());
    }
}
