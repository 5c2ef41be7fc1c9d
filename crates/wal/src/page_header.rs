//! Headers of WAL pages: read and checked, or made.
//!
//! ```text
//! 0  xlp_magic u16 | 2 xlp_info u16 | 4 xlp_tli u32 | 8 xlp_pageaddr u64 | 16 xlp_rem_len u32 | 20 zero u32
//! 24 xlp_sysid u64 | 32 xlp_seg_size u32 | 36 xlp_xlog_blcksz u32          (a segment's first page only)
//! ```

use pg_quorum_types::{ClusterFacts, Lsn};

use crate::WalError;
use crate::framing::WalLayout;
use crate::reader::Reader;
use crate::v15::{
    PAGE_ALL_FLAGS, PAGE_FIRST_IS_CONTINUATION, PAGE_FIRST_IS_OVERWRITE, PAGE_LONG_HEADER, PAGE_MAGIC,
    WAL_PAGE_BYTES,
};

/// What a page begins with, behind its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageStart {
    /// A record, or nothing yet.
    Record,
    /// A record that replaces one which was never finished (`CreateOverwriteContrecordRecord`).
    Overwrite,
    /// The rest of a record from the page before: this many bytes, over this and following pages.
    Continuation { remaining_bytes: u32 },
}

/// Checks a page's header as `XLogReaderValidatePageHeader` (15.18) does, and that the timeline is the
/// cluster's. `header` holds as many bytes as the header at `page` has.
pub(crate) fn parse(facts: &ClusterFacts, page: Lsn, header: &[u8]) -> Result<PageStart, WalError> {
    let bad = |problem| WalError::BadPage { page, problem };
    let mut reader = Reader::new(header, page, 0);
    if reader.u16()? != PAGE_MAGIC {
        return Err(bad("its magic number is not that of PostgreSQL 15"));
    }
    let info = reader.u16()?;
    if info & !PAGE_ALL_FLAGS != 0 {
        return Err(bad("flags that do not exist"));
    }
    if reader.u32()? != facts.timeline {
        return Err(bad("another timeline"));
    }
    if reader.lsn()? != page {
        return Err(bad("the address of another page"));
    }
    let remaining_bytes = reader.u32()?;
    reader.skip(4)?;
    let is_first_of_segment = WalLayout::new(facts).segment_offset(page) == 0;
    if is_first_of_segment != (info & PAGE_LONG_HEADER != 0) {
        return Err(bad("a long header where a short one belongs, or the reverse"));
    }
    if is_first_of_segment {
        if reader.u64()? != facts.system_identifier {
            return Err(bad("the system identifier of another cluster"));
        }
        if reader.u32()? != facts.wal_segment_bytes {
            return Err(bad("another segment size"));
        }
        if u64::from(reader.u32()?) != WAL_PAGE_BYTES {
            return Err(bad("another page size"));
        }
    }
    if info & PAGE_FIRST_IS_OVERWRITE != 0 {
        return Ok(PageStart::Overwrite);
    }
    if info & PAGE_FIRST_IS_CONTINUATION == 0 {
        return Ok(PageStart::Record);
    }
    Ok(PageStart::Continuation { remaining_bytes })
}

/// Appends the header that `AdvanceXLInsertBuffer` and `CopyXLogRecordToWAL` (15.18) leave, but for
/// `XLP_BKP_REMOVABLE`, which no record tells: it is always clear.
pub(crate) fn append(facts: &ClusterFacts, page: Lsn, start: PageStart, wal: &mut Vec<u8>) {
    let is_first_of_segment = WalLayout::new(facts).segment_offset(page) == 0;
    let mut info = if is_first_of_segment { PAGE_LONG_HEADER } else { 0 };
    let mut remaining = 0;
    match start {
        PageStart::Record => {}
        PageStart::Overwrite => info |= PAGE_FIRST_IS_OVERWRITE,
        PageStart::Continuation { remaining_bytes } => {
            info |= PAGE_FIRST_IS_CONTINUATION;
            remaining = remaining_bytes;
        }
    }
    wal.extend_from_slice(&PAGE_MAGIC.to_le_bytes());
    wal.extend_from_slice(&info.to_le_bytes());
    wal.extend_from_slice(&facts.timeline.to_le_bytes());
    wal.extend_from_slice(&page.0.to_le_bytes());
    wal.extend_from_slice(&remaining.to_le_bytes());
    wal.extend_from_slice(&[0; 4]);
    if is_first_of_segment {
        wal.extend_from_slice(&facts.system_identifier.to_le_bytes());
        wal.extend_from_slice(&facts.wal_segment_bytes.to_le_bytes());
        wal.extend_from_slice(&(WAL_PAGE_BYTES as u32).to_le_bytes());
    }
}
