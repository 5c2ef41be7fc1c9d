//! Names of pages.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// PostgreSQL's `BLCKSZ`, bytes. Servers built with another size are refused.
pub const BLOCK_SIZE: usize = 8192;

/// A relation's physical name (PostgreSQL 15's `RelFileNode`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RelFileNode {
    /// Tablespace OID.
    pub spc: u32,
    /// Database OID, zero for shared relations.
    pub db: u32,
    /// Relation file number.
    pub rel: u32,
}

/// Two words in place of the three that are derived: each one is a multiplication that waits for the one before.
impl Hash for RelFileNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(word(self.spc, self.db));
        state.write_u32(self.rel);
    }
}

fn word(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl fmt::Display for RelFileNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.spc, self.db, self.rel)
    }
}

impl fmt::Debug for RelFileNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A database's files in one tablespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DatabaseKey {
    pub spc: u32,
    pub db: u32,
}

/// A relation's fork (PostgreSQL's `ForkNumber`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum ForkNumber {
    Main = 0,
    FreeSpaceMap = 1,
    VisibilityMap = 2,
    Init = 3,
}

impl ForkNumber {
    pub const ALL: [ForkNumber; 4] = [
        ForkNumber::Main,
        ForkNumber::FreeSpaceMap,
        ForkNumber::VisibilityMap,
        ForkNumber::Init,
    ];

    /// From PostgreSQL's number; `None` above 3.
    pub fn from_number(number: u8) -> Option<ForkNumber> {
        ForkNumber::ALL.get(usize::from(number)).copied()
    }

    /// What stands behind the relation's number in a file name: empty, `_fsm`, `_vm`, `_init`.
    pub fn file_suffix(self) -> &'static str {
        match self {
            ForkNumber::Main => "",
            ForkNumber::FreeSpaceMap => "_fsm",
            ForkNumber::VisibilityMap => "_vm",
            ForkNumber::Init => "_init",
        }
    }
}

/// One fork of one relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RelFork {
    pub rel: RelFileNode,
    pub fork: ForkNumber,
}

/// Two words, as for [`RelFileNode`].
impl Hash for RelFork {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(word(self.rel.spc, self.rel.db));
        state.write_u64(word(self.fork as u32, self.rel.rel));
    }
}

impl fmt::Display for RelFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.rel, self.fork.file_suffix())
    }
}

/// The logs of transaction state that PostgreSQL keeps in pages without headers (`slru.c`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum SlruKind {
    Clog = 0,
    MultiXactOffset = 1,
    MultiXactMember = 2,
    CommitTs = 3,
}

impl SlruKind {
    pub const ALL: [SlruKind; 4] = [
        SlruKind::Clog,
        SlruKind::MultiXactOffset,
        SlruKind::MultiXactMember,
        SlruKind::CommitTs,
    ];

    /// From this enum's number; `None` above 3.
    pub fn from_number(number: u8) -> Option<SlruKind> {
        SlruKind::ALL.get(usize::from(number)).copied()
    }

    /// The directory in PGDATA that holds the pages, 32 to a file named with four hexadecimal digits.
    pub fn directory(self) -> &'static str {
        match self {
            SlruKind::Clog => "pg_xact",
            SlruKind::MultiXactOffset => "pg_multixact/offsets",
            SlruKind::MultiXactMember => "pg_multixact/members",
            SlruKind::CommitTs => "pg_commit_ts",
        }
    }
}

/// Bytes of [`PageKey::to_bytes`].
pub const PAGE_KEY_BYTES: usize = 18;

/// One page of the volume: the unit that redo changes and that is stored and served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PageKey {
    Relation { rel: RelFork, block: u32 },
    Slru { kind: SlruKind, page: u32 },
}

/// Three words, as for [`RelFileNode`].
impl Hash for PageKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            PageKey::Relation { rel, block } => {
                rel.hash(state);
                state.write_u32(*block);
            }
            PageKey::Slru { kind, page } => state.write_u64(word(*kind as u32 + 1, *page)),
        }
    }
}

impl PageKey {
    pub const fn relation(rel: RelFileNode, fork: ForkNumber, block: u32) -> PageKey {
        PageKey::Relation {
            rel: RelFork { rel, fork },
            block,
        }
    }

    /// The stored form; byte order is key order, a relation's pages stand together.
    ///
    /// ```text
    /// 0 | spc BE u32 | db BE u32 | rel BE u32 | fork u8 | block BE u32
    /// 1 | kind u8    | page BE u32 | zeros
    /// ```
    pub fn to_bytes(self) -> [u8; PAGE_KEY_BYTES] {
        let mut bytes = [0; PAGE_KEY_BYTES];
        match self {
            PageKey::Relation {
                rel: RelFork { rel, fork },
                block,
            } => {
                bytes[1..5].copy_from_slice(&rel.spc.to_be_bytes());
                bytes[5..9].copy_from_slice(&rel.db.to_be_bytes());
                bytes[9..13].copy_from_slice(&rel.rel.to_be_bytes());
                bytes[13] = fork as u8;
                bytes[14..18].copy_from_slice(&block.to_be_bytes());
            }
            PageKey::Slru { kind, page } => {
                bytes[0] = 1;
                bytes[1] = kind as u8;
                bytes[2..6].copy_from_slice(&page.to_be_bytes());
            }
        }
        bytes
    }

    /// The inverse of [`PageKey::to_bytes`]; `None` for bytes that it never makes.
    pub fn from_bytes(bytes: &[u8; PAGE_KEY_BYTES]) -> Option<PageKey> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        match bytes[0] {
            0 => Some(PageKey::relation(
                RelFileNode {
                    spc: word(1),
                    db: word(5),
                    rel: word(9),
                },
                ForkNumber::from_number(bytes[13])?,
                word(14),
            )),
            1 if bytes[6..] == [0; 12] => Some(PageKey::Slru {
                kind: SlruKind::from_number(bytes[1])?,
                page: word(2),
            }),
            _ => None,
        }
    }
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageKey::Relation { rel, block } => write!(f, "{rel} block {block}"),
            PageKey::Slru { kind, page } => write!(f, "{} page {page}", kind.directory()),
        }
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_page_keys_round_trip_and_keep_their_order() {
        let rel = |rel, fork, block| {
            PageKey::relation(
                RelFileNode {
                    spc: 1663,
                    db: 5,
                    rel,
                },
                fork,
                block,
            )
        };
        let keys = [
            rel(16384, ForkNumber::Main, 0),
            rel(16384, ForkNumber::Main, 256),
            rel(16384, ForkNumber::VisibilityMap, 0),
            rel(16385, ForkNumber::Main, 1),
            PageKey::Slru {
                kind: SlruKind::Clog,
                page: 7,
            },
            PageKey::Slru {
                kind: SlruKind::CommitTs,
                page: 0,
            },
        ];
        for pair in keys.windows(2) {
            assert!(pair[0].to_bytes() < pair[1].to_bytes());
        }
        for key in keys {
            assert_eq!(PageKey::from_bytes(&key.to_bytes()), Some(key));
        }
    }
}
