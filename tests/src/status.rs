//! What the nodes say about themselves, through `quorumctl node status --json`.

use serde::Deserialize;

/// One node's row. Fields that a node leaves out (it cannot be reached, it keeps no volume) have their defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub node: Option<String>,
    pub address: String,
    pub state: Option<String>,
    pub volume: Option<String>,
    pub message: Option<String>,
    pub error: Option<String>,
    pub scl: u64,
    pub vdl: u64,
    pub indexed_lsn: u64,
    pub applied_lsn: u64,
    pub pages_unbuildable: u64,
    pub pages_mended: u64,
    pub tail_cuts: u64,
    pub cut_bytes: u64,
}
