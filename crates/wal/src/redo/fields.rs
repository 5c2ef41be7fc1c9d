//! Checked little-endian reads of record data.

use pg_quorum_types::RelFileNode;

use super::error::RedoFault;

/// The part of a record's data that has not been read yet.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Fields<'a> {
        Fields { data, at: 0 }
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], RedoFault> {
        let end = self.at.saturating_add(len);
        let bytes = self.data.get(self.at..end).ok_or(RedoFault::RecordTooShort {
            needed: end,
            available: self.data.len(),
        })?;
        self.at = end;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RedoFault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, RedoFault> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, RedoFault> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, RedoFault> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, RedoFault> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn f64(&mut self) -> Result<f64, RedoFault> {
        self.array().map(f64::from_le_bytes)
    }

    /// A C `bool`.
    #[inline]
    pub(crate) fn bool(&mut self) -> Result<bool, RedoFault> {
        self.u8().map(|byte| byte != 0)
    }

    /// `BlockIdData`: a block number at an even offset, its high half first.
    pub(crate) fn block_id(&mut self) -> Result<u32, RedoFault> {
        let high = u32::from(self.u16()?);
        Ok(high << 16 | u32::from(self.u16()?))
    }

    pub(crate) fn rel_file_node(&mut self) -> Result<RelFileNode, RedoFault> {
        Ok(RelFileNode {
            spc: self.u32()?,
            db: self.u32()?,
            rel: self.u32()?,
        })
    }

    /// Skips padding up to a multiple of `alignment`, counted from the start of the data.
    pub(crate) fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    /// `count` consecutive `u16` numbers, such as line pointer offsets.
    pub(crate) fn u16_array(&mut self, count: usize) -> Result<U16Array<'a>, RedoFault> {
        Ok(U16Array {
            bytes: self.take(count.saturating_mul(2))?,
        })
    }

    /// Everything that is left, without reading it.
    pub(crate) fn peek(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.peek();
        self.at = self.data.len();
        rest
    }

    pub(crate) fn remaining(&self) -> usize {
        self.data.len().saturating_sub(self.at)
    }

    /// Everything was read.
    pub(crate) fn finish(&self) -> Result<(), RedoFault> {
        match self.remaining() {
            0 => Ok(()),
            extra => Err(RedoFault::RecordTooLong { extra }),
        }
    }
}

/// Unaligned `u16` numbers inside a record.
#[derive(Clone, Copy)]
pub(crate) struct U16Array<'a> {
    bytes: &'a [u8],
}

impl<'a> U16Array<'a> {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / 2
    }

    pub(crate) fn iter(self) -> U16Iter<'a> {
        self.into_iter()
    }
}

/// The numbers of a [`U16Array`].
pub(crate) type U16Iter<'a> = std::iter::Map<std::slice::ChunksExact<'a, u8>, fn(&[u8]) -> u16>;

impl<'a> IntoIterator for U16Array<'a> {
    type Item = u16;
    type IntoIter = U16Iter<'a>;

    fn into_iter(self) -> U16Iter<'a> {
        self.bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
    }
}
