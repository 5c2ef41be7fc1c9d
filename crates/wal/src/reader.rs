//! Checked little-endian reads from a record's bytes.
//!
//! The only way in which this crate looks into WAL: a read behind the end is an error that carries the
//! record's LSN and the offset, never a panic.

use pg_quorum_types::{Lsn, RelFileNode};

use crate::WalError;

/// A cursor over a part of a record.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    /// What has not been read.
    rest: &'a [u8],
    /// Of all, at first.
    length: usize,
    /// The record's start, for errors.
    lsn: Lsn,
    /// Offset of `bytes` in the record, for errors.
    base_offset: usize,
}

macro_rules! little_endian {
    ($($name:ident: $type:ty),*) => {
        $(#[inline]
        pub(crate) fn $name(&mut self) -> Result<$type, WalError> {
            self.array().map(|bytes| <$type>::from_le_bytes(*bytes))
        })*
    };
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which begin at `base_offset` of the record at `lsn`.
    pub(crate) fn new(bytes: &'a [u8], lsn: Lsn, base_offset: usize) -> Reader<'a> {
        Reader {
            rest: bytes,
            length: bytes.len(),
            lsn,
            base_offset,
        }
    }

    little_endian!(u8: u8, u16: u16, u32: u32, u64: u64, i32: i32, i64: i64);

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], WalError> {
        match self.rest.split_first_chunk::<N>() {
            Some((chunk, rest)) => {
                self.rest = rest;
                Ok(chunk)
            }
            None => Err(self.short(N)),
        }
    }

    pub(crate) fn lsn(&mut self) -> Result<Lsn, WalError> {
        self.u64().map(Lsn)
    }

    /// A C `bool`.
    pub(crate) fn bool(&mut self) -> Result<bool, WalError> {
        Ok(self.u8()? != 0)
    }

    pub(crate) fn rel_file_node(&mut self) -> Result<RelFileNode, WalError> {
        let bytes = self.array::<12>()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(RelFileNode {
            spc: word(0),
            db: word(4),
            rel: word(8),
        })
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], WalError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.short(length));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn skip(&mut self, length: usize) -> Result<(), WalError> {
        self.bytes(length).map(|_| ())
    }

    /// A count as C's `int`, followed by that many items of `item_bytes` each: refused here when they
    /// cannot be there, so that no caller reserves memory for a number that was never written.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, WalError> {
        let count = self.i32()?;
        let count = usize::try_from(count).map_err(|_| self.bad("a negative count"))?;
        match count.checked_mul(item_bytes) {
            Some(bytes) if bytes <= self.remaining() => Ok(count),
            _ => Err(self.short(count.saturating_mul(item_bytes))),
        }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    /// An error at the current place.
    #[cold]
    pub(crate) fn bad(&self, problem: &'static str) -> WalError {
        WalError::BadRecord {
            lsn: self.lsn,
            offset: self.base_offset + self.position(),
            problem,
        }
    }

    #[cold]
    fn short(&self, wanted: usize) -> WalError {
        WalError::ShortRecord {
            lsn: self.lsn,
            offset: self.base_offset + self.position(),
            wanted,
            available: self.remaining(),
        }
    }
}
