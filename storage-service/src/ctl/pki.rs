//! `quorumctl pki`: an authority of one's own, and certificates by it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use pg_quorum_tls::Tls;
use serde::Serialize;

use super::Invocation;
use super::known_nodes::KnownNodes;
use super::output::{print_json, print_text};
use crate::pki::{Subject, init, issue};

#[derive(Subcommand, Debug)]
pub(super) enum PkiCommand {
    /// Make an authority: DIR/ca.pem, and DIR/ca.key, which is to be kept where certificates are made
    #[command(after_help = "Example:\n  quorumctl pki init --dir /etc/pg_quorum/pki")]
    Init {
        /// Where the authority is kept
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Make a storage node's certificate, or make it anew
    #[command(
        after_help = "Example:\n  quorumctl pki node --dir /etc/pg_quorum/pki --name az1-1 --host 10.0.0.1"
    )]
    Node {
        #[command(flatten)]
        certificate: CertificateOptions,
        /// The file's name: DIR/NAME.pem and DIR/NAME.key
        #[arg(long, default_value = "node")]
        name: String,
        /// A host name or IP address under which others reach the node; may be given again
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,
    },
    /// Make a certificate for a compute or for quorumctl, or make it anew
    #[command(after_help = "Example:\n  quorumctl pki compute --dir /etc/pg_quorum/pki --name primary")]
    Compute {
        #[command(flatten)]
        certificate: CertificateOptions,
        /// The file's name: DIR/NAME.pem and DIR/NAME.key
        #[arg(long, default_value = "compute")]
        name: String,
    },
    /// Show the certificate of --tls-ca, --tls-cert and --tls-key to the nodes of --nodes from now on, without being told;
    /// without them, speak with these nodes in the clear
    #[command(
        after_help = "Example:\n  quorumctl --nodes 10.0.0.1:7101,10.0.0.2:7101 --tls-ca ca.pem --tls-cert me.pem --tls-key me.key pki use\n\n\
                      It is kept in pg_quorum/nodes.toml below $XDG_CONFIG_HOME or ~/.config."
    )]
    Use,
}

#[derive(Args, Debug)]
pub(super) struct CertificateOptions {
    /// Where the authority is kept
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How long the certificate lasts
    #[arg(long, value_name = "DAYS", default_value_t = 825)]
    days: u32,
}

/// What was made.
#[derive(Serialize, Debug)]
struct Made {
    certificate: PathBuf,
    key: PathBuf,
}

pub(super) fn run(invocation: &Invocation<'_>, command: &PkiCommand) -> Result<bool> {
    let (dir, name) = match command {
        PkiCommand::Init { dir } => {
            init(dir)?;
            (dir, "ca")
        }
        PkiCommand::Node {
            certificate,
            name,
            hosts,
        } => {
            issue(&certificate.dir, name, Subject::Node { hosts }, certificate.days)?;
            (&certificate.dir, name.as_str())
        }
        PkiCommand::Compute { certificate, name } => {
            issue(&certificate.dir, name, Subject::Compute, certificate.days)?;
            (&certificate.dir, name.as_str())
        }
        PkiCommand::Use => return use_from_now_on(invocation),
    };
    let made = Made {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    if invocation.json {
        print_json(&made)?;
    } else {
        print_text(&format!(
            "{}\n{}\n",
            made.certificate.display(),
            made.key.display()
        ))?;
    }
    Ok(true)
}

fn use_from_now_on(invocation: &Invocation<'_>) -> Result<bool> {
    let nodes = invocation.addresses()?;
    if let Some(files) = &invocation.tls {
        Tls::load(files.clone())?;
    }
    let path = KnownNodes::path().context("this user has no home directory to keep it in")?;
    let mut known = KnownNodes::read(&path)?;
    known.set(&nodes, invocation.tls.as_ref());
    known.write(&path)?;
    if invocation.json {
        print_json(&path)?;
    } else {
        print_text(&format!("{}\n", path.display()))?;
    }
    Ok(true)
}
