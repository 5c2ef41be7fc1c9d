//! Which certificates `quorumctl` shows to which nodes when it is not told: a file of its user's, written by
//! `quorumctl pki use`.
//!
//! ```toml
//! ["10.0.0.1:7101"]
//! ca = "/etc/pg_quorum/pki/ca.pem"
//! cert = "/etc/pg_quorum/pki/compute.pem"
//! key = "/etc/pg_quorum/pki/compute.key"
//! token = "/etc/pg_quorum/pki/compute.token"
//! ```

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pg_quorum_tls::TlsFiles;
use serde::{Deserialize, Serialize};

/// What is known, by a node's address.
#[derive(Serialize, Deserialize, Default, Debug)]
#[serde(transparent)]
pub(super) struct KnownNodes(BTreeMap<String, Files>);

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<PathBuf>,
}

impl KnownNodes {
    /// `$XDG_CONFIG_HOME/pg_quorum/nodes.toml`, or the same below `~/.config`. `None`: the user has no home.
    pub(super) fn path() -> Option<PathBuf> {
        let configured = env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty());
        let config = configured
            .map(PathBuf::from)
            .or_else(|| Some(env::home_dir()?.join(".config")))?;
        Some(config.join("pg_quorum/nodes.toml"))
    }

    /// What the user's file says; nothing if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub(super) fn read(path: &Path) -> Result<KnownNodes> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(KnownNodes::default()),
            text => text.with_context(|| format!("read {}", path.display()))?,
        };
        toml::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self)?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        // A reader sees the old file or the new one.
        let draft = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&draft, text).with_context(|| format!("write {}", draft.display()))?;
        fs::rename(&draft, path).with_context(|| format!("write {}", path.display()))
    }

    /// The files for the first of the nodes that is known.
    pub(super) fn find(&self, nodes: &[String]) -> Option<TlsFiles> {
        let files = nodes.iter().find_map(|node| self.0.get(node))?;
        Some(TlsFiles {
            authority: files.ca.clone(),
            certificate: files.cert.clone(),
            key: files.key.clone(),
        })
    }

    /// The file with the token for the first of the nodes that is known.
    pub(super) fn token(&self, nodes: &[String]) -> Option<PathBuf> {
        nodes.iter().find_map(|node| self.0.get(node))?.token.clone()
    }

    /// `None`: these nodes speak in the clear.
    pub(super) fn set(&mut self, nodes: &[String], files: Option<&TlsFiles>, token: Option<&Path>) {
        for node in nodes {
            match files {
                None => drop(self.0.remove(node)),
                Some(files) => {
                    let files = Files {
                        ca: files.authority.clone(),
                        cert: files.certificate.clone(),
                        key: files.key.clone(),
                        token: token.map(Path::to_owned),
                    };
                    self.0.insert(node.clone(), files);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_by_any_of_the_addresses_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config/nodes.toml");
        assert!(
            KnownNodes::read(&path)
                .unwrap()
                .find(&["a:1".to_owned()])
                .is_none()
        );
        let files = TlsFiles {
            authority: "/p/ca.pem".into(),
            certificate: "/p/c.pem".into(),
            key: "/p/c.key".into(),
        };
        let nodes = ["a:1".to_owned(), "b:1".to_owned()];
        let mut known = KnownNodes::default();
        known.set(&nodes, Some(&files), Some(Path::new("/p/c.token")));
        known.write(&path).unwrap();
        let mut known = KnownNodes::read(&path).unwrap();
        assert_eq!(known.find(&["c:1".to_owned(), "b:1".to_owned()]), Some(files));
        assert_eq!(known.token(&nodes), Some("/p/c.token".into()));
        known.set(&nodes, None, None);
        assert!(known.find(&nodes).is_none());
        fs::write(&path, "nonsense").unwrap();
        assert!(KnownNodes::read(&path).is_err());
    }
}
