//! Small files of PGDATA whose bytes are made here: two-phase state and replication origins.

/// `REPLICATION_STATE_MAGIC` (origin.c, 15.18).
const ORIGIN_MAGIC: u32 = 0x1257_DADE;
/// `sizeof(ReplicationStateOnDisk)`: the origin's number, six bytes of padding, the remote LSN.
const ORIGIN_ENTRY_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// A file's bytes with the CRC-32C behind them that the server checks.
pub fn with_crc(mut content: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    content
}

/// The reverse of [`with_crc`]; `None` if the checksum is not that of the content.
pub fn without_crc(file: &[u8]) -> Option<&[u8]> {
    let (content, crc) = file.split_last_chunk::<CRC_BYTES>()?;
    (crc32c::crc32c(content) == u32::from_le_bytes(*crc)).then_some(content)
}

/// How far a replication origin has been applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    pub number: u16,
    pub remote_lsn: u64,
}

/// `pg_logical/replorigin_checkpoint` as `CheckPointReplicationOrigin` writes it.
pub fn origins_to_file(origins: &[Origin]) -> Vec<u8> {
    let mut content = ORIGIN_MAGIC.to_le_bytes().to_vec();
    for origin in origins {
        content.extend_from_slice(&origin.number.to_le_bytes());
        content.extend_from_slice(&[0; 6]);
        content.extend_from_slice(&origin.remote_lsn.to_le_bytes());
    }
    with_crc(content)
}

/// The reverse; `None` for a damaged file.
pub fn origins_from_file(file: &[u8]) -> Option<Vec<Origin>> {
    let (magic, entries) = without_crc(file)?.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<ORIGIN_ENTRY_BYTES>();
    if u32::from_le_bytes(*magic) != ORIGIN_MAGIC || !rest.is_empty() {
        return None;
    }
    let origin = |entry: &[u8; ORIGIN_ENTRY_BYTES]| {
        let (_, remote) = entry.split_last_chunk::<8>()?;
        Some(Origin {
            number: u16::from_le_bytes([entry[0], entry[1]]),
            remote_lsn: u64::from_le_bytes(*remote),
        })
    };
    entries.iter().map(origin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_round_trip_and_damage_is_seen() {
        let origins = [
            Origin {
                number: 1,
                remote_lsn: 0x16_0000_1234,
            },
            Origin {
                number: 7,
                remote_lsn: 8,
            },
        ];
        let mut file = origins_to_file(&origins);
        assert_eq!(file.len(), 4 + 2 * ORIGIN_ENTRY_BYTES + CRC_BYTES);
        assert_eq!(origins_from_file(&file).unwrap(), origins);
        file[9] ^= 1;
        assert_eq!(origins_from_file(&file), None);
        assert_eq!(origins_from_file(&origins_to_file(&[])).unwrap(), []);
    }
}
