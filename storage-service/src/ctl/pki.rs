//! `quorumctl pki`: an authority of one's own, and certificates by it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use pg_quorum_tls::Tls;
use pg_quorum_token::{Claims, Role, TokenFile};
use pg_quorum_types::VolumeId;
use serde::Serialize;
use time::OffsetDateTime;

use super::Invocation;
use super::known_nodes::KnownNodes;
use super::output::{print_json, print_text};
use crate::pki::{Subject, init, issue, issue_token};

#[derive(Subcommand, Debug)]
pub(super) enum PkiCommand {
    /// Make an authority: DIR/ca.pem and DIR/token.pub for everybody, and DIR/ca.key and DIR/token.key, which are to be kept
    /// where certificates and tokens are made
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
    /// Make a token, or make it anew: what a compute or a tool may do to one volume, for nodes that have --token-key
    #[command(
        after_help = "Example:\n  quorumctl pki token --dir /etc/pg_quorum/pki --name primary\n  \
                      quorumctl --volume 6f9619ff-8b86-4d01-b42d-00cf4fc964ff pki token --dir /etc/pg_quorum/pki --name backup --role reader\n\n\
                      Without --volume it is for a volume that is still to be made, by the first start of the server that bears it."
    )]
    Token {
        /// Where the authority is kept
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The file's name: DIR/NAME.token. It is also the bearer's name in the nodes' logs
        #[arg(long, default_value = "compute")]
        name: String,
        /// Whether it may write: a compute takes, makes and writes the volume, a reader exports it and sees how it is
        #[arg(long, value_enum, default_value_t = TokenRole::Compute)]
        role: TokenRole,
        /// How long it lasts: a number of s, m, h or d. Replace the file before: servers go on with the new one
        #[arg(long, value_name = "TIME", default_value = "365d", value_parser = lasting)]
        lasts: Duration,
    },
    /// Show the certificate of --tls-ca, --tls-cert and --tls-key, and the token of --token, to the nodes of --nodes from now
    /// on, without being told; without them, speak with these nodes in the clear
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

/// What a token is for.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TokenRole {
    Compute,
    Reader,
}

impl From<TokenRole> for Role {
    fn from(role: TokenRole) -> Role {
        match role {
            TokenRole::Compute => Role::Compute,
            TokenRole::Reader => Role::Reader,
        }
    }
}

/// `90d`, `12h`, `30m`, `45s`.
fn lasting(text: &str) -> Result<Duration, String> {
    let wanted = || "a number and s, m, h or d is wanted, such as 90d".to_owned();
    let (at, unit) = text.char_indices().next_back().ok_or_else(wanted)?;
    let number: u32 = text[..at].parse().map_err(|_| wanted())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wanted()),
    };
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// A token that was made.
#[derive(Serialize, Debug)]
struct MadeToken {
    token: PathBuf,
    volume: String,
    role: String,
    expires: String,
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
        PkiCommand::Token {
            dir,
            name,
            role,
            lasts,
        } => return make_token(invocation, dir, name, (*role).into(), *lasts),
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

#[expect(clippy::disallowed_methods, reason = "a token's end")]
fn make_token(
    invocation: &Invocation<'_>,
    dir: &Path,
    name: &str,
    role: Role,
    lasts: Duration,
) -> Result<bool> {
    let claims = Claims {
        volume: invocation.volume.unwrap_or_else(VolumeId::random),
        role,
        bearer: name.to_owned(),
        expires: OffsetDateTime::now_utc()
            .checked_add(lasts.try_into().context("--lasts")?)
            .context("--lasts: such a date cannot be written down")?,
    };
    issue_token(dir, name, &claims)?;
    let made = MadeToken {
        token: dir.join(format!("{name}.token")),
        volume: claims.volume.to_string(),
        role: role.to_string(),
        expires: claims.expires.to_string(),
    };
    if invocation.json {
        print_json(&made)?;
    } else {
        print_text(&format!(
            "{}\nfor volume {}, {}, until {}\n",
            made.token.display(),
            made.volume,
            made.role,
            made.expires
        ))?;
    }
    Ok(true)
}

fn use_from_now_on(invocation: &Invocation<'_>) -> Result<bool> {
    let nodes = invocation.addresses()?;
    if let Some(files) = &invocation.tls {
        Tls::load(files.clone())?;
    }
    if let Some(token) = &invocation.token {
        TokenFile::new(token.clone()).token()?;
    }
    let path = KnownNodes::path().context("this user has no home directory to keep it in")?;
    let mut known = KnownNodes::read(&path)?;
    known.set(&nodes, invocation.tls.as_ref(), invocation.token.as_deref());
    known.write(&path)?;
    if invocation.json {
        print_json(&path)?;
    } else {
        print_text(&format!("{}\n", path.display()))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(lasting("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(lasting("5s"), Ok(Duration::from_secs(5)));
        for bad in ["", "d", "5", "-5s", "5 y", "5ä"] {
            assert!(lasting(bad).is_err(), "{bad}");
        }
    }
}
