//! An authority of the deployment's own, with a certificate for its nodes and one for its servers and tools.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{Account, Binaries, NodeFlags, Settings, capture};

/// The names under which the nodes of one machine are reached.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// `DIR/pki`, made by `quorumctl pki`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes what is missing of them.
    ///
    /// # Errors
    /// `quorumctl pki` fails.
    pub fn make(directory: &Path, binaries: &Binaries, account: &Account) -> Result<Certificates> {
        let certificates = Certificates {
            directory: directory.to_owned(),
        };
        let make = |arguments: &[&str]| {
            let mut command = account.command(binaries.quorumctl());
            capture(command.args(arguments).arg("--dir").arg(directory)).map(drop)
        };
        account.create_dir(directory)?;
        if !directory.join("ca.pem").exists() {
            make(&["pki", "init"])?;
        }
        if !directory.join("node.pem").exists() {
            let [address, name] = HOSTS;
            make(&["pki", "node", "--host", address, "--host", name])?;
        }
        if !directory.join("compute.pem").exists() {
            make(&["pki", "compute"])?;
        }
        Ok(certificates)
    }

    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A server's and quorumctl's.
    pub fn compute(&self) -> PathBuf {
        self.directory.join("compute.pem")
    }

    pub fn compute_key(&self) -> PathBuf {
        self.directory.join("compute.key")
    }

    /// What makes `quorumd` use them.
    pub fn node_flags(&self) -> NodeFlags {
        flags(
            &self.authority(),
            &self.directory.join("node.pem"),
            &self.directory.join("node.key"),
        )
    }

    /// What makes `quorumctl` use them.
    pub fn tool_flags(&self) -> Vec<String> {
        flags(&self.authority(), &self.compute(), &self.compute_key())
    }

    /// What makes a server use them.
    pub fn settings(&self) -> Settings {
        Settings::default()
            .with("pg_quorum.tls_ca_file", self.authority().display())
            .with("pg_quorum.tls_cert_file", self.compute().display())
            .with("pg_quorum.tls_key_file", self.compute_key().display())
    }
}

fn flags(authority: &Path, certificate: &Path, key: &Path) -> Vec<String> {
    [
        ("--tls-ca", authority),
        ("--tls-cert", certificate),
        ("--tls-key", key),
    ]
    .iter()
    .flat_map(|(flag, file)| [(*flag).to_owned(), file.display().to_string()])
    .collect()
}
