//! The stored form of a segment's metadata. Integers are little-endian.
//!
//! ```text
//! offset bytes
//!      0     8  magic "PGQSEGM\n"
//!      8     4  format version, 1
//!     12     4  bytes of the body
//!     16     4  CRC-32C of the body
//!     20     -  body, in this order:
//!               node            text
//!               segment         uuid
//!               assignment      option: volume uuid, protection group u32, system identifier u64, membership
//!               promised        epoch
//!               owner           option: owner
//!               holder          option: epoch, owner
//!               history         u32 count, each: epoch, start u64
//!               starting        option: history
//!               base            option: uuid, lsn u64, facts
//!               scl, vdl, tail cuts, cut bytes: u64 each
//!
//! text: u32 bytes, UTF-8      uuid: 16 bytes       option: u8 0 or 1, then the value
//! epoch: u64, uuid            owner: uuid, text
//! membership: u64 version, u32 count, each: segment uuid, node text, az text, address text
//! facts: u64 system identifier, u32 timeline, u32 segment bytes, u8 checksums,
//!        u32 control version, u32 catalog version, u32 major
//! ```
//!
//! The file is written beside the old one, synced, renamed over it, and the directory is synced.

use pg_quorum_types::{
    AzName, Base, ClusterFacts, ComputeId, Epoch, History, HistoryEntry, Lsn, Membership, NodeName, Owner,
    ProtectionGroup, SegmentId, SegmentMember, VolumeId, is_wal_segment_size,
};
use uuid::Uuid;

use super::{Assignment, CompleteBase, Holder, SegmentMeta, StartTarget};

const MAGIC: &[u8; 8] = b"PGQSEGM\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;

/// The bytes are not a segment's metadata.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetaError {
    #[error("not a segment's metadata: no magic number")]
    Magic,
    #[error("segment metadata of format {0}, this program knows format {VERSION}")]
    Version(u32),
    #[error("segment metadata with a wrong checksum")]
    Checksum,
    #[error("segment metadata that ends or goes wrong at byte {offset}: {what}")]
    Body { offset: usize, what: &'static str },
}

/// The stored form.
pub fn encode_meta(meta: &SegmentMeta) -> Vec<u8> {
    let mut body = Writer(Vec::with_capacity(1024));
    body.text(&meta.node.0);
    body.uuid(meta.segment.0);
    body.option(&meta.assignment, |body, assignment| {
        body.uuid(assignment.volume.0);
        body.u32(assignment.protection_group.0);
        body.u64(assignment.system_identifier);
        body.membership(&assignment.membership);
    });
    body.epoch(meta.promised);
    body.option(&meta.owner, Writer::owner);
    body.option(&meta.holder, |body, holder| {
        body.epoch(holder.epoch);
        body.owner(&holder.owner);
    });
    body.history(&meta.history);
    body.option(&meta.starting, |body, target| body.history(&target.history));
    body.option(&meta.base, |body, complete| {
        body.uuid(complete.base.id);
        body.u64(complete.base.lsn.0);
        body.facts(&complete.facts);
    });
    for number in [meta.scl.0, meta.vdl.0, meta.tail_cuts, meta.cut_bytes] {
        body.u64(number);
    }

    let body = body.0;
    let mut file = Vec::with_capacity(HEADER_BYTES + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(body.len() as u32).to_le_bytes());
    file.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    file.extend_from_slice(&body);
    file
}

/// The inverse of [`encode_meta`].
///
/// # Errors
/// Anything that [`encode_meta`] does not make.
pub fn decode_meta(file: &[u8]) -> Result<SegmentMeta, MetaError> {
    let header = |at: usize| -> Option<u32> {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if file.get(..8) != Some(MAGIC.as_slice()) {
        return Err(MetaError::Magic);
    }
    let version = header(8).ok_or(MetaError::Magic)?;
    if version != VERSION {
        return Err(MetaError::Version(version));
    }
    let (Some(length), Some(crc), Some(body)) = (header(12), header(16), file.get(HEADER_BYTES..)) else {
        return Err(MetaError::Checksum);
    };
    if body.len() != length as usize || crc32c::crc32c(body) != crc {
        return Err(MetaError::Checksum);
    }

    let mut body = Reader {
        bytes: body,
        offset: 0,
    };
    let meta = SegmentMeta {
        node: NodeName(body.text()?),
        segment: SegmentId(body.uuid()?),
        assignment: body.option(|body| {
            Ok(Assignment {
                volume: VolumeId(body.uuid()?),
                protection_group: ProtectionGroup(body.u32()?),
                system_identifier: body.u64()?,
                membership: body.membership()?,
            })
        })?,
        promised: body.epoch()?,
        owner: body.option(Reader::owner)?,
        holder: body.option(|body| {
            Ok(Holder {
                epoch: body.epoch()?,
                owner: body.owner()?,
            })
        })?,
        history: body.history()?,
        starting: body.option(|body| {
            Ok(StartTarget {
                history: body.history()?,
            })
        })?,
        base: body.option(|body| {
            Ok(CompleteBase {
                base: Base {
                    id: body.uuid()?,
                    lsn: Lsn(body.u64()?),
                },
                facts: body.facts()?,
            })
        })?,
        scl: Lsn(body.u64()?),
        vdl: Lsn(body.u64()?),
        tail_cuts: body.u64()?,
        cut_bytes: body.u64()?,
    };
    if body.offset != body.bytes.len() {
        return Err(body.wrong("bytes behind the end"));
    }
    Ok(meta)
}

struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn uuid(&mut self, uuid: Uuid) {
        self.0.extend_from_slice(uuid.as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn option<T>(&mut self, value: &Option<T>, write: impl FnOnce(&mut Writer, &T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn epoch(&mut self, epoch: Epoch) {
        self.u64(epoch.number);
        self.uuid(epoch.writer);
    }

    fn owner(&mut self, owner: &Owner) {
        self.uuid(owner.compute.0);
        self.text(&owner.description);
    }

    fn history(&mut self, history: &History) {
        self.u32(history.entries().len() as u32);
        for entry in history.entries() {
            self.epoch(entry.epoch);
            self.u64(entry.start_lsn.0);
        }
    }

    fn membership(&mut self, membership: &Membership) {
        self.u64(membership.version);
        self.u32(membership.members.len() as u32);
        for member in &membership.members {
            self.uuid(member.segment.0);
            self.text(&member.node.0);
            self.text(&member.az.0);
            self.text(&member.address);
        }
    }

    fn facts(&mut self, facts: &ClusterFacts) {
        self.u64(facts.system_identifier);
        self.u32(facts.timeline);
        self.u32(facts.wal_segment_bytes);
        self.0.push(u8::from(facts.data_checksums));
        self.u32(facts.pg_control_version);
        self.u32(facts.catalog_version);
        self.u32(facts.pg_major);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: &'static str) -> MetaError {
        MetaError::Body {
            offset: HEADER_BYTES + self.offset,
            what,
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], MetaError> {
        let bytes = self
            .bytes
            .get(self.offset..self.offset + N)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| self.wrong("the body is too short"))?;
        self.offset += N;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, MetaError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, MetaError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn uuid(&mut self) -> Result<Uuid, MetaError> {
        Ok(Uuid::from_bytes(self.take()?))
    }

    fn flag(&mut self) -> Result<bool, MetaError> {
        match self.take::<1>()?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong("a flag that is neither 0 nor 1")),
        }
    }

    fn text(&mut self) -> Result<String, MetaError> {
        let length = self.u32()? as usize;
        let bytes = self
            .bytes
            .get(self.offset..)
            .and_then(|rest| rest.get(..length))
            .ok_or_else(|| self.wrong("a text that is too long"))?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.wrong("a text that is not UTF-8"))?;
        self.offset += length;
        Ok(text.to_owned())
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, MetaError>,
    ) -> Result<Option<T>, MetaError> {
        Ok(if self.flag()? { Some(read(self)?) } else { None })
    }

    fn epoch(&mut self) -> Result<Epoch, MetaError> {
        Ok(Epoch {
            number: self.u64()?,
            writer: self.uuid()?,
        })
    }

    fn owner(&mut self) -> Result<Owner, MetaError> {
        Ok(Owner {
            compute: ComputeId(self.uuid()?),
            description: self.text()?,
        })
    }

    fn history(&mut self) -> Result<History, MetaError> {
        let count = self.u32()?;
        let mut history = History::default();
        for _ in 0..count {
            let entry = HistoryEntry {
                epoch: self.epoch()?,
                start_lsn: Lsn(self.u64()?),
            };
            history
                .push(entry)
                .map_err(|_| self.wrong("epochs that do not rise"))?;
        }
        Ok(history)
    }

    fn membership(&mut self) -> Result<Membership, MetaError> {
        let version = self.u64()?;
        let count = self.u32()?;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(SegmentMember {
                segment: SegmentId(self.uuid()?),
                node: NodeName(self.text()?),
                az: AzName(self.text()?),
                address: self.text()?,
            });
        }
        Ok(Membership { version, members })
    }

    fn facts(&mut self) -> Result<ClusterFacts, MetaError> {
        let system_identifier = self.u64()?;
        let timeline = self.u32()?;
        let wal_segment_bytes = self.u32()?;
        if !is_wal_segment_size(wal_segment_bytes) {
            return Err(self.wrong("a WAL segment size that no server has"));
        }
        Ok(ClusterFacts {
            system_identifier,
            timeline,
            wal_segment_bytes,
            data_checksums: self.flag()?,
            pg_control_version: self.u32()?,
            catalog_version: self.u32()?,
            pg_major: self.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> SegmentMeta {
        let epoch = |number: u64| Epoch {
            number,
            writer: Uuid::from_u128(number.into()),
        };
        let entry = |number, start| HistoryEntry {
            epoch: epoch(number),
            start_lsn: Lsn(start),
        };
        let owner = Owner {
            compute: ComputeId(Uuid::from_u128(9)),
            description: "db1:/var/lib/postgresql/15/main".into(),
        };
        SegmentMeta {
            assignment: Some(Assignment {
                volume: VolumeId(Uuid::from_u128(1)),
                protection_group: ProtectionGroup(0),
                system_identifier: 7,
                membership: Membership {
                    version: 1,
                    members: vec![SegmentMember {
                        segment: SegmentId(Uuid::from_u128(2)),
                        node: NodeName("az1-1".into()),
                        az: AzName("az1".into()),
                        address: "127.0.0.1:7101".into(),
                    }],
                },
            }),
            promised: epoch(3),
            owner: Some(owner.clone()),
            holder: Some(Holder {
                epoch: epoch(2),
                owner,
            }),
            history: History::new(vec![entry(1, 100), entry(2, 200)]).unwrap(),
            starting: Some(StartTarget {
                history: History::new(vec![entry(1, 100), entry(3, 300)]).unwrap(),
            }),
            base: Some(CompleteBase {
                base: Base {
                    id: Uuid::from_u128(5),
                    lsn: Lsn(100),
                },
                facts: ClusterFacts {
                    system_identifier: 7,
                    timeline: 1,
                    wal_segment_bytes: 16 << 20,
                    data_checksums: true,
                    pg_control_version: 1300,
                    catalog_version: 202_209_061,
                    pg_major: 15,
                },
            }),
            scl: Lsn(250),
            vdl: Lsn(240),
            tail_cuts: 1,
            cut_bytes: 17,
            ..SegmentMeta::formatted(NodeName("az1-1".into()), SegmentId(Uuid::from_u128(2)))
        }
    }

    #[test]
    fn what_is_stored_comes_back() {
        let empty = SegmentMeta::formatted(NodeName("az3-2".into()), SegmentId(Uuid::from_u128(4)));
        for meta in [empty, full()] {
            assert_eq!(decode_meta(&encode_meta(&meta)), Ok(meta));
        }
    }

    #[test]
    fn every_single_wrong_byte_is_noticed() {
        let good = encode_meta(&full());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(decode_meta(&bad).is_err(), "byte {at}");
            assert!(decode_meta(&good[..at]).is_err(), "cut at {at}");
        }
    }

    /// Positions are computed with it: 0 would be a division by zero at every record.
    #[test]
    fn a_wal_segment_size_that_no_server_has_is_refused() {
        let mut meta = full();
        for bytes in [0, 8192, (16 << 20) + 1] {
            meta.base.as_mut().unwrap().facts.wal_segment_bytes = bytes;
            assert!(
                matches!(decode_meta(&encode_meta(&meta)), Err(MetaError::Body { .. })),
                "{bytes}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_the_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut file = Vec::from(*MAGIC);
            file.extend_from_slice(&VERSION.to_le_bytes());
            file.extend_from_slice(&(body.len() as u32).to_le_bytes());
            file.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            file.extend_from_slice(&body);
            let _ = decode_meta(&file);
        }
    }
}
