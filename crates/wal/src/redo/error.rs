//! Why a record cannot be replayed on a page.

/// What does not fit: the record, the page, or the one on the other.
///
/// PostgreSQL panics on most of these (`elog(PANIC)` in its redo routines) or relies on assertions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RedoFault {
    #[error("the record's data ends early: {needed} bytes are needed, it has {available}")]
    RecordTooShort { needed: usize, available: usize },
    #[error("the record's data has {extra} bytes that nothing accounts for")]
    RecordTooLong { extra: usize },
    #[error("block reference {id} is missing")]
    MissingBlock { id: u8 },
    #[error("the record does not change this page")]
    UnrelatedPage,
    #[error("the page was never initialised")]
    NewPage,
    #[error("bytes {at} to {end} lie outside the page")]
    OutsidePage { at: usize, end: usize },
    #[error("corrupted page pointers: lower = {lower}, upper = {upper}, special = {special}")]
    PagePointers { lower: u16, upper: u16, special: u16 },
    #[error("line pointer {offset}: {reason}")]
    LinePointer { offset: u16, reason: &'static str },
    #[error("no room for an item of {size} bytes: lower = {lower}, upper = {upper}")]
    NoRoom { size: usize, lower: u16, upper: u16 },
    #[error("tuple at line pointer {offset}: {reason}")]
    Tuple { offset: u16, reason: &'static str },
    #[error("page of another kind: {0}")]
    PageKind(&'static str),
    #[error("posting list: {0}")]
    PostingList(&'static str),
    #[error("full-page image: {0}")]
    Image(&'static str),
}
