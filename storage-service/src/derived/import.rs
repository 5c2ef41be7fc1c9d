//! Takes a base in: a fresh store, filled in any order, that counts only once it is complete and synced.
//!
//! ```text
//! derived/store-<import>   one directory per import
//! derived/CURRENT          the name of the complete one
//! ```
//! An import that was not finished is a directory that `CURRENT` does not name; the next one removes it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pg_quorum_types::{BLOCK_SIZE, Lsn, PageKey};
use pg_quorum_wal::ControlFile;

use super::base::ImportedBase;
use super::content::ContentItem;
use super::error::DerivedError;
use super::marks::Mark;
use super::meta_key::{MetaKey, VolumeItem, encode_value};
use super::record_changes::{OriginValue, PreparedValue};
use super::settings::DerivedSettings;
use super::state::encode_size;
use super::store::{Batch, PageStore, Space};
use super::stored_page::StoredPage;

const CURRENT: &str = "CURRENT";
const STORE_PREFIX: &str = "store-";
/// Bytes in one commit.
const BATCH_BYTES: usize = 1 << 20;
/// Pieces that a WAL prefix is kept in.
const WAL_PIECE_BYTES: usize = 1 << 20;

/// An import under way.
pub struct Import {
    root: PathBuf,
    name: String,
    store: Box<dyn PageStore>,
    base: ImportedBase,
    control: Option<ControlFile>,
    batch: Batch,
}

fn io_error(what: &str, path: &Path, error: &io::Error) -> DerivedError {
    DerivedError::Store(format!("{what} {}: {error}", path.display()))
}

/// The directory of the complete store, if there is one.
///
/// # Errors
/// The directory cannot be read.
pub fn current_store(root: &Path) -> Result<Option<PathBuf>, DerivedError> {
    let path = root.join(CURRENT);
    match fs::read_to_string(&path) {
        Ok(name) => Ok(Some(root.join(name.trim_end()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("reading", &path, &error)),
    }
}

/// Removes every store but the complete one.
fn remove_unfinished(root: &Path) -> Result<(), DerivedError> {
    let current = current_store(root)?;
    let entries = fs::read_dir(root).map_err(|error| io_error("reading", root, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| io_error("reading", root, &error))?.path();
        let is_store = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(STORE_PREFIX));
        if is_store && Some(&path) != current.as_ref() {
            fs::remove_dir_all(&path).map_err(|error| io_error("removing", &path, &error))?;
        }
    }
    Ok(())
}

impl Import {
    /// Begins anew; what an unfinished import left is removed.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn begin(
        root: &Path,
        base: ImportedBase,
        settings: &DerivedSettings,
    ) -> Result<Import, DerivedError> {
        remove_unfinished(root)?;
        // The complete store may be of an import with the same name that is repeated.
        let attempt = uuid::Uuid::new_v4();
        let name = format!("{STORE_PREFIX}{}-{}", base.base.id.simple(), attempt.simple());
        let directory = root.join(&name);
        let store = settings.store.open(&directory)?;
        Ok(Import {
            root: root.to_owned(),
            name,
            store,
            base,
            control: None,
            batch: Batch::default(),
        })
    }

    pub fn base(&self) -> &ImportedBase {
        &self.base
    }

    /// Takes items in.
    ///
    /// # Errors
    /// An item that is malformed, or the store fails. The import must be begun anew then.
    pub fn add(&mut self, items: Vec<ContentItem>) -> Result<(), DerivedError> {
        for item in items {
            self.add_item(item)?;
            if self.batch.bytes() >= BATCH_BYTES {
                self.store.commit(std::mem::take(&mut self.batch))?;
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &MetaKey, value: Bytes) {
        self.batch.put(
            Space::Meta,
            &key.to_bytes(),
            self.base.base.lsn,
            encode_value(&Some(value)),
        );
    }

    fn add_item(&mut self, item: ContentItem) -> Result<(), DerivedError> {
        match item {
            ContentItem::RelationSize { fork, blocks } => {
                self.put(&MetaKey::Size(fork), encode_size(blocks));
            }
            ContentItem::RelationPages {
                fork,
                first_block,
                pages,
            } => self.add_pages(&pages, first_block, |block| PageKey::Relation {
                rel: fork,
                block,
            })?,
            ContentItem::SlruPages {
                kind,
                first_page,
                pages,
            } => self.add_pages(&pages, first_page, |page| PageKey::Slru { kind, page })?,
            ContentItem::Database {
                database,
                version_file,
                relation_map,
            } => {
                self.put(&MetaKey::Database(database), version_file);
                if !relation_map.is_empty() {
                    self.put(&MetaKey::RelationMap(database), relation_map);
                }
            }
            ContentItem::Tablespace { spc, location } => {
                self.put(&MetaKey::Tablespace(spc), location);
            }
            ContentItem::PreparedTransaction {
                xid,
                start,
                end,
                state,
            } => self.put(
                &MetaKey::Prepared(xid),
                PreparedValue { start, end, state }.to_bytes(),
            ),
            ContentItem::ReplicationOrigin {
                origin,
                remote_lsn,
                local_lsn,
            } => {
                let value = OriginValue {
                    remote_lsn,
                    local_lsn,
                };
                self.put(&MetaKey::Origin(origin), value.to_bytes());
            }
            ContentItem::File { path, content } => self.put(&MetaKey::File(path), content),
            ContentItem::WalPrefix { lsn, wal } => self.add_wal_prefix(lsn, &wal)?,
            ContentItem::ControlFile(bytes) => {
                self.control = Some(
                    ControlFile::parse(&bytes).map_err(|error| DerivedError::Import(error.to_string()))?,
                );
                self.put(&MetaKey::Volume(VolumeItem::ControlFile), bytes);
            }
        }
        Ok(())
    }

    fn add_pages(
        &mut self,
        pages: &Bytes,
        first: u32,
        key: impl Fn(u32) -> PageKey,
    ) -> Result<(), DerivedError> {
        let (pages, rest) = pages.as_chunks::<BLOCK_SIZE>();
        if !rest.is_empty() {
            return Err(DerivedError::Import(format!(
                "{}: {} bytes behind the last whole page",
                key(first),
                rest.len()
            )));
        }
        for (number, page) in (first..).zip(pages) {
            let stored = StoredPage::from_page(Box::new(*page)).to_bytes();
            self.batch
                .put(Space::Pages, &key(number).to_bytes(), self.base.base.lsn, stored);
        }
        Ok(())
    }

    fn add_wal_prefix(&mut self, lsn: Lsn, wal: &Bytes) -> Result<(), DerivedError> {
        let end = lsn + wal.len() as u64;
        if end > self.base.base.lsn {
            return Err(DerivedError::Import(format!(
                "WAL up to {end}, behind the base at {}",
                self.base.base.lsn
            )));
        }
        let mut at = lsn;
        for piece in wal.chunks(WAL_PIECE_BYTES) {
            self.put(&MetaKey::WalPrefix(at), Bytes::copy_from_slice(piece));
            at = at + piece.len() as u64;
        }
        Ok(())
    }

    /// Syncs everything and makes this the complete store. Returns its directory.
    ///
    /// # Errors
    /// Something is missing, or the disk fails: then the store of before stays the complete one, if there was
    /// one.
    pub fn finish(mut self) -> Result<PathBuf, DerivedError> {
        let Some(control) = self.control.take() else {
            return Err(DerivedError::Import("pg_control is missing".to_owned()));
        };
        let found = control.facts();
        if found != self.base.facts {
            return Err(DerivedError::Import(format!(
                "pg_control is of {found:?}, announced was {:?}",
                self.base.facts
            )));
        }
        let applied = Mark {
            lsn: self.base.base.lsn,
            last_record_start: control.last_checkpoint(),
            checkpoint: control.checkpoint_state(),
        };
        self.put(&MetaKey::Volume(VolumeItem::Base), self.base.to_bytes().into());
        self.put(&MetaKey::Volume(VolumeItem::Applied), applied.to_bytes());
        self.store.commit(self.batch)?;
        self.store.flush(Space::Pages)?;
        self.store.flush(Space::Meta)?;
        let directory = self.root.join(&self.name);
        drop(self.store);
        sync_directory(&directory)?;
        replace_current(&self.root, &self.name)?;
        Ok(directory)
    }
}

fn sync_directory(path: &Path) -> Result<(), DerivedError> {
    fs::File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error("syncing", path, &error))
}

fn replace_current(root: &Path, name: &str) -> Result<(), DerivedError> {
    let path = root.join(CURRENT);
    let new = root.join("CURRENT.new");
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&new)?;
        file.write_all(name.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(|error| io_error("writing", &path, &error))?;
    sync_directory(root)
}
