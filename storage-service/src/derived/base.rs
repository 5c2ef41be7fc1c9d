//! What a volume began with.

use pg_quorum_types::{Base, ClusterFacts, is_wal_segment_size};
use serde::{Deserialize, Serialize};

use super::error::DerivedError;

/// A complete import.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImportedBase {
    pub base: Base,
    pub facts: ClusterFacts,
}

impl ImportedBase {
    pub fn to_bytes(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("a struct of numbers has a JSON form")
    }

    /// # Errors
    /// Not what [`ImportedBase::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<ImportedBase, DerivedError> {
        let damaged = |what: &dyn std::fmt::Display| DerivedError::Damaged(format!("the base: {what}"));
        let base: ImportedBase = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        if !is_wal_segment_size(base.facts.wal_segment_bytes) {
            return Err(damaged(&"a WAL segment size that no server has"));
        }
        Ok(base)
    }
}

#[cfg(test)]
mod tests {
    use pg_quorum_types::Lsn;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn base(wal_segment_bytes: u32) -> ImportedBase {
        ImportedBase {
            base: Base {
                id: Uuid::from_u128(7),
                lsn: Lsn(100),
            },
            facts: ClusterFacts {
                system_identifier: 7,
                timeline: 1,
                wal_segment_bytes,
                data_checksums: true,
                pg_control_version: 1300,
                catalog_version: 202_209_061,
                pg_major: 15,
            },
        }
    }

    /// Positions are computed with it: 0 would be a division by zero at every record.
    #[test]
    fn a_segment_size_that_no_server_has_is_refused() {
        assert_eq!(
            ImportedBase::from_bytes(&base(1 << 24).to_bytes()).unwrap(),
            base(1 << 24)
        );
        for bytes in [0, 1, 8192, (1 << 24) + 1, 1 << 31] {
            assert!(
                ImportedBase::from_bytes(&base(bytes).to_bytes()).is_err(),
                "{bytes}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(at in 0..250_usize, byte in any::<u8>()) {
            let mut bytes = base(1 << 24).to_bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = ImportedBase::from_bytes(&bytes);
            let _ = ImportedBase::from_bytes(&bytes[..at.min(bytes.len())]);
        }
    }
}
