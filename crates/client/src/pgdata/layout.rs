//! Where things stand in a PGDATA directory of PostgreSQL 15.

use std::path::{Path, PathBuf};

use pg_quorum_types::{DatabaseKey, ForkNumber, Lsn, RelFileNode, RelFork, SlruKind};

/// `DEFAULTTABLESPACE_OID`: `base/`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// `GLOBALTABLESPACE_OID`: `global/`.
pub const GLOBAL_TABLESPACE: u32 = 1664;
/// `RELSEG_SIZE`: blocks of one file of a relation (1 GB).
pub const BLOCKS_PER_FILE: u32 = 131_072;
/// `SLRU_PAGES_PER_SEGMENT`.
pub const SLRU_PAGES_PER_FILE: u32 = 32;

/// Directories that a server expects to find (`initdb`'s list).
pub const DIRECTORIES: [&str; 22] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
];

/// A data directory, and what its paths depend on.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    /// `PG_15_202209061`: the folder of this version inside a tablespace.
    version_directory: String,
    wal_segment_bytes: u64,
    timeline: u32,
}

impl Layout {
    pub fn new(root: &Path, facts: &pg_quorum_types::ClusterFacts) -> Layout {
        Layout {
            root: root.to_owned(),
            version_directory: format!("PG_{}_{}", facts.pg_major, facts.catalog_version),
            wal_segment_bytes: u64::from(facts.wal_segment_bytes),
            timeline: facts.timeline,
        }
    }

    /// A directory of a cluster with 16 MB segments, version folder `PG_15_202209061`, timeline 1. For tests.
    pub fn of_tests(root: &Path) -> Layout {
        let facts = pg_quorum_types::ClusterFacts {
            system_identifier: 1,
            timeline: 1,
            wal_segment_bytes: 16 << 20,
            data_checksums: false,
            pg_control_version: 1300,
            catalog_version: 202_209_061,
            pg_major: 15,
        };
        Layout::new(root, &facts)
    }

    pub fn version_directory(&self) -> &str {
        &self.version_directory
    }

    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// The folder of a database in a tablespace (`GetDatabasePath`).
    pub fn database(&self, key: DatabaseKey) -> PathBuf {
        match key.spc {
            GLOBAL_TABLESPACE => self.join("global"),
            DEFAULT_TABLESPACE => self.join(format!("base/{}", key.db)),
            spc => self.join(format!("pg_tblspc/{spc}/{}/{}", self.version_directory, key.db)),
        }
    }

    /// File number `segment` of a fork (`_mdfd_segpath`).
    pub fn relation_file(&self, fork: RelFork, segment: u32) -> PathBuf {
        let RelFileNode { spc, db, rel } = fork.rel;
        let suffix = fork.fork.file_suffix();
        let name = if segment == 0 {
            format!("{rel}{suffix}")
        } else {
            format!("{rel}{suffix}.{segment}")
        };
        self.database(DatabaseKey { spc, db }).join(name)
    }

    /// The file that holds an SLRU page, and the page's place in it.
    pub fn slru_file(&self, kind: SlruKind, page: u32) -> (PathBuf, u32) {
        let name = format!("{:04X}", page / SLRU_PAGES_PER_FILE);
        (self.join(kind.directory()).join(name), page % SLRU_PAGES_PER_FILE)
    }

    /// The WAL segment file that holds `lsn`, and the segment's first position (`XLogFileName`).
    pub fn wal_file(&self, lsn: Lsn) -> (PathBuf, Lsn) {
        let segment = lsn.0 / self.wal_segment_bytes;
        let per_id = 0x1_0000_0000 / self.wal_segment_bytes;
        let name = format!(
            "{:08X}{:08X}{:08X}",
            self.timeline,
            segment / per_id,
            segment % per_id
        );
        (
            self.join("pg_wal").join(name),
            Lsn(segment * self.wal_segment_bytes),
        )
    }

    pub fn wal_segment_bytes(&self) -> u64 {
        self.wal_segment_bytes
    }
}

/// A relation's file as its name says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelationFileName {
    pub rel: u32,
    pub fork: ForkNumber,
    pub segment: u32,
}

/// Takes the name of a relation's file apart; `None` for anything else, temporary relations (`t3_16384`) included.
pub fn parse_relation_file_name(name: &str) -> Option<RelationFileName> {
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, parse_number(segment).filter(|segment| *segment > 0)?),
        None => (name, 0),
    };
    let (rel, fork) = match stem.split_once('_') {
        Some((rel, "fsm")) => (rel, ForkNumber::FreeSpaceMap),
        Some((rel, "vm")) => (rel, ForkNumber::VisibilityMap),
        Some((rel, "init")) => (rel, ForkNumber::Init),
        Some(_) => return None,
        None => (stem, ForkNumber::Main),
    };
    Some(RelationFileName {
        rel: parse_number(rel).filter(|rel| *rel > 0)?,
        fork,
        segment,
    })
}

/// Decimal digits only, no sign, no leading zero.
pub fn parse_number(text: &str) -> Option<u32> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_file_names_are_taken_apart() {
        let name = |rel, fork, segment| Some(RelationFileName { rel, fork, segment });
        assert_eq!(
            parse_relation_file_name("16384"),
            name(16384, ForkNumber::Main, 0)
        );
        assert_eq!(
            parse_relation_file_name("16384_vm.2"),
            name(16384, ForkNumber::VisibilityMap, 2)
        );
        assert_eq!(parse_relation_file_name("1_init"), name(1, ForkNumber::Init, 0));
        for other in [
            "PG_VERSION",
            "pg_filenode.map",
            "t3_16384",
            "16384_x",
            "16384.0",
            "16384.",
            "0",
            "01",
        ] {
            assert_eq!(parse_relation_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn wal_segments_are_named_as_by_the_server() {
        let layout = Layout {
            timeline: 3,
            ..Layout::of_tests(Path::new("/d"))
        };
        let (path, start) = layout.wal_file(Lsn(0x2_FF12_3456));
        assert_eq!(path, Path::new("/d/pg_wal/0000000300000002000000FF"));
        assert_eq!(start, Lsn(0x2_FF00_0000));
    }
}
