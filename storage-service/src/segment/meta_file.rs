//! Where a segment's metadata is kept, and whose directory it is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use pg_quorum_quorum::segment::{MetaError, SegmentMeta, decode_meta, encode_meta};
use pg_quorum_types::{NodeName, SegmentId};

use crate::disk::Disk;

const FILE_NAME: &str = "segment.meta";
/// Names that may be in a directory that is not formatted yet.
const HARMLESS_NAMES: [&str; 3] = ["LOCK", "lost+found", "segment.meta.new"];

/// The directory is not this node's, or its metadata cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MetaFileError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a node's data directory: it has no {FILE_NAME}, but it has {name}")]
    NotADataDirectory { path: PathBuf, name: String },
    #[error("{path} is the data directory of node {found}, this is node {wanted}")]
    OtherNode {
        path: PathBuf,
        found: NodeName,
        wanted: NodeName,
    },
    #[error("{path} is damaged: {source}")]
    Damaged {
        path: PathBuf,
        #[source]
        source: MetaError,
    },
}

/// The file, and the number of the newest content that it has got.
pub(super) struct MetaFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    persisted: Mutex<u64>,
}

impl MetaFile {
    /// Reads the metadata; formats an empty directory.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        node: &NodeName,
    ) -> Result<(MetaFile, SegmentMeta), MetaFileError> {
        let path = dir.join(FILE_NAME);
        let io_error = |source| MetaFileError::Io {
            path: path.clone(),
            source,
        };
        let stored = disk.read(&path).map_err(io_error)?;
        let file = MetaFile {
            disk,
            path: path.clone(),
            persisted: Mutex::new(0),
        };
        let Some(stored) = stored else {
            let names = file.disk.list(dir).map_err(io_error)?;
            if let Some(name) = names
                .into_iter()
                .find(|name| !HARMLESS_NAMES.contains(&name.as_str()))
            {
                return Err(MetaFileError::NotADataDirectory {
                    path: dir.to_owned(),
                    name,
                });
            }
            let meta = SegmentMeta::formatted(node.clone(), SegmentId::random());
            file.disk.replace(&path, &encode_meta(&meta)).map_err(io_error)?;
            tracing::info!(%node, segment = %meta.segment, "formatted {}", dir.display());
            return Ok((file, meta));
        };
        // It may have been renamed into place without its directory having been synced.
        file.disk.sync_dir(dir).map_err(io_error)?;
        let meta = decode_meta(&stored).map_err(|source| MetaFileError::Damaged {
            path: path.clone(),
            source,
        })?;
        if meta.node != *node {
            return Err(MetaFileError::OtherNode {
                path: dir.to_owned(),
                found: meta.node,
                wanted: node.clone(),
            });
        }
        Ok((file, meta))
    }

    /// Makes `meta` durable, unless newer content is durable already (which contains it).
    pub fn persist(&self, meta: &SegmentMeta, sequence: u64) -> io::Result<()> {
        let mut persisted = self.persisted.lock();
        if sequence > *persisted {
            self.disk.replace(&self.path, &encode_meta(meta))?;
            *persisted = sequence;
        }
        Ok(())
    }
}
