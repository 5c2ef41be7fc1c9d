//! Databases, tablespaces, relation maps: folders and files beside the relations.

use bytes::Bytes;
use pg_quorum_types::DatabaseKey;

use crate::v15::kind::{database, relmap, tablespace};
use crate::{Record, WalError};

use super::{Effects, MetaChange, unknown};

/// `sizeof(RelMapFile)`, 15.18.
const RELATION_MAP_BYTES: usize = 512;

/// `dbase_redo`, 15.18.
pub(super) fn add_database(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    let mut reader = record.main_reader();
    let db = reader.u32()?;
    match record.kind() {
        database::CREATE_FILE_COPY => {
            // db_id | tablespace_id | src_db_id | src_tablespace_id
            let to = DatabaseKey {
                db,
                spc: reader.u32()?,
            };
            let from = DatabaseKey {
                db: reader.u32()?,
                spc: reader.u32()?,
            };
            effects.meta.push(MetaChange::DatabaseCopied { from, to });
        }
        database::CREATE_WAL_LOG => {
            let database = DatabaseKey {
                db,
                spc: reader.u32()?,
            };
            effects.meta.push(MetaChange::DatabaseCreated { database });
        }
        database::DROP => {
            for _ in 0..reader.count(4)? {
                let database = DatabaseKey {
                    db,
                    spc: reader.u32()?,
                };
                effects.meta.push(MetaChange::DatabaseDropped { database });
            }
        }
        _ => return Err(unknown(record)),
    }
    Ok(())
}

/// `tblspc_redo`, 15.18. The path is what CREATE TABLESPACE was given, in no particular encoding.
pub(super) fn add_tablespace(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    let mut reader = record.main_reader();
    let spc = reader.u32()?;
    match record.kind() {
        tablespace::CREATE => {
            // xl_tblspc_create_rec: ts_id u32 | ts_path, a C string
            let rest = reader.bytes(reader.remaining())?;
            let length = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let location = Bytes::copy_from_slice(&rest[..length]);
            effects.meta.push(MetaChange::TablespaceCreated { spc, location });
        }
        tablespace::DROP => effects.meta.push(MetaChange::TablespaceDropped { spc }),
        _ => return Err(unknown(record)),
    }
    Ok(())
}

/// `relmap_redo`, 15.18: the record has the file as it is, checksum included.
pub(super) fn add_relation_map(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    if record.kind() != relmap::UPDATE {
        return Err(unknown(record));
    }
    let mut reader = record.main_reader();
    let db = reader.u32()?;
    let spc = reader.u32()?;
    if reader.count(1)? != RELATION_MAP_BYTES {
        return Err(reader.bad("a relation map of another size"));
    }
    let map = Bytes::copy_from_slice(reader.bytes(RELATION_MAP_BYTES)?);
    effects.meta.push(MetaChange::RelationMapUpdated {
        database: DatabaseKey { spc, db },
        map,
    });
    Ok(())
}
