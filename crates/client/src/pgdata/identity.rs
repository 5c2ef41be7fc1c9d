//! `compute.json`: who a directory is to the volume, over all restarts of its server.

use std::fs;
use std::path::{Path, PathBuf};

use pg_quorum_types::{ComputeId, VolumeId};
use serde::{Deserialize, Serialize};

use super::durable_file::{load_json, to_json, write_durably};
use super::{OWN_DIRECTORY, PgdataError};
use crate::Fenced;

/// One compute directory's identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ComputeIdentity {
    pub compute: ComputeId,
    /// `None` before the first import has drawn it.
    pub volume: Option<VolumeId>,
    /// The highest epoch number under which this directory's server held the volume, 0 for none. A
    /// segment that has promised a higher one to somebody else refuses it without force: a machine that
    /// was fenced and reboots does not take the volume back.
    pub last_held_epoch: u64,
    /// Set when this directory's server was fenced, so that the next start can say so at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_by: Option<Fenced>,
}

impl ComputeIdentity {
    /// A directory that no volume knows yet.
    pub fn new(volume: Option<VolumeId>) -> ComputeIdentity {
        ComputeIdentity {
            compute: ComputeId::random(),
            volume,
            last_held_epoch: 0,
            fenced_by: None,
        }
    }

    /// `None` if the directory has no identity yet.
    ///
    /// # Errors
    /// An unreadable or damaged file.
    pub fn load(pgdata: &Path) -> Result<Option<ComputeIdentity>, PgdataError> {
        load_json(&path(pgdata))
    }

    /// Durable when it returns. Makes the directory `pg_quorum` if it is not there.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, pgdata: &Path) -> Result<(), PgdataError> {
        let own = pgdata.join(OWN_DIRECTORY);
        make_own_directory(&own)?;
        let path = path(pgdata);
        write_durably(&path, &to_json(&path, self)?)
    }
}

fn path(pgdata: &Path) -> PathBuf {
    pgdata.join(OWN_DIRECTORY).join("compute.json")
}

pub(super) fn make_own_directory(own: &Path) -> Result<(), PgdataError> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(own) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(PgdataError::io(own)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_and_a_damaged_one_is_refused() {
        let pgdata = tempfile::tempdir().unwrap();
        assert!(ComputeIdentity::load(pgdata.path()).unwrap().is_none());
        let mut identity = ComputeIdentity::new(Some(VolumeId::random()));
        identity.last_held_epoch = 7;
        identity.fenced_by = Some(Fenced {
            epoch: 8,
            owner: None,
        });
        identity.save(pgdata.path()).unwrap();
        assert_eq!(ComputeIdentity::load(pgdata.path()).unwrap(), Some(identity));
        fs::write(path(pgdata.path()), "{").unwrap();
        let error = ComputeIdentity::load(pgdata.path()).unwrap_err().to_string();
        assert!(error.contains("compute.json is damaged"), "{error}");
    }
}
