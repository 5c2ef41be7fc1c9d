//! `quorumctl pki`: an authority of one's own, and certificates by it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Invocation;
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
