//! The log's bytes on disk. Integers are little-endian.
//!
//! ```text
//! file = file header, frame, frame, ...; zeros or the file's end behind the last frame
//!
//! file header (64 bytes)                      frame header (88 bytes)
//!  0  8  magic "PGQHLOG\n"                     0  4  bytes of the frame behind this field and the next one
//!  8  4  format version, 1                     4  4  CRC-32C of those bytes
//! 12  4  protection group                      8  8  epoch: number
//! 16  8  number of the file                   16 16  epoch: writer's UUID
//! 24 16  segment's UUID                       32  8  previous end: end of the record before the first one
//! 40  8  end of the log when it was begun     40  8  end of the last record
//! 48 12  zeros                                48  8  VDL that was known when this was written
//! 60  4  CRC-32C of bytes 0 to 59             56  8  bytes of this file that were synced before it was written
//!                                             64  4  number of gaps
//!                                             68  4  zeros
//!                                             72 16  reserved, zeros
//!                                             88  8n gaps, then the records' bytes, without padding
//! ```
//!
//! A frame is never changed and never overwritten once it is synced. Whether it counts is not written in
//! it: the segment's history decides that (see `recover`).

use bytes::{Bytes, BytesMut};
use pg_quorum_types::{Epoch, Lsn, SegmentId};
use uuid::Uuid;

pub const FILE_HEADER_BYTES: usize = 64;
pub const FRAME_HEADER_BYTES: usize = 88;
/// Bytes of a frame that its length and checksum do not cover: these two.
const PREFIX_BYTES: usize = 8;
const FILE_MAGIC: &[u8; 8] = b"PGQHLOG\n";
const VERSION: u32 = 1;

/// What a file says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileHeader {
    pub protection_group: u32,
    pub number: u64,
    pub segment: SegmentId,
    /// End of the log when the file was begun. A later cut can go below it.
    pub begun_at: Lsn,
}

/// The file is not a log file of this segment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FileHeaderError {
    #[error("no log file")]
    Magic,
    #[error("a log file of format {0}, this program knows format {VERSION}")]
    Version(u32),
    #[error("a wrong checksum")]
    Checksum,
}

impl FileHeader {
    pub fn to_bytes(self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(FILE_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.protection_group.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..40].copy_from_slice(self.segment.0.as_bytes());
        bytes[40..48].copy_from_slice(&self.begun_at.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<FileHeader, FileHeaderError> {
        if &bytes[..8] != FILE_MAGIC {
            return Err(FileHeaderError::Magic);
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(FileHeaderError::Checksum);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(FileHeaderError::Version(u32_at(bytes, 8)));
        }
        Ok(FileHeader {
            protection_group: u32_at(bytes, 12),
            number: u64_at(bytes, 16),
            segment: SegmentId(uuid_at(bytes, 24)),
            begun_at: Lsn(u64_at(bytes, 40)),
        })
    }
}

/// One batch of records of one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub epoch: Epoch,
    pub previous_end: Lsn,
    pub end: Lsn,
    pub vdl: Lsn,
    /// Bytes of the file that were synced before this frame was written.
    pub synced_bytes: u64,
    pub gaps: Vec<u64>,
    pub records: Bytes,
}

/// A frame's header, enough to know whether the frame counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Of the whole frame.
    pub frame_bytes: usize,
    pub crc: u32,
    pub epoch: Epoch,
    pub previous_end: Lsn,
    pub end: Lsn,
    pub vdl: Lsn,
    pub synced_bytes: u64,
    gaps: usize,
}

impl FrameHeader {
    /// Reads a header whose checksum is not compared yet; `None` if no frame can begin like this.
    pub fn parse(bytes: &[u8]) -> Option<FrameHeader> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let header = FrameHeader {
            frame_bytes: u32_at(bytes, 0) as usize + PREFIX_BYTES,
            crc: u32_at(bytes, 4),
            epoch: Epoch {
                number: u64_at(bytes, 8),
                writer: uuid_at(bytes, 16),
            },
            previous_end: Lsn(u64_at(bytes, 32)),
            end: Lsn(u64_at(bytes, 40)),
            vdl: Lsn(u64_at(bytes, 48)),
            synced_bytes: u64_at(bytes, 56),
            gaps: u32_at(bytes, 64) as usize,
        };
        let has_room = header.frame_bytes > header.records_offset();
        (has_room && header.previous_end < header.end && header.epoch.is_some()).then_some(header)
    }

    /// Offset of the records in the frame.
    pub fn records_offset(&self) -> usize {
        FRAME_HEADER_BYTES + 8 * self.gaps
    }

    /// The frame, if `bytes` (of exactly its length) bear the right checksum.
    pub fn frame(&self, bytes: &Bytes) -> Option<Frame> {
        if bytes.len() != self.frame_bytes || crc32c::crc32c(&bytes[PREFIX_BYTES..]) != self.crc {
            return None;
        }
        let gaps = bytes[FRAME_HEADER_BYTES..self.records_offset()]
            .chunks_exact(8)
            .map(|gap| u64_at(gap, 0))
            .collect();
        Some(Frame {
            epoch: self.epoch,
            previous_end: self.previous_end,
            end: self.end,
            vdl: self.vdl,
            synced_bytes: self.synced_bytes,
            gaps,
            records: bytes.slice(self.records_offset()..),
        })
    }
}

impl Frame {
    /// Bytes on disk.
    pub fn stored_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + 8 * self.gaps.len() + self.records.len()
    }

    /// Puts the stored form behind `buffer`.
    pub fn write_to(&self, buffer: &mut BytesMut) {
        let begin = buffer.len();
        let covered = self.stored_bytes() - PREFIX_BYTES;
        let covered = u32::try_from(covered).expect("a batch is limited far below 4 GB");
        buffer.extend_from_slice(&covered.to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&self.epoch.number.to_le_bytes());
        buffer.extend_from_slice(self.epoch.writer.as_bytes());
        for lsn in [self.previous_end, self.end, self.vdl] {
            buffer.extend_from_slice(&lsn.0.to_le_bytes());
        }
        buffer.extend_from_slice(&self.synced_bytes.to_le_bytes());
        buffer.extend_from_slice(&(self.gaps.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&[0; 20]);
        for gap in &self.gaps {
            buffer.extend_from_slice(&gap.to_le_bytes());
        }
        buffer.extend_from_slice(&self.records);
        let crc = crc32c::crc32c(&buffer[begin + PREFIX_BYTES..]);
        buffer[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_bytes(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> Frame {
        Frame {
            epoch: Epoch {
                number: 3,
                writer: Uuid::from_u128(5),
            },
            previous_end: Lsn(100),
            end: Lsn(160),
            vdl: Lsn(96),
            synced_bytes: 64,
            gaps: vec![0, 8],
            records: Bytes::from_static(b"two records"),
        }
    }

    fn stored(frame: &Frame) -> Bytes {
        let mut buffer = BytesMut::from(&b"before"[..]);
        frame.write_to(&mut buffer);
        buffer.freeze().slice(6..)
    }

    #[test]
    fn a_frame_round_trips() {
        let bytes = stored(&frame());
        assert_eq!(bytes.len(), frame().stored_bytes());
        let header = FrameHeader::parse(&bytes).unwrap();
        assert_eq!(header.frame(&bytes), Some(frame()));
    }

    #[test]
    fn every_single_wrong_byte_of_a_frame_is_noticed() {
        let good = stored(&frame());
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            let bad = Bytes::from(bad);
            let read = FrameHeader::parse(&bad).and_then(|header| header.frame(&bad));
            assert_eq!(read, None, "byte {at}");
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(FrameHeader::parse(&[0; 200]), None);
    }

    #[test]
    fn a_file_header_round_trips_and_notices_every_wrong_byte() {
        let header = FileHeader {
            protection_group: 0,
            number: 7,
            segment: SegmentId(Uuid::from_u128(11)),
            begun_at: Lsn(0x16_0000_0000),
        };
        let good = header.to_bytes();
        assert_eq!(FileHeader::from_bytes(&good), Ok(header));
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert!(FileHeader::from_bytes(&bad).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let bytes = Bytes::from(bytes);
            if let Some(header) = FrameHeader::parse(&bytes) {
                prop_assert!(header.frame(&bytes).is_none());
            }
        }
    }
}
