//! Reading a stopped cluster's directory, item by item.
//!
//! Left out, because nothing of the volume depends on it: unlogged relations but for their init forks, temporary
//! relations, statistics, slots, notifications, sub-transaction state.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pg_quorum_client::pgdata::{
    BLOCKS_PER_FILE, DEFAULT_TABLESPACE, Failure, GLOBAL_TABLESPACE, Layout, Result, SLRU_PAGES_PER_FILE,
    origins_from_file, parse_number, parse_relation_file_name, read_directory, without_crc,
};
use pg_quorum_proto::v1::{self, state_item::Item};
use pg_quorum_types::{BLOCK_SIZE, DatabaseKey, ForkNumber, RelFileNode, RelFork, SlruKind};

/// Pages of one item: 1 MB.
const PAGES_PER_ITEM: u32 = 128;

/// Where items go; an error ends the walk.
pub type Sink<'a> = dyn FnMut(v1::StateItem) -> Result<()> + 'a;

/// What there is to import.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Total {
    pub forks: u64,
    pub bytes: u64,
}

/// One fork's files.
struct Fork {
    fork: RelFork,
    blocks: u32,
}

/// Counts forks and bytes, without reading them.
pub fn measure(layout: &Layout) -> Result<Total> {
    let mut total = Total::default();
    for_each_fork(layout, |_, blocks| {
        total.forks += 1;
        total.bytes += u64::from(blocks) * BLOCK_SIZE as u64;
        Ok(())
    })?;
    Ok(total)
}

/// Each fork that is imported, with its length in blocks.
pub fn for_each_fork(layout: &Layout, mut visit: impl FnMut(RelFork, u32) -> Result<()>) -> Result<()> {
    for (key, directory) in database_directories(layout)? {
        for fork in forks_of(layout, key, &directory)? {
            visit(fork.fork, fork.blocks)?;
        }
    }
    Ok(())
}

/// Everything but WAL and `pg_control`.
pub fn walk(layout: &Layout, sink: &mut Sink<'_>) -> Result<()> {
    walk_tablespaces(layout, sink)?;
    for (key, directory) in database_directories(layout)? {
        walk_database(layout, key, &directory, sink)?;
    }
    for kind in SlruKind::ALL {
        walk_slru(layout, kind, sink)?;
    }
    walk_prepared_transactions(layout, sink)?;
    walk_origins(layout, sink)?;
    walk_timeline_histories(layout, sink)
}

fn item(item: Item) -> v1::StateItem {
    v1::StateItem { item: Some(item) }
}

/// Names in a directory that are numbers, in order.
fn numbered_entries(directory: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let mut entries: Vec<_> = read_directory(directory)?
        .into_iter()
        .filter_map(|entry| Some((parse_number(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    entries.sort();
    Ok(entries)
}

fn tablespaces(layout: &Layout) -> Result<Vec<(u32, PathBuf)>> {
    numbered_entries(&layout.join("pg_tblspc"))
}

fn database_directories(layout: &Layout) -> Result<Vec<(DatabaseKey, PathBuf)>> {
    let key = |spc, db| DatabaseKey { spc, db };
    let mut directories = vec![(key(GLOBAL_TABLESPACE, 0), layout.join("global"))];
    for (db, path) in numbered_entries(&layout.join("base"))? {
        directories.push((key(DEFAULT_TABLESPACE, db), path));
    }
    for (spc, path) in tablespaces(layout)? {
        let version = path.join(layout.version_directory());
        if version.is_dir() {
            for (db, path) in numbered_entries(&version)? {
                directories.push((key(spc, db), path));
            }
        }
    }
    Ok(directories)
}

fn walk_tablespaces(layout: &Layout, sink: &mut Sink<'_>) -> Result<()> {
    for (spc, path) in tablespaces(layout)? {
        let location = if path.is_symlink() {
            let target = std::fs::read_link(&path).map_err(Failure::file("read link", &path))?;
            Bytes::from(target.into_os_string().into_vec())
        } else {
            Bytes::new()
        };
        sink(item(Item::Tablespace(v1::state_item::Tablespace {
            spc,
            location,
        })))?;
    }
    Ok(())
}

fn walk_database(layout: &Layout, key: DatabaseKey, directory: &Path, sink: &mut Sink<'_>) -> Result<()> {
    sink(item(Item::Database(v1::state_item::Database {
        spc: key.spc,
        db: key.db,
        version_file: read_optional(&directory.join("PG_VERSION"))?.into(),
        relation_map: read_optional(&directory.join("pg_filenode.map"))?.into(),
    })))?;
    for fork in forks_of(layout, key, directory)? {
        let wire_fork = v1::RelationFork {
            spc: key.spc,
            db: key.db,
            rel: fork.fork.rel.rel,
            fork: fork.fork.fork as u32,
        };
        sink(item(Item::RelationSize(v1::state_item::RelationSize {
            fork: Some(wire_fork),
            blocks: fork.blocks,
        })))?;
        walk_pages(layout, &fork, wire_fork, sink)?;
    }
    Ok(())
}

fn walk_pages(layout: &Layout, fork: &Fork, wire_fork: v1::RelationFork, sink: &mut Sink<'_>) -> Result<()> {
    let mut block = 0;
    while block < fork.blocks {
        let path = layout.relation_file(fork.fork, block / BLOCKS_PER_FILE);
        let file = File::open(&path).map_err(Failure::file("open", &path))?;
        let end_of_file = (block - block % BLOCKS_PER_FILE + BLOCKS_PER_FILE).min(fork.blocks);
        while block < end_of_file {
            let count = (end_of_file - block).min(PAGES_PER_ITEM);
            let pages = read_blocks(&file, &path, block % BLOCKS_PER_FILE, count)?;
            sink(item(Item::RelationPages(v1::state_item::RelationPages {
                fork: Some(wire_fork),
                first_block: block,
                pages,
            })))?;
            block += count;
        }
    }
    Ok(())
}

fn read_blocks(file: &File, path: &Path, first: u32, count: u32) -> Result<Bytes> {
    let mut pages = vec![0; count as usize * BLOCK_SIZE];
    file.read_exact_at(&mut pages, u64::from(first) * BLOCK_SIZE as u64)
        .map_err(Failure::file("read", path))?;
    Ok(pages.into())
}

/// The forks to import of one folder, with their lengths as md.c counts them: up to the first file that is
/// not full.
fn forks_of(layout: &Layout, key: DatabaseKey, directory: &Path) -> Result<Vec<Fork>> {
    let mut first_files = BTreeMap::new();
    let mut unlogged = HashSet::new();
    for entry in read_directory(directory)? {
        let Some(name) = entry.file_name().to_str().and_then(parse_relation_file_name) else {
            continue;
        };
        if name.fork == ForkNumber::Init {
            unlogged.insert(name.rel);
        }
        if name.segment == 0 {
            let length = entry
                .metadata()
                .map_err(Failure::file("look at", &entry.path()))?
                .len();
            first_files.insert((name.rel, name.fork), length);
        }
    }
    let mut forks = Vec::new();
    for ((rel, fork), length) in first_files {
        if fork != ForkNumber::Init && unlogged.contains(&rel) {
            continue;
        }
        let fork = RelFork {
            rel: RelFileNode {
                spc: key.spc,
                db: key.db,
                rel,
            },
            fork,
        };
        let blocks = count_blocks(layout, fork, length)?;
        forks.push(Fork { fork, blocks });
    }
    Ok(forks)
}

fn count_blocks(layout: &Layout, fork: RelFork, first_length: u64) -> Result<u32> {
    let blocks_of = |length: u64| u32::try_from(length / BLOCK_SIZE as u64).unwrap_or(u32::MAX);
    let mut here = blocks_of(first_length);
    let mut blocks = here;
    let mut segment = 0;
    while here == BLOCKS_PER_FILE {
        segment += 1;
        let path = layout.relation_file(fork, segment);
        here = match std::fs::metadata(&path) {
            Ok(metadata) => blocks_of(metadata.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(Failure::file("look at", &path)(error)),
        };
        blocks += here;
    }
    Ok(blocks)
}

fn walk_slru(layout: &Layout, kind: SlruKind, sink: &mut Sink<'_>) -> Result<()> {
    let directory = layout.join(kind.directory());
    for entry in read_directory(&directory)? {
        let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| u32::from_str_radix(name, 16).ok())
        else {
            continue;
        };
        let path = entry.path();
        let file = File::open(&path).map_err(Failure::file("open", &path))?;
        let length = file.metadata().map_err(Failure::file("look at", &path))?.len();
        let pages = u32::try_from(length / BLOCK_SIZE as u64).unwrap_or(0);
        if pages == 0 {
            continue;
        }
        sink(item(Item::SlruPages(v1::state_item::SlruPages {
            kind: kind as u32,
            first_page: number * SLRU_PAGES_PER_FILE,
            pages: read_blocks(&file, &path, 0, pages.min(SLRU_PAGES_PER_FILE))?,
        })))?;
    }
    Ok(())
}

fn walk_prepared_transactions(layout: &Layout, sink: &mut Sink<'_>) -> Result<()> {
    for entry in read_directory(&layout.join("pg_twophase"))? {
        let name = entry.file_name();
        let Some(xid) = name.to_str().and_then(|name| u32::from_str_radix(name, 16).ok()) else {
            continue;
        };
        let file = std::fs::read(entry.path()).map_err(Failure::file("read", &entry.path()))?;
        let state = without_crc(&file).ok_or_else(|| {
            Failure::new(format!(
                "the two-phase state file \"{}\" is damaged",
                entry.path().display()
            ))
        })?;
        sink(item(Item::PreparedTransaction(
            v1::state_item::PreparedTransaction {
                xid,
                prepare_start_lsn: 0,
                prepare_end_lsn: 0,
                state: Bytes::copy_from_slice(state),
            },
        )))?;
    }
    Ok(())
}

fn walk_origins(layout: &Layout, sink: &mut Sink<'_>) -> Result<()> {
    let path = layout.join("pg_logical/replorigin_checkpoint");
    let file = read_optional(&path)?;
    if file.is_empty() {
        return Ok(());
    }
    let origins = origins_from_file(&file)
        .ok_or_else(|| Failure::new(format!("the file \"{}\" is damaged", path.display())))?;
    for origin in origins {
        sink(item(Item::ReplicationOrigin(v1::state_item::ReplicationOrigin {
            origin: u32::from(origin.number),
            remote_lsn: origin.remote_lsn,
            local_lsn: 0,
        })))?;
    }
    Ok(())
}

fn walk_timeline_histories(layout: &Layout, sink: &mut Sink<'_>) -> Result<()> {
    for entry in read_directory(&layout.join("pg_wal"))? {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".history")) else {
            continue;
        };
        sink(item(Item::File(v1::state_item::File {
            path: format!("pg_wal/{name}"),
            content: read_optional(&entry.path())?.into(),
        })))?;
    }
    Ok(())
}

/// Empty if there is no such file.
fn read_optional(path: &Path) -> Result<Vec<u8>> {
    match std::fs::read(path) {
        Ok(content) => Ok(content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::file("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn the_location_of_a_tablespace_comes_byte_by_byte() {
        let pgdata = tempfile::tempdir().unwrap();
        let layout = Layout::of_tests(pgdata.path());
        let links = layout.join("pg_tblspc");
        std::fs::create_dir_all(links.join("16401")).unwrap();
        let latin1 = b"/srv/sch\xF6n";
        std::os::unix::fs::symlink(OsStr::from_bytes(latin1), links.join("16400")).unwrap();
        let mut found = Vec::new();
        walk_tablespaces(&layout, &mut |item| {
            if let Some(Item::Tablespace(tablespace)) = item.item {
                found.push((tablespace.spc, tablespace.location));
            }
            Ok(())
        })
        .unwrap();
        let (linked, in_place) = (Bytes::from_static(latin1), Bytes::new());
        assert_eq!(found, [(16400, linked), (16401, in_place)]);
    }
}
