//! What a volume began with.

use pg_quorum_types::{Base, ClusterFacts};
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
        serde_json::from_slice(bytes).map_err(|error| DerivedError::Damaged(format!("the base: {error}")))
    }
}
