//! Bringing the relation files that a crash has left to what the volume has.
//!
//! Files that are not the volume's go, those that are missing are made, lengths are set: what a file is too long is cut
//! off, what it is too short becomes a hole. Nothing is said of their pages, only how many blocks of each fork there were
//! before: a command that was removing files when the server crashed may not have told anybody.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use pg_quorum_proto::v1::state_item::Tablespace;
use pg_quorum_types::{BLOCK_SIZE, DatabaseKey, ForkNumber, RelFileNode, RelFork};

use super::clear::{read_directory, remove_tree};
use super::failure::{Failure, Result};
use super::layout::{
    BLOCKS_PER_FILE, DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, Layout, parse_number, parse_relation_file_name,
};
use super::parallel;

/// Files beside relations' in a database's folder. The volume writes them, or they are not there at all times.
const DATABASE_FILES: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];
const GLOBAL_FILES: [&str; 2] = ["pg_control", "pg_filenode.map"];

/// What the volume has, as far as files are concerned.
pub struct Volume<'a> {
    pub databases: Vec<DatabaseKey>,
    pub forks: &'a [(RelFork, u32)],
    pub unlogged: &'a HashSet<RelFileNode>,
}

impl Volume<'_> {
    fn folders(&self) -> BTreeSet<DatabaseKey> {
        let of_fork = |(fork, _): &(RelFork, u32)| DatabaseKey {
            spc: fork.rel.spc,
            db: fork.rel.db,
        };
        let folders = self.databases.iter().copied();
        folders.chain(self.forks.iter().map(of_fork)).collect()
    }
}

/// Removes what the volume does not have. Links of tablespaces that are left lead where they led.
pub fn remove_others(layout: &Layout, volume: &Volume<'_>, tablespaces: &[Tablespace]) -> Result<()> {
    let folders = volume.folders();
    let forks: HashMap<RelFork, u32> = volume.forks.iter().copied().collect();
    let mut others = Vec::new();
    let spaces = tablespaces.iter().map(|tablespace| tablespace.spc);
    for spc in spaces.chain([DEFAULT_TABLESPACE]) {
        let parent = layout.database(DatabaseKey { spc, db: 0 });
        let Some(parent) = parent.parent().filter(|parent| parent.is_dir()) else {
            continue;
        };
        for entry in read_directory(parent)? {
            let db = entry.file_name().to_str().and_then(parse_number);
            if !db.is_some_and(|db| folders.contains(&DatabaseKey { spc, db })) {
                others.push(entry.path());
            }
        }
    }
    for folder in &folders {
        others_in_folder(layout, *folder, &forks, volume.unlogged, &mut others)?;
    }
    others.extend(other_tablespaces(layout, tablespaces)?);
    parallel::for_each(&others, |path| remove_tree(path))
}

fn others_in_folder(
    layout: &Layout,
    folder: DatabaseKey,
    forks: &HashMap<RelFork, u32>,
    unlogged: &HashSet<RelFileNode>,
    others: &mut Vec<PathBuf>,
) -> Result<()> {
    let files = match folder.spc {
        GLOBAL_TABLESPACE => GLOBAL_FILES,
        _ => DATABASE_FILES,
    };
    let path = layout.database(folder);
    let entries = match fs::metadata(&path) {
        Ok(_) => read_directory(&path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::file("look at", &path)(error)),
    };
    for entry in entries {
        let name = entry.file_name();
        let is_wanted = name
            .to_str()
            .is_some_and(|name| files.contains(&name) || is_relation_file(folder, name, forks, unlogged));
        if !is_wanted {
            others.push(entry.path());
        }
    }
    Ok(())
}

/// Whether the file holds a part of a fork that the volume has. Of an unlogged relation only the files that are written
/// anew are.
fn is_relation_file(
    folder: DatabaseKey,
    name: &str,
    forks: &HashMap<RelFork, u32>,
    unlogged: &HashSet<RelFileNode>,
) -> bool {
    let Some(file) = parse_relation_file_name(name) else {
        return false;
    };
    let rel = RelFileNode {
        spc: folder.spc,
        db: folder.db,
        rel: file.rel,
    };
    let blocks = |fork| forks.get(&RelFork { rel, fork });
    match file.fork {
        ForkNumber::Main if unlogged.contains(&rel) => file.segment == 0,
        ForkNumber::Init => blocks(file.fork).is_some_and(|blocks| file.segment < files_of(*blocks)),
        _ if unlogged.contains(&rel) => false,
        fork => blocks(fork).is_some_and(|blocks| file.segment < files_of(*blocks)),
    }
}

/// A fork has at least one file.
fn files_of(blocks: u32) -> u32 {
    blocks.div_ceil(BLOCKS_PER_FILE).max(1)
}

/// Folders of this version in tablespaces that the volume does not have, and their links.
fn other_tablespaces(layout: &Layout, tablespaces: &[Tablespace]) -> Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for entry in read_directory(&layout.join("pg_tblspc"))? {
        let spc = entry.file_name().to_str().and_then(parse_number);
        if spc.is_some_and(|spc| tablespaces.iter().any(|tablespace| tablespace.spc == spc)) {
            continue;
        }
        let folder = entry.path().join(layout.version_directory());
        if spc.is_some() && folder.is_dir() {
            remove_tree(&folder)?;
        }
        others.push(entry.path());
    }
    Ok(others)
}

/// Sets the lengths of forks' files, and makes those that are missing. Returns, in the order of `forks`, how many of a
/// fork's blocks were there without a gap.
pub fn set_lengths(layout: &Layout, forks: &[(RelFork, u32)]) -> Result<Vec<u32>> {
    let found: Vec<AtomicU32> = forks.iter().map(|_| AtomicU32::new(0)).collect();
    let work: Vec<(&(RelFork, u32), &AtomicU32)> = forks.iter().zip(&found).collect();
    parallel::for_each(&work, |((fork, blocks), found)| {
        found.store(set_length(layout, *fork, *blocks)?, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(found.into_iter().map(AtomicU32::into_inner).collect())
}

fn set_length(layout: &Layout, fork: RelFork, blocks: u32) -> Result<u32> {
    let mut found = 0;
    let mut has_gap = false;
    for segment in 0..files_of(blocks) {
        let wanted = (blocks - segment * BLOCKS_PER_FILE).min(BLOCKS_PER_FILE);
        let there = set_file_length(&layout.relation_file(fork, segment), wanted)?;
        if !has_gap {
            found += there;
        }
        has_gap |= there < wanted;
    }
    Ok(found)
}

/// How many whole blocks of those that are wanted the file had.
fn set_file_length(path: &Path, blocks: u32) -> Result<u32> {
    let block_bytes = BLOCK_SIZE as u64;
    let wanted = u64::from(blocks) * block_bytes;
    let before = match fs::metadata(path) {
        Ok(metadata) => Some(metadata.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::file("look at", path)(error)),
    };
    if before != Some(wanted) {
        if let Some(folder) = path.parent().filter(|_| before.is_none()) {
            fs::create_dir_all(folder).map_err(Failure::file("create directory", folder))?;
        }
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .and_then(|file| file.set_len(wanted))
            .map_err(Failure::file("set the length of", path))?;
    }
    let whole = before.unwrap_or(0) / block_bytes;
    Ok(u32::try_from(whole).unwrap_or(u32::MAX).min(blocks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgdata::make_directories;

    fn fork(db: u32, rel: u32, fork: ForkNumber) -> RelFork {
        let spc = if db == 0 {
            GLOBAL_TABLESPACE
        } else {
            DEFAULT_TABLESPACE
        };
        RelFork {
            rel: RelFileNode { spc, db, rel },
            fork,
        }
    }

    fn directory(files: &[(&str, usize)]) -> (tempfile::TempDir, Layout) {
        let pgdata = tempfile::tempdir().unwrap();
        let layout = Layout::of_tests(pgdata.path());
        make_directories(&layout).unwrap();
        for (path, blocks) in files {
            let path = layout.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![7; blocks * BLOCK_SIZE]).unwrap();
        }
        (pgdata, layout)
    }

    fn database(db: u32) -> DatabaseKey {
        DatabaseKey {
            spc: DEFAULT_TABLESPACE,
            db,
        }
    }

    #[test]
    fn what_is_not_the_volumes_goes_and_the_rest_stays_as_it_is() {
        let stays = [
            "base/5/PG_VERSION",
            "base/5/16384",
            "base/5/16384_vm",
            "base/5/16390",
            "base/5/16390_init",
            "global/pg_control",
            "global/1262",
        ];
        let goes = [
            "base/5/16384.1",
            "base/5/16384_fsm",
            "base/5/16385",
            "base/5/16385_fsm",
            "base/5/t3_16384",
            "base/5/pg_internal.init",
            "base/5/16390_fsm",
            "base/5/16390_vm",
            "base/5/16390.1",
            "base/6/16384",
            "base/pgsql_tmp/x",
            "global/1263",
            "global/pg_internal.init",
            "pg_tblspc/16500/PG_15_202209061/5/1",
        ];
        let files: Vec<(&str, usize)> = stays.iter().chain(&goes).map(|path| (*path, 1)).collect();
        let (_pgdata, layout) = directory(&files);
        let forks = [
            (fork(5, 16384, ForkNumber::Main), 3),
            (fork(5, 16384, ForkNumber::VisibilityMap), 1),
            (fork(5, 16390, ForkNumber::Init), 1),
            (fork(0, 1262, ForkNumber::Main), 1),
        ];
        let unlogged = HashSet::from([forks[2].0.rel]);
        let volume = Volume {
            databases: vec![database(5)],
            forks: &forks,
            unlogged: &unlogged,
        };
        remove_others(&layout, &volume, &[]).unwrap();
        for path in stays {
            assert_eq!(fs::read(layout.join(path)).unwrap(), [7; BLOCK_SIZE], "{path}");
        }
        for path in goes {
            assert!(!layout.join(path).exists(), "{path}");
        }
        assert!(!layout.join("base/6").exists() && !layout.join("pg_tblspc/16500").exists());
    }

    #[test]
    fn lengths_are_the_volumes_and_it_is_known_what_was_there() {
        let (_pgdata, layout) =
            directory(&[("base/5/1", 4), ("base/5/2", 4), ("base/5/3", 2), ("base/5/5", 1)]);
        let large = fork(5, 5, ForkNumber::Main);
        let forks = [
            (fork(5, 1, ForkNumber::Main), 4),
            (fork(5, 2, ForkNumber::Main), 3),
            (fork(5, 3, ForkNumber::Main), 9),
            (fork(7, 4, ForkNumber::Main), 0),
            (large, BLOCKS_PER_FILE + 2),
        ];
        fs::write(layout.relation_file(large, 1), vec![7; 2 * BLOCK_SIZE]).unwrap();
        assert_eq!(set_lengths(&layout, &forks).unwrap(), [4, 3, 2, 0, 1]);
        for (fork, blocks) in forks {
            let length = |segment| fs::metadata(layout.relation_file(fork, segment)).unwrap().len();
            let total: u64 = (0..files_of(blocks)).map(length).sum();
            assert_eq!(total, u64::from(blocks) * BLOCK_SIZE as u64, "{fork}");
        }
        let start = fs::read(layout.join("base/5/3")).unwrap();
        assert!(start[..2 * BLOCK_SIZE].iter().all(|byte| *byte == 7));
        assert!(start[2 * BLOCK_SIZE..].iter().all(|byte| *byte == 0));
    }
}
