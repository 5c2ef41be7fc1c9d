//! The directory of a deployment.

use std::path::{Path, PathBuf};

/// Names of the six nodes, two in each of three availability zones. The zone is the part before the dash.
pub const NODE_NAMES: [&str; 6] = ["az1-1", "az1-2", "az2-1", "az2-2", "az3-1", "az3-2"];

/// Where things are below a deployment's directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> Layout {
        Layout {
            root: root.to_owned(),
        }
    }

    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    pub fn node(&self, name: &str) -> PathBuf {
        self.nodes().join(name)
    }

    pub fn computes(&self) -> PathBuf {
        self.root.join("compute")
    }

    /// PGDATA of a compute.
    pub fn compute(&self, name: &str) -> PathBuf {
        self.computes().join(name)
    }

    /// What a compute's server says.
    pub fn compute_log(&self, name: &str) -> PathBuf {
        self.computes().join(format!("{name}.log"))
    }

    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    pub fn sockets(&self) -> PathBuf {
        self.root.join("run")
    }
}
