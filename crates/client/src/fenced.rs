//! Who took the volume.

use pg_quorum_types::Owner;
use serde::{Deserialize, Serialize};

/// A later epoch holds the volume: whoever sees this acknowledges nothing any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fenced {
    /// Number of the epoch that took over.
    pub epoch: u64,
    /// Its owner, if a segment named it.
    pub owner: Option<Owner>,
}

impl std::fmt::Display for Fenced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.owner {
            Some(owner) => write!(f, "epoch {} belongs to {owner}", self.epoch),
            None => write!(f, "epoch {} belongs to another compute", self.epoch),
        }
    }
}
