//! A new, empty PGDATA for a volume that exists: everything that a server needs to start, and nothing of the
//! volume's content, which attach brings.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};

use pg_quorum_tls::TlsFiles;

use super::{ComputeIdentity, PgdataError, place_tripwire, request_force};
use crate::VolumeControl;

/// The folders that `initdb` makes (`subdirs` in `initdb.c`, PostgreSQL 15), parents first.
pub(super) const FOLDERS: [&str; 25] = [
    "global",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
    "pg_twophase",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "base",
    "base/1",
    "pg_replslot",
    "pg_tblspc",
    "pg_stat",
    "pg_stat_tmp",
    "pg_xact",
    "pg_logical",
    "pg_logical/snapshots",
    "pg_logical/mappings",
    "pg_quorum",
    "log",
];

/// How clients prove who they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthMethod {
    /// Over Unix sockets.
    pub local: String,
    /// Over TCP, from this machine.
    pub host: String,
}

impl Default for AuthMethod {
    /// The account that owns the directory connects as the database user of its name; everybody else has a
    /// password.
    fn default() -> AuthMethod {
        AuthMethod {
            local: "peer".to_owned(),
            host: "scram-sha-256".to_owned(),
        }
    }
}

/// What the new directory is to be.
#[derive(Clone, Debug)]
pub struct NewDirectory {
    pub pgdata: PathBuf,
    /// The nodes' addresses, for `pg_quorum.nodes`.
    pub nodes: Vec<String>,
    /// How the server speaks with them. `None`: in the clear.
    pub tls: Option<TlsFiles>,
    /// A file with the token that the server shows them.
    pub token: Option<PathBuf>,
    pub volume: VolumeControl,
    /// `None`: PostgreSQL's default, 5432.
    pub port: Option<u16>,
    pub auth: AuthMethod,
    /// User and group that the server runs as. `None`: whoever calls.
    pub owner: Option<(u32, u32)>,
    /// The first start takes the volume from whoever holds it.
    pub force: bool,
}

/// Why there is no new directory.
#[derive(Debug, thiserror::Error)]
pub enum NewDirectoryError {
    #[error("{0} is not empty: name a directory that is empty or does not exist")]
    NotEmpty(PathBuf),
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    #[error(transparent)]
    Pgdata(#[from] PgdataError),
}

/// Makes the directory. What an attempt that fails leaves behind is removed.
///
/// # Errors
/// See [`NewDirectoryError`].
pub fn create_directory(new: &NewDirectory) -> Result<ComputeIdentity, NewDirectoryError> {
    let existed = check_empty(&new.pgdata)?;
    let made = fill(new);
    if made.is_err() {
        empty_again(&new.pgdata, existed);
    }
    made
}

/// Whether the directory is there already.
pub(super) fn check_empty(pgdata: &Path) -> Result<bool, NewDirectoryError> {
    match fs::read_dir(pgdata) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(_) => Err(NewDirectoryError::NotEmpty(pgdata.to_owned())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(NewDirectoryError::NotADirectory(pgdata.to_owned()))
        }
        Err(error) => Err(PgdataError::io(pgdata)(error).into()),
    }
}

/// After a failure. It was empty before: what is in it is ours. The failure is what the caller hears of.
pub(super) fn empty_again(pgdata: &Path, existed: bool) {
    let _ = fs::remove_dir_all(pgdata);
    if existed {
        let _ = DirBuilder::new().mode(0o700).create(pgdata);
    }
}

fn fill(new: &NewDirectory) -> Result<ComputeIdentity, NewDirectoryError> {
    let pgdata = &new.pgdata;
    make_root(pgdata)?;
    for folder in FOLDERS {
        make_folder(&pgdata.join(folder))?;
    }
    let version = format!("{}\n", new.volume.facts.pg_major);
    write(pgdata, "base/1/PG_VERSION", version.as_bytes())?;
    write(pgdata, "global/pg_control", &new.volume.control_file)?;
    write(pgdata, "postgresql.conf", settings(new).as_bytes())?;
    write(pgdata, "postgresql.auto.conf", AUTO_CONF.as_bytes())?;
    write(
        pgdata,
        "pg_hba.conf",
        host_based_authentication(&new.auth).as_bytes(),
    )?;
    write(pgdata, "pg_ident.conf", IDENT.as_bytes())?;
    place_tripwire(pgdata, new.volume.volume)?;
    let identity = ComputeIdentity::new(Some(new.volume.volume));
    identity.save(pgdata)?;
    if new.force {
        request_force(pgdata)?;
    }
    // Last: without it no server takes the directory for a cluster.
    write(pgdata, "PG_VERSION", version.as_bytes())?;
    if let Some((user, group)) = new.owner {
        give_away(pgdata, user, group)?;
    }
    Ok(identity)
}

/// The data directory itself, with those above it.
pub(super) fn make_root(pgdata: &Path) -> Result<(), PgdataError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(pgdata)
        .map_err(PgdataError::io(pgdata))?;
    // A server refuses a directory that others may enter.
    fs::set_permissions(pgdata, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(PgdataError::io(pgdata))
}

pub(super) fn make_folder(path: &Path) -> Result<(), PgdataError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(PgdataError::io(path))
}

pub(super) fn write(pgdata: &Path, name: &str, content: &[u8]) -> Result<(), PgdataError> {
    let path = pgdata.join(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .map_err(PgdataError::io(&path))
}

/// Changes the owner of a folder and of everything below it; what links lead to stays.
pub(crate) fn give_away(path: &Path, user: u32, group: u32) -> Result<(), PgdataError> {
    let metadata = fs::symlink_metadata(path).map_err(PgdataError::io(path))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(PgdataError::io(path))? {
            let entry = entry.map_err(PgdataError::io(path))?;
            give_away(&entry.path(), user, group)?;
        }
    }
    if (metadata.uid(), metadata.gid()) != (user, group) {
        lchown(path, Some(user), Some(group)).map_err(PgdataError::io(path))?;
    }
    Ok(())
}

pub(super) const AUTO_CONF: &str = "# Do not edit this file manually!\n\
                         # It will be overwritten by the ALTER SYSTEM command.\n";

pub(super) const IDENT: &str = "# MAPNAME       SYSTEM-USERNAME         PG-USERNAME\n";

fn settings(new: &NewDirectory) -> String {
    let mut text = format!(
        "# A pg_quorum compute: the data is in the volume, this directory is a cache. Settings are not kept in the\n\
         # volume; bring over those of the cluster's other servers that matter here.\n\
         \n\
         shared_preload_libraries = 'pg_quorum'\n\
         pg_quorum.nodes = '{}'\n\
         pg_quorum.volume = '{}'\n\
         \n",
        new.nodes.join(","),
        new.volume.volume,
    );
    let mut files = Vec::new();
    if let Some(tls) = &new.tls {
        files.extend([
            ("tls_ca", &tls.authority),
            ("tls_cert", &tls.certificate),
            ("tls_key", &tls.key),
        ]);
    }
    files.extend(new.token.as_ref().map(|token| ("token", token)));
    for (name, path) in files {
        let path = path.display().to_string().replace('\'', "''");
        let _ = writeln!(text, "pg_quorum.{name}_file = '{path}'");
    }
    if let Some(port) = new.port {
        let _ = writeln!(text, "port = {port}");
    }
    text + &time_zone_settings()
}

/// Nothing if the machine does not say.
pub(super) fn time_zone_settings() -> String {
    time_zone().map_or_else(String::new, |zone| {
        format!("timezone = '{zone}'\nlog_timezone = '{zone}'\n")
    })
}

/// The machine's time zone, which `initdb` would have taken, too.
fn time_zone() -> Option<String> {
    let link = fs::read_link("/etc/localtime").ok()?;
    let (_, zone) = link.to_str()?.split_once("zoneinfo/")?;
    let is_plain = zone
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/_+-".contains(c));
    is_plain.then(|| zone.to_owned())
}

/// The lines of `initdb`'s `pg_hba.conf`.
pub(super) fn host_based_authentication(auth: &AuthMethod) -> String {
    let mut text = String::from("# TYPE  DATABASE        USER            ADDRESS                 METHOD\n");
    for database in ["all", "replication"] {
        let _ = write!(
            text,
            "local   {database:<15} all                                     {local}\n\
             host    {database:<15} all             127.0.0.1/32            {host}\n\
             host    {database:<15} all             ::1/128                 {host}\n",
            local = auth.local,
            host = auth.host,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgdata::is_forced;
    use pg_quorum_types::{BLOCK_SIZE, ClusterFacts, VolumeId};

    fn new(pgdata: PathBuf) -> NewDirectory {
        NewDirectory {
            pgdata,
            nodes: vec!["10.0.0.1:7101".into(), "10.0.0.2:7101".into()],
            tls: Some(TlsFiles {
                authority: "/pki/ca.pem".into(),
                certificate: "/pki/it's.pem".into(),
                key: "/pki/it's.key".into(),
            }),
            token: Some("/pki/it's.token".into()),
            volume: VolumeControl {
                volume: VolumeId::random(),
                facts: ClusterFacts {
                    system_identifier: 1,
                    timeline: 1,
                    wal_segment_bytes: 16 << 20,
                    data_checksums: false,
                    pg_control_version: 1300,
                    catalog_version: 202_209_061,
                    pg_major: 15,
                },
                control_file: vec![7; BLOCK_SIZE].into(),
                owner: None,
            },
            port: Some(5433),
            auth: AuthMethod::default(),
            owner: None,
            force: true,
        }
    }

    #[test]
    fn a_new_directory_has_what_a_server_wants_and_nothing_of_the_content() {
        let parent = tempfile::tempdir().unwrap();
        let new = new(parent.path().join("a/compute"));
        let identity = create_directory(&new).unwrap();
        let pgdata = &new.pgdata;
        assert_eq!(fs::metadata(pgdata).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(pgdata.join("PG_VERSION")).unwrap(), "15\n");
        assert_eq!(
            fs::read(pgdata.join("global/pg_control")).unwrap().len(),
            BLOCK_SIZE
        );
        assert_eq!(ComputeIdentity::load(pgdata).unwrap(), Some(identity));
        assert!(is_forced(pgdata));
        assert!(pgdata.join("backup_label").exists());
        let settings = fs::read_to_string(pgdata.join("postgresql.conf")).unwrap();
        assert!(settings.contains("pg_quorum.nodes = '10.0.0.1:7101,10.0.0.2:7101'\n"));
        assert!(settings.contains("port = 5433\n"));
    }

    #[test]
    fn a_directory_with_content_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let pgdata = parent.path().join("compute");
        fs::create_dir(&pgdata).unwrap();
        fs::write(pgdata.join("precious"), "x").unwrap();
        let error = create_directory(&new(pgdata.clone())).unwrap_err();
        assert!(matches!(error, NewDirectoryError::NotEmpty(_)));
        assert!(pgdata.join("precious").exists());
        assert_eq!(fs::read_dir(&pgdata).unwrap().count(), 1);
    }
}
