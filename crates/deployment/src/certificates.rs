//! An authority of the deployment's own, with a certificate for its nodes and one for its servers and tools, and a token for
//! the volume that is to be made.

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
        // An authority that is older than tokens has no key to sign them with.
        if certificates.token_key().exists() && certificates.token().is_none() {
            make(&["pki", "token"])?;
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

    /// A server's and quorumctl's. `None`: the deployment was made without tokens.
    pub fn token(&self) -> Option<PathBuf> {
        Some(self.directory.join("compute.token")).filter(|token| token.exists())
    }

    /// What the nodes check it with.
    pub fn token_key(&self) -> PathBuf {
        self.directory.join("token.pub")
    }

    /// What makes `quorumd` use them.
    pub fn node_flags(&self) -> NodeFlags {
        let mut flags = flags(
            &self.authority(),
            &self.directory.join("node.pem"),
            &self.directory.join("node.key"),
        );
        if self.token().is_some() {
            flags.extend(["--token-key".to_owned(), self.token_key().display().to_string()]);
        }
        flags
    }

    /// What makes `quorumctl` use them.
    pub fn tool_flags(&self) -> Vec<String> {
        let mut flags = flags(&self.authority(), &self.compute(), &self.compute_key());
        if let Some(token) = self.token() {
            flags.extend(["--token".to_owned(), token.display().to_string()]);
        }
        flags
    }

    /// What makes a server use them.
    pub fn settings(&self) -> Settings {
        let settings = Settings::default()
            .with("pg_quorum.tls_ca_file", self.authority().display())
            .with("pg_quorum.tls_cert_file", self.compute().display())
            .with("pg_quorum.tls_key_file", self.compute_key().display());
        match self.token() {
            Some(token) => settings.with("pg_quorum.token_file", token.display()),
            None => settings,
        }
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
