//! Multixact records.

use crate::{Record, WalError};

/// The largest `MultiXactStatus`.
const MAX_STATUS: u32 = 5;
/// `sizeof(MultiXactMember)`: xid u32 | status i32.
const MEMBER_BYTES: usize = 8;

/// `xl_multixact_create`: a new multixact and its members.
pub(crate) struct MultiXactCreation<'a> {
    pub multi: u32,
    /// Offset of the first member in the members area; 0 is never used.
    pub offset: u32,
    members: &'a [u8],
}

/// One member: who, and how strongly it locks.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub xid: u32,
    /// `MultiXactStatus`.
    pub status: u8,
}

impl<'a> MultiXactCreation<'a> {
    pub(crate) fn parse(record: &'a Record<'_>) -> Result<MultiXactCreation<'a>, WalError> {
        let mut reader = record.main_reader();
        let multi = reader.u32()?;
        let offset = reader.u32()?;
        let members = reader.count(MEMBER_BYTES)?;
        let creation = MultiXactCreation {
            multi,
            offset,
            members: reader.bytes(members * MEMBER_BYTES)?,
        };
        if creation.raw_members().any(|(_, status)| status > MAX_STATUS) {
            return Err(reader.bad("a multixact member with a status that does not exist"));
        }
        Ok(creation)
    }

    pub(crate) fn member_count(&self) -> u32 {
        (self.members.len() / MEMBER_BYTES) as u32
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.raw_members().map(|(xid, status)| Member {
            xid,
            status: status as u8,
        })
    }

    fn raw_members(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.members.chunks_exact(MEMBER_BYTES).map(|member| {
            let word =
                |at: usize| u32::from_le_bytes([member[at], member[at + 1], member[at + 2], member[at + 3]]);
            (word(0), word(4))
        })
    }

    /// Where the next multixact's members begin, as its offset entry says it: offset 0 is skipped.
    pub(crate) fn next_offset_entry(&self) -> u32 {
        match self.offset.wrapping_add(self.member_count()) {
            0 => 1,
            next => next,
        }
    }
}

/// `xl_multixact_truncate`.
pub(crate) struct MultiXactTruncation {
    pub oldest_multi_database: u32,
    /// The oldest multixact that stays.
    pub oldest_multi: u32,
    /// Member offsets from here on go, up to the other one.
    pub first_member: u32,
    pub end_member: u32,
}

impl MultiXactTruncation {
    pub(crate) fn parse(record: &Record<'_>) -> Result<MultiXactTruncation, WalError> {
        let mut reader = record.main_reader();
        let oldest_multi_database = reader.u32()?;
        reader.skip(4)?; // startTruncOff
        Ok(MultiXactTruncation {
            oldest_multi_database,
            oldest_multi: reader.u32()?,
            first_member: reader.u32()?,
            end_member: reader.u32()?,
        })
    }
}
