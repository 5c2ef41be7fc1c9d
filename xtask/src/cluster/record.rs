//! What a deployment was made with: `DIR/deployment.json`, so that the second `up` and `down` find the same ports.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The choices that stay for a deployment's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The primary's port; replicas follow it, and the nodes start ten above it.
    pub port_base: u16,
    /// Six processes instead of one.
    pub processes: bool,
    /// Mutual TLS between all of them; a deployment that was made before there was TLS has none.
    #[serde(default)]
    pub tls: bool,
}

impl Record {
    pub fn primary_port(self) -> u16 {
        self.port_base
    }

    pub fn node_port_base(self) -> u16 {
        self.port_base + 10
    }

    fn path(directory: &Path) -> PathBuf {
        directory.join("deployment.json")
    }

    /// The record of a deployment, `None` if the directory holds none.
    pub fn read(directory: &Path) -> Result<Option<Record>> {
        let path = Record::path(directory);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is not a deployment's record", path.display()))
    }

    pub fn write(self, directory: &Path) -> Result<()> {
        let path = Record::path(directory);
        let text = serde_json::to_string_pretty(&self)?;
        fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}
