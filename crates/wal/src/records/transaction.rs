//! Commit, abort and prepare records.

use pg_quorum_types::{Lsn, RelFileNode};

use crate::reader::Reader;
use crate::v15::kind::transaction as kind;
use crate::{Record, WalError};

const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_ORIGIN: u32 = 1 << 5;
const HAS_GID: u32 = 1 << 7;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;

/// `sizeof(RelFileNode)`.
const RELATION_BYTES: usize = 12;
/// `sizeof(xl_xact_stats_item)`.
const STATISTICS_ITEM_BYTES: usize = 12;
/// `sizeof(SharedInvalidationMessage)`.
const INVALIDATION_BYTES: usize = 16;

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
}

/// A list of transaction ids in a record.
#[derive(Clone, Copy)]
pub(crate) struct Xids<'a>(&'a [u8]);

impl Xids<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0
            .chunks_exact(4)
            .map(|xid| u32::from_le_bytes([xid[0], xid[1], xid[2], xid[3]]))
    }

    /// `n` ids.
    pub(crate) fn read<'a>(reader: &mut Reader<'a>, n: usize) -> Result<Xids<'a>, WalError> {
        reader.bytes(n.saturating_mul(4)).map(Xids)
    }
}

/// A commit or abort record, of a prepared transaction or not (`ParseCommitRecord`, `ParseAbortRecord`,
/// 15.18).
pub(crate) struct Completion<'a> {
    pub outcome: Outcome,
    /// The top-level transaction, or the subtransaction that an abort names.
    pub xid: u32,
    pub subtransactions: Xids<'a>,
    relations: &'a [u8],
    /// Whether the transaction had been prepared.
    pub was_prepared: bool,
    /// `TimestampTz`.
    pub time: i64,
    /// Where the transaction stands at the node that it was replicated from.
    pub origin: Option<CompletionOrigin>,
}

pub(crate) struct CompletionOrigin {
    pub remote_lsn: Lsn,
    /// `TimestampTz`.
    pub time: i64,
}

impl<'a> Completion<'a> {
    /// `None` for records of the Transaction resource manager that end none.
    pub(crate) fn parse(record: &'a Record<'_>) -> Result<Option<Completion<'a>>, WalError> {
        let (outcome, was_prepared) = match record.info & kind::OPERATION_MASK {
            kind::COMMIT => (Outcome::Committed, false),
            kind::COMMIT_PREPARED => (Outcome::Committed, true),
            kind::ABORT => (Outcome::Aborted, false),
            kind::ABORT_PREPARED => (Outcome::Aborted, true),
            _ => return Ok(None),
        };
        let mut reader = record.main_reader();
        let time = reader.i64()?;
        let has = match record.info & kind::HAS_INFO {
            0 => 0,
            _ => reader.u32()?,
        };
        if has & HAS_DATABASE != 0 {
            reader.skip(8)?;
        }
        let mut subtransactions = Xids(&[]);
        if has & HAS_SUBTRANSACTIONS != 0 {
            let n = reader.count(4)?;
            subtransactions = Xids::read(&mut reader, n)?;
        }
        let mut relations: &[u8] = &[];
        if has & HAS_RELATIONS != 0 {
            let n = reader.count(RELATION_BYTES)?;
            relations = reader.bytes(n * RELATION_BYTES)?;
        }
        if has & HAS_DROPPED_STATISTICS != 0 {
            let n = reader.count(STATISTICS_ITEM_BYTES)?;
            reader.skip(n * STATISTICS_ITEM_BYTES)?;
        }
        if has & HAS_INVALIDATIONS != 0 && outcome == Outcome::Committed {
            let n = reader.count(INVALIDATION_BYTES)?;
            reader.skip(n * INVALIDATION_BYTES)?;
        }
        let mut xid = record.xid;
        if has & HAS_TWO_PHASE != 0 {
            let prepared_xid = reader.u32()?;
            if was_prepared {
                xid = prepared_xid;
            }
            if has & HAS_GID != 0 {
                while reader.u8()? != 0 {}
            }
        } else if was_prepared {
            return Err(reader.bad("the end of a prepared transaction that names none"));
        }
        let mut origin = None;
        if has & HAS_ORIGIN != 0 {
            origin = Some(CompletionOrigin {
                remote_lsn: reader.lsn()?,
                time: reader.i64()?,
            });
        }
        if xid == 0 {
            return Err(reader.bad("the end of a transaction that has no id"));
        }
        Ok(Some(Completion {
            outcome,
            xid,
            subtransactions,
            relations,
            was_prepared,
            time,
            origin,
        }))
    }

    /// The transaction and its subtransactions.
    pub(crate) fn xids(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.xid).chain(self.subtransactions.iter())
    }

    /// Relations that are dropped with the end of the transaction.
    pub(crate) fn dropped_relations(&self) -> impl Iterator<Item = RelFileNode> + '_ {
        self.relations.chunks_exact(RELATION_BYTES).map(|rel| {
            let word = |at: usize| u32::from_le_bytes([rel[at], rel[at + 1], rel[at + 2], rel[at + 3]]);
            RelFileNode {
                spc: word(0),
                db: word(4),
                rel: word(8),
            }
        })
    }
}

/// A prepare record: the two-phase state that a file would hold (`ParsePrepareRecord`, 15.18).
///
/// ```text
/// 0 magic u32 | 4 total_len u32 | 8 xid u32 | 12 database u32 | 16 prepared_at i64 | 24 owner u32
/// 28 nsubxacts i32 | 32 five more counts | 52 bool | 54 gidlen u16 | 56 origin_lsn u64 | 64 origin time i64
/// 72 gid, padded to eight | subtransaction ids, padded | ...
/// ```
pub(crate) struct Preparation<'a> {
    pub xid: u32,
    pub subtransactions: Xids<'a>,
    pub origin_lsn: Lsn,
}

impl<'a> Preparation<'a> {
    pub(crate) fn parse(record: &'a Record<'_>) -> Result<Preparation<'a>, WalError> {
        let mut reader = record.main_reader();
        reader.skip(8)?;
        let xid = reader.u32()?;
        reader.skip(4 + 8 + 4)?;
        let subtransactions =
            usize::try_from(reader.i32()?).map_err(|_| reader.bad("a negative number of subtransactions"))?;
        reader.skip(5 * 4 + 2)?;
        let gid_bytes = usize::from(reader.u16()?);
        let origin_lsn = reader.lsn()?;
        reader.skip(8)?;
        reader.skip(gid_bytes.next_multiple_of(8))?;
        Ok(Preparation {
            xid,
            subtransactions: Xids::read(&mut reader, subtransactions)?,
            origin_lsn,
        })
    }
}
