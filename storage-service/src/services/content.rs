//! Items of a volume's content, between wire and domain.

use pg_quorum_proto::convert::WireError;
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::state_item::{self, Item};
use pg_quorum_types::{DatabaseKey, Lsn, RelFork, SlruKind};

use crate::derived::ContentItem;

fn fork(wire: Option<v1::RelationFork>) -> Result<RelFork, WireError> {
    wire.ok_or(WireError::Missing("an item's fork"))?.try_into()
}

/// From the wire.
///
/// # Errors
/// An item that means nothing.
pub fn content_item(wire: v1::StateItem) -> Result<ContentItem, WireError> {
    Ok(match wire.item.ok_or(WireError::Missing("an item's content"))? {
        Item::RelationSize(item) => ContentItem::RelationSize {
            fork: fork(item.fork)?,
            blocks: item.blocks,
        },
        Item::RelationPages(item) => ContentItem::RelationPages {
            fork: fork(item.fork)?,
            first_block: item.first_block,
            pages: item.pages,
        },
        Item::SlruPages(item) => ContentItem::SlruPages {
            kind: slru_kind(item.kind)?,
            first_page: item.first_page,
            pages: item.pages,
        },
        Item::Database(item) => ContentItem::Database {
            database: DatabaseKey {
                spc: item.spc,
                db: item.db,
            },
            version_file: item.version_file,
            relation_map: item.relation_map,
        },
        Item::Tablespace(item) => ContentItem::Tablespace {
            spc: item.spc,
            location: item.location,
        },
        Item::PreparedTransaction(item) => ContentItem::PreparedTransaction {
            xid: item.xid,
            start: Lsn(item.prepare_start_lsn),
            end: Lsn(item.prepare_end_lsn),
            state: item.state,
        },
        Item::ReplicationOrigin(item) => ContentItem::ReplicationOrigin {
            origin: item.origin,
            remote_lsn: Lsn(item.remote_lsn),
            local_lsn: Lsn(item.local_lsn),
        },
        Item::File(item) => ContentItem::File {
            path: item.path,
            content: item.content,
        },
        Item::WalPrefix(item) => ContentItem::WalPrefix {
            lsn: Lsn(item.lsn),
            wal: item.wal,
        },
        Item::ControlFile(bytes) => ContentItem::ControlFile(bytes),
    })
}

fn slru_kind(number: u32) -> Result<SlruKind, WireError> {
    u8::try_from(number)
        .ok()
        .and_then(SlruKind::from_number)
        .ok_or(WireError::OutOfRange {
            what: "the kind of an SLRU",
            value: number.into(),
        })
}

/// To the wire.
pub fn state_item(item: ContentItem) -> v1::StateItem {
    let item = match item {
        ContentItem::RelationSize { fork, blocks } => Item::RelationSize(state_item::RelationSize {
            fork: Some(fork.into()),
            blocks,
        }),
        ContentItem::RelationPages {
            fork,
            first_block,
            pages,
        } => Item::RelationPages(state_item::RelationPages {
            fork: Some(fork.into()),
            first_block,
            pages,
        }),
        ContentItem::SlruPages {
            kind,
            first_page,
            pages,
        } => Item::SlruPages(state_item::SlruPages {
            kind: kind as u32,
            first_page,
            pages,
        }),
        ContentItem::Database {
            database,
            version_file,
            relation_map,
        } => Item::Database(state_item::Database {
            spc: database.spc,
            db: database.db,
            version_file,
            relation_map,
        }),
        ContentItem::Tablespace { spc, location } => {
            Item::Tablespace(state_item::Tablespace { spc, location })
        }
        ContentItem::PreparedTransaction {
            xid,
            start,
            end,
            state,
        } => Item::PreparedTransaction(state_item::PreparedTransaction {
            xid,
            prepare_start_lsn: start.0,
            prepare_end_lsn: end.0,
            state,
        }),
        ContentItem::ReplicationOrigin {
            origin,
            remote_lsn,
            local_lsn,
        } => Item::ReplicationOrigin(state_item::ReplicationOrigin {
            origin,
            remote_lsn: remote_lsn.0,
            local_lsn: local_lsn.0,
        }),
        ContentItem::File { path, content } => Item::File(state_item::File { path, content }),
        ContentItem::WalPrefix { lsn, wal } => Item::WalPrefix(state_item::WalPrefix { lsn: lsn.0, wal }),
        ContentItem::ControlFile(bytes) => Item::ControlFile(bytes),
    };
    v1::StateItem { item: Some(item) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use pg_quorum_types::{ForkNumber, RelFileNode};

    #[test]
    fn items_survive_the_wire() {
        let fork = RelFork {
            rel: RelFileNode {
                spc: 1663,
                db: 5,
                rel: 16384,
            },
            fork: ForkNumber::Init,
        };
        let bytes = Bytes::from_static(b"bytes");
        let items = [
            ContentItem::RelationSize { fork, blocks: 7 },
            ContentItem::RelationPages {
                fork,
                first_block: 3,
                pages: bytes.clone(),
            },
            ContentItem::SlruPages {
                kind: SlruKind::CommitTs,
                first_page: 9,
                pages: bytes.clone(),
            },
            ContentItem::Database {
                database: DatabaseKey { spc: 1663, db: 5 },
                version_file: bytes.clone(),
                relation_map: bytes.clone(),
            },
            ContentItem::Tablespace {
                spc: 16400,
                location: Bytes::from_static(b"/srv/sch\xF6n"), // LATIN1
            },
            ContentItem::PreparedTransaction {
                xid: 741,
                start: Lsn(8),
                end: Lsn(16),
                state: bytes.clone(),
            },
            ContentItem::ReplicationOrigin {
                origin: 1,
                remote_lsn: Lsn(8),
                local_lsn: Lsn(16),
            },
            ContentItem::File {
                path: "pg_wal/00000002.history".to_owned(),
                content: bytes.clone(),
            },
            ContentItem::WalPrefix {
                lsn: Lsn(0x300_0000),
                wal: bytes.clone(),
            },
            ContentItem::ControlFile(bytes),
        ];
        for item in items {
            assert_eq!(content_item(state_item(item.clone())), Ok(item));
        }
    }

    #[test]
    fn an_empty_item_is_refused() {
        assert!(content_item(v1::StateItem { item: None }).is_err());
    }
}
