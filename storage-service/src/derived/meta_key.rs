//! Names and values of what the store keeps beside pages, each version by the LSN of the change.

use bytes::Bytes;
use pg_quorum_types::{DatabaseKey, ForkNumber, Lsn, RelFileNode, RelFork};

/// What a versioned value is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MetaKey {
    /// Blocks of a fork that exists: LE u32.
    Size(RelFork),
    /// A database's folder in a tablespace: its `PG_VERSION`.
    Database(DatabaseKey),
    /// The `pg_filenode.map` in such a folder.
    RelationMap(DatabaseKey),
    /// A tablespace: its location, empty if it is in place.
    Tablespace(u32),
    /// A prepared transaction: start LE u64, end LE u64, the two-phase state.
    Prepared(u32),
    /// A replication origin: remote LSN LE u64, local LSN LE u64.
    Origin(u32),
    /// A file by its path in PGDATA: its content.
    File(String),
    /// Per WAL segment number: the end (LE u64) of the last record that ends at or below its start.
    SegmentBoundary(u64),
    /// WAL of the base's segment before the base, in pieces: the bytes that start at this LSN.
    WalPrefix(Lsn),
    /// What belongs to the volume as a whole.
    Volume(VolumeItem),
    /// Pages and sizes that were dropped but not deleted yet, by the LSN of the drop and a number: see
    /// [`crate::derived::resets`].
    Reset { lsn: Lsn, number: u32 },
}

/// Single items of a volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum VolumeItem {
    /// The import that the volume began with: JSON.
    Base = 0,
    /// `pg_control` as imported.
    ControlFile = 1,
    /// The state up to which everything is persisted: see [`crate::derived::marks`].
    Applied = 2,
}

const SIZE: u8 = 1;
const DATABASE: u8 = 2;
const RELATION_MAP: u8 = 3;
const TABLESPACE: u8 = 4;
const PREPARED: u8 = 5;
const ORIGIN: u8 = 6;
const FILE: u8 = 7;
const SEGMENT_BOUNDARY: u8 = 8;
const VOLUME: u8 = 9;
const RESET: u8 = 10;
const WAL_PREFIX: u8 = 11;

impl MetaKey {
    /// The stored form: a tag, then fixed big-endian fields, or a length in front of text. No key is
    /// another one's prefix, and keys of one kind stand together.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            MetaKey::Size(fork) => tagged(
                SIZE,
                &[
                    &fork.rel.spc.to_be_bytes(),
                    &fork.rel.db.to_be_bytes(),
                    &fork.rel.rel.to_be_bytes(),
                    &[fork.fork as u8],
                ],
            ),
            MetaKey::Database(key) => tagged(DATABASE, &[&key.spc.to_be_bytes(), &key.db.to_be_bytes()]),
            MetaKey::RelationMap(key) => {
                tagged(RELATION_MAP, &[&key.spc.to_be_bytes(), &key.db.to_be_bytes()])
            }
            MetaKey::Tablespace(spc) => tagged(TABLESPACE, &[&spc.to_be_bytes()]),
            MetaKey::Prepared(xid) => tagged(PREPARED, &[&xid.to_be_bytes()]),
            MetaKey::Origin(origin) => tagged(ORIGIN, &[&origin.to_be_bytes()]),
            MetaKey::File(path) => tagged(FILE, &[&(path.len() as u32).to_be_bytes(), path.as_bytes()]),
            MetaKey::SegmentBoundary(number) => tagged(SEGMENT_BOUNDARY, &[&number.to_be_bytes()]),
            MetaKey::WalPrefix(lsn) => tagged(WAL_PREFIX, &[&lsn.0.to_be_bytes()]),
            MetaKey::Volume(item) => vec![VOLUME, *item as u8],
            MetaKey::Reset { lsn, number } => tagged(RESET, &[&lsn.0.to_be_bytes(), &number.to_be_bytes()]),
        }
    }

    /// The inverse of [`MetaKey::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<MetaKey> {
        let (&tag, rest) = bytes.split_first()?;
        let word = |at: usize| Some(u32::from_be_bytes(*rest.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_be_bytes(*rest.get(at..)?.first_chunk()?));
        let database = || {
            Some(DatabaseKey {
                spc: word(0)?,
                db: word(4)?,
            })
        };
        match tag {
            SIZE => Some(MetaKey::Size(RelFork {
                rel: RelFileNode {
                    spc: word(0)?,
                    db: word(4)?,
                    rel: word(8)?,
                },
                fork: ForkNumber::from_number(*rest.get(12)?)?,
            })),
            DATABASE => Some(MetaKey::Database(database()?)),
            RELATION_MAP => Some(MetaKey::RelationMap(database()?)),
            TABLESPACE => Some(MetaKey::Tablespace(word(0)?)),
            PREPARED => Some(MetaKey::Prepared(word(0)?)),
            ORIGIN => Some(MetaKey::Origin(word(0)?)),
            FILE => Some(MetaKey::File(String::from_utf8(rest.get(4..)?.to_vec()).ok()?)),
            SEGMENT_BOUNDARY => Some(MetaKey::SegmentBoundary(long(0)?)),
            WAL_PREFIX => Some(MetaKey::WalPrefix(Lsn(long(0)?))),
            VOLUME => Some(MetaKey::Volume(match rest.first()? {
                0 => VolumeItem::Base,
                1 => VolumeItem::ControlFile,
                2 => VolumeItem::Applied,
                _ => return None,
            })),
            RESET => Some(MetaKey::Reset {
                lsn: Lsn(long(0)?),
                number: word(8)?,
            }),
            _ => None,
        }
    }
}

fn tagged(tag: u8, fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![tag];
    for field in fields {
        bytes.extend_from_slice(field);
    }
    bytes
}

/// A range of stored keys, the end exclusive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaRange {
    pub from: Vec<u8>,
    pub to: Vec<u8>,
}

impl MetaRange {
    fn of_tag(tag: u8) -> MetaRange {
        MetaRange {
            from: vec![tag],
            to: vec![tag + 1],
        }
    }

    /// Sizes of all forks.
    pub fn sizes() -> MetaRange {
        MetaRange::of_tag(SIZE)
    }

    /// Sizes of all forks of one database in one tablespace.
    pub fn sizes_of(database: DatabaseKey) -> MetaRange {
        let prefix = tagged(SIZE, &[&database.spc.to_be_bytes(), &database.db.to_be_bytes()]);
        MetaRange {
            to: after_prefix(&prefix),
            from: prefix,
        }
    }

    /// Everything that a compute needs beside sizes and single items.
    pub fn content() -> MetaRange {
        MetaRange {
            from: vec![DATABASE],
            to: vec![SEGMENT_BOUNDARY],
        }
    }

    pub fn resets() -> MetaRange {
        MetaRange::of_tag(RESET)
    }

    pub fn wal_prefix() -> MetaRange {
        MetaRange::of_tag(WAL_PREFIX)
    }

    /// All versions of one key.
    pub fn of_key(key: &[u8]) -> MetaRange {
        MetaRange {
            from: key.to_vec(),
            to: after_prefix(key),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.from.as_slice() <= key && key < self.to.as_slice()
    }
}

/// The first key that is above all keys with this prefix.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; prefix.len() + 16]
}

/// A versioned value; `None` is "does not exist from here on".
pub type MetaValue = Option<Bytes>;

/// The stored form: `0`, or `1` and the value.
pub fn encode_value(value: &MetaValue) -> Bytes {
    match value {
        None => Bytes::from_static(&[0]),
        Some(value) => [&[1], &value[..]].concat().into(),
    }
}

/// The inverse of [`encode_value`]; `None` for bytes that it never makes.
pub fn decode_value(bytes: &Bytes) -> Option<MetaValue> {
    match bytes.first()? {
        0 if bytes.len() == 1 => Some(None),
        1 => Some(Some(bytes.slice(1..))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Vec<MetaKey> {
        let database = DatabaseKey { spc: 1663, db: 5 };
        let fork = RelFork {
            rel: RelFileNode {
                spc: 1663,
                db: 5,
                rel: 16384,
            },
            fork: ForkNumber::VisibilityMap,
        };
        vec![
            MetaKey::Size(fork),
            MetaKey::Database(database),
            MetaKey::RelationMap(database),
            MetaKey::Tablespace(16400),
            MetaKey::Prepared(731),
            MetaKey::Origin(2),
            MetaKey::File("pg_wal/00000002.history".to_owned()),
            MetaKey::SegmentBoundary(77),
            MetaKey::WalPrefix(Lsn(0x300_0000)),
            MetaKey::Volume(VolumeItem::Applied),
            MetaKey::Reset {
                lsn: Lsn(900),
                number: 3,
            },
        ]
    }

    #[test]
    fn keys_come_back_unchanged() {
        for key in keys() {
            assert_eq!(MetaKey::from_bytes(&key.to_bytes()), Some(key));
        }
        assert_eq!(MetaKey::from_bytes(&[]), None);
        assert_eq!(MetaKey::from_bytes(&[SIZE, 0, 0]), None);
    }

    #[test]
    fn no_key_is_the_prefix_of_another() {
        let mut stored: Vec<_> = keys().iter().map(MetaKey::to_bytes).collect();
        stored.push(MetaKey::File("pg_wal/00000002.history.more".to_owned()).to_bytes());
        for (index, key) in stored.iter().enumerate() {
            for (other_index, other) in stored.iter().enumerate() {
                assert!(index == other_index || !other.starts_with(key));
            }
        }
    }

    #[test]
    fn the_sizes_of_a_database_are_one_range() {
        let range = MetaRange::sizes_of(DatabaseKey {
            spc: 1663,
            db: u32::MAX,
        });
        let size = |db| {
            MetaKey::Size(RelFork {
                rel: RelFileNode {
                    spc: 1663,
                    db,
                    rel: 1,
                },
                fork: ForkNumber::Main,
            })
        };
        assert!(range.contains(&size(u32::MAX).to_bytes()));
        assert!(!range.contains(&size(5).to_bytes()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(tag in 0..14_u8, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let bytes = [&[tag], &bytes[..]].concat();
            if let Some(key) = MetaKey::from_bytes(&bytes) {
                prop_assert_eq!(MetaKey::from_bytes(&key.to_bytes()), Some(key));
            }
            let bytes = Bytes::from(bytes);
            if let Some(value) = decode_value(&bytes) {
                prop_assert_eq!(encode_value(&value), bytes);
            }
        }
    }
}
