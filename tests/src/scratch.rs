//! Directories for one test: gone when it passes, kept when it fails.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use pg_quorum_deployment::{Account, workspace_root};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory of the servers' account, deleted on drop unless the test panics.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new directory below `PG_QUORUM_TEST_DIR`, the workspace's `target/`, or `/var/tmp` if the servers' account
    /// cannot reach that.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn new(account: &Account, name: &str) -> Scratch {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let path = root(account).join(name);
        account.create_dir(&path).expect("make a scratch directory");
        Scratch { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn root(account: &Account) -> PathBuf {
    if let Some(root) = std::env::var_os("PG_QUORUM_TEST_DIR") {
        return PathBuf::from(root);
    }
    let target = workspace_root().join("target");
    if account.can_enter(&target) {
        target.join("system-tests")
    } else {
        PathBuf::from("/var/tmp/pg_quorum-tests")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
