//! Removing from PGDATA everything that the volume will put there anew, and what a crash leaves behind.
//!
//! Configuration files stay, and so do files that are nobody's. What goes is a cache: the volume holds it.
//!
//! Removing takes a file system about as long as making, and longer for what is full; and ext4 without a journal makes files
//! slowly for a minute after many were removed, since it skips their inodes one by one (`recently_deleted`, fs/ext4/ialloc.c).
//! So the folders of databases and WAL segments can be set aside, for somebody who removes them while the server runs.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::OWN_DIRECTORY;
use super::failure::{Failure, Result};
use super::layout::{DIRECTORIES, Layout, parse_number};
use super::parallel;

/// What of the last run may stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nothing: another compute has held the volume since, or the directory is new.
    Nothing,
    /// Replication slots and what logical ones need: nobody else has written since, as after a crash of a
    /// stock server.
    Slots,
    /// The files of relations, too, as a crash has left them: see the extension's cache. What of them is not the volume's
    /// is removed by the builder.
    SlotsAndPages,
    /// The slots and the statistics: the server was stopped cleanly.
    SlotsAndStatistics,
    /// All but the WAL: the files are good, see the extension's warm start.
    Everything,
    /// As [`Keep::Everything`]: the cluster has just been imported.
    ImportedFiles,
}

impl Keep {
    /// Whether the files of relations and transaction state stay.
    pub fn keeps_files(self) -> bool {
        matches!(self, Keep::Everything | Keep::ImportedFiles)
    }
}

/// What becomes of the files of databases, and WAL segments, that do not stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldFiles {
    /// They are gone when [`clear`] returns.
    Remove,
    /// They take up their room until [`remove_set_aside`]. Those of tablespaces, which have their own place, are removed.
    SetAside,
}

/// In [`OWN_DIRECTORY`]: what was set aside, a folder for each time.
const SET_ASIDE: &str = "set_aside";

/// Emptied in any case. `pg_wal` keeps its own identity: it may be a link.
const ALWAYS_EMPTIED: [&str; 11] = [
    "pg_commit_ts",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_twophase",
    "pg_wal/archive_status",
    "pg_wal",
    "pg_xact",
];
const SLOT_DIRECTORIES: [&str; 3] = ["pg_replslot", "pg_logical/snapshots", "pg_logical/mappings"];

/// Makes PGDATA an empty frame for the volume's content.
pub fn clear(layout: &Layout, keep: Keep, old_files: OldFiles) -> Result<()> {
    make_directories(layout)?;
    if keep.keeps_files() {
        return empty_wal(layout);
    }
    let keeps_relations = keep == Keep::SlotsAndPages;
    if old_files == OldFiles::SetAside {
        set_aside(layout, keeps_relations)?;
    }
    if !keeps_relations {
        empty_databases(&layout.join("base"))?;
        empty_directory(&layout.join("global"), &["pg_control"])?;
        clear_tablespaces(layout)?;
    }
    for directory in ALWAYS_EMPTIED {
        empty_directory(&layout.join(directory), &["archive_status"])?;
    }
    if keep != Keep::SlotsAndStatistics {
        empty_directory(&layout.join("pg_stat"), &[])?;
    }
    if keep == Keep::Nothing {
        for directory in SLOT_DIRECTORIES {
            empty_directory(&layout.join(directory), &[])?;
        }
    }
    remove_file(&layout.join("pg_logical/replorigin_checkpoint"))
}

fn set_aside(layout: &Layout, keeps_relations: bool) -> Result<()> {
    let aside = layout
        .join(OWN_DIRECTORY)
        .join(SET_ASIDE)
        .join(Uuid::new_v4().to_string());
    fs::create_dir_all(&aside).map_err(Failure::file("create directory", &aside))?;
    let mut databases = read_directory(&layout.join("base"))?;
    databases.retain(|_| !keeps_relations);
    let mut segments = read_directory(&layout.join("pg_wal"))?;
    segments.retain(|entry| !is_directory(&entry.path()));
    for entry in databases.iter().chain(&segments) {
        match fs::rename(entry.path(), aside.join(entry.file_name())) {
            // A link has led to it: it is removed in its place.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
            other => other.map_err(Failure::file("set aside", &entry.path()))?,
        }
    }
    Ok(())
}

/// Removes what was set aside in a data directory. Takes its time, and may be broken off.
pub fn remove_set_aside(pgdata: &Path) -> Result<()> {
    remove_tree(&pgdata.join(OWN_DIRECTORY).join(SET_ASIDE))
}

/// Bytes that files may still take on the disk of a path.
pub fn available_bytes(path: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(path).map_err(|error| Failure::file("look at", path)(error.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Removes the WAL segments.
pub fn empty_wal(layout: &Layout) -> Result<()> {
    empty_directory(&layout.join("pg_wal"), &["archive_status"])
}

/// Makes the directories that a server expects to find.
pub fn make_directories(layout: &Layout) -> Result<()> {
    for directory in DIRECTORIES {
        let path = layout.join(directory);
        fs::create_dir_all(&path).map_err(Failure::file("create directory", &path))?;
    }
    Ok(())
}

/// Removes the folders of databases with all that is in them, which may be hundreds of thousands of files.
fn empty_databases(path: &Path) -> Result<()> {
    let folders: Vec<PathBuf> = read_directory(path)?.iter().map(fs::DirEntry::path).collect();
    let mut entries = Vec::new();
    for folder in folders.iter().filter(|folder| is_directory(folder)) {
        entries.extend(read_directory(folder)?.iter().map(fs::DirEntry::path));
    }
    parallel::for_each(&entries, |entry| remove_tree(entry))?;
    folders.iter().try_for_each(|folder| remove_tree(folder))
}

/// A directory itself, no link to one.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Removes this version's folder of each tablespace, and the links.
fn clear_tablespaces(layout: &Layout) -> Result<()> {
    let links = layout.join("pg_tblspc");
    for entry in read_directory(&links)? {
        let name = entry.file_name();
        if name.to_str().and_then(parse_number).is_none() {
            remove_tree(&entry.path())?;
            continue;
        }
        let version_directory = entry.path().join(layout.version_directory());
        if is_directory(&version_directory) {
            empty_databases(&version_directory)?;
        }
        remove_tree(&version_directory)?;
        if entry.path().is_symlink() {
            remove_file(&entry.path())?;
        } else {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

fn empty_directory(path: &Path, except: &[&str]) -> Result<()> {
    for entry in read_directory(path)? {
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| except.contains(&name))
        {
            continue;
        }
        remove_tree(&entry.path())?;
    }
    Ok(())
}

pub fn read_directory(path: &Path) -> Result<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(path).map_err(Failure::file("read directory", path))?;
    entries
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(Failure::file("read directory", path))
}

/// Removes a file, a link (not what it leads to) or a directory with all that is in it.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            fs::remove_dir_all(path).map_err(Failure::file("remove directory", path))
        }
        Ok(_) => remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file("look at", path)(error)),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_leaves_configuration_and_pg_control() {
        let pgdata = tempfile::tempdir().unwrap();
        let layout = Layout::of_tests(pgdata.path());
        make_directories(&layout).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), layout.join("pg_tblspc/16500")).unwrap();
        fs::create_dir_all(elsewhere.path().join("PG_15_202209061/5")).unwrap();
        let gone = [
            "base/5/1259",
            "global/1262",
            "pg_wal/000000010000000000000001",
            "pg_replslot/a/state",
            "pg_stat/x",
        ];
        let stays = ["postgresql.conf", "global/pg_control", "pg_ident.conf"];
        for file in gone.iter().chain(&stays) {
            fs::create_dir_all(layout.join(file).parent().unwrap()).unwrap();
            fs::write(layout.join(file), "x").unwrap();
        }
        for number in 0..500 {
            fs::write(layout.join(format!("base/5/{}", 16384 + number)), "x").unwrap();
            fs::write(elsewhere.path().join(format!("PG_15_202209061/5/{number}")), "x").unwrap();
        }
        clear(&layout, Keep::Nothing, OldFiles::Remove).unwrap();
        for file in gone {
            assert!(!layout.join(file).exists(), "{file}");
        }
        assert!(layout.join("base").read_dir().unwrap().next().is_none());
        for file in stays {
            assert!(layout.join(file).exists(), "{file}");
        }
        assert!(layout.join("pg_wal/archive_status").is_dir());
        assert!(!layout.join("pg_tblspc/16500").is_symlink());
        assert!(elsewhere.path().read_dir().unwrap().next().is_none());
    }

    #[test]
    fn what_was_set_aside_is_out_of_the_way_until_it_is_removed() {
        let pgdata = tempfile::tempdir().unwrap();
        let layout = Layout::of_tests(pgdata.path());
        let aside = pgdata.path().join("pg_quorum/set_aside");
        for content in ["of the first run", "of the second run"] {
            make_directories(&layout).unwrap();
            fs::create_dir(layout.join("base/5")).unwrap();
            fs::write(layout.join("base/5/1259"), content).unwrap();
            fs::write(layout.join("pg_wal/000000010000000000000001"), content).unwrap();
            clear(&layout, Keep::Nothing, OldFiles::SetAside).unwrap();
            assert!(layout.join("base").read_dir().unwrap().next().is_none());
        }
        let kept = aside.read_dir().unwrap().map(|run| run.unwrap().path());
        let is_whole =
            |run: &PathBuf| run.join("5/1259").exists() && run.join("000000010000000000000001").exists();
        assert_eq!(kept.filter(is_whole).count(), 2);
        remove_set_aside(pgdata.path()).unwrap();
        remove_set_aside(pgdata.path()).unwrap();
        assert!(!aside.exists());
    }
}
