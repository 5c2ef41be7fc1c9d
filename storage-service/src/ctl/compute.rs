//! `quorumctl compute`: data directories of servers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use pg_quorum_client::pgdata::{AuthMethod, NewDirectory, create_directory};
use pg_quorum_client::{StateError, control_file};
use serde::Serialize;

use super::Invocation;
use super::output::{print_json, print_text};

#[derive(Subcommand, Debug)]
pub(super) enum ComputeCommand {
    /// Make a new data directory for an existing volume, in seconds whatever the volume's size
    #[command(
        after_help = "Example:\n  quorumctl --nodes 10.0.0.1:7101,10.0.0.2:7101 compute create -D /var/lib/postgresql/15/new --port 5433\n  \
                      pg_ctl -D /var/lib/postgresql/15/new start\n\n\
                      The directory gets settings of its own: they are not kept in the volume."
    )]
    Create(Create),
}

#[derive(Args, Debug)]
pub(super) struct Create {
    /// The new directory: empty, or not there yet
    #[arg(short = 'D', long = "pgdata", value_name = "DIR")]
    pgdata: PathBuf,
    /// The server's port [default: PostgreSQL's, 5432]
    #[arg(long)]
    port: Option<u16>,
    /// The first start takes the volume from whoever holds it, also from a living server
    #[arg(long)]
    force: bool,
    /// Authentication in pg_hba.conf, for Unix sockets and TCP alike [default: peer for Unix sockets,
    /// scram-sha-256 for TCP from this machine]
    #[arg(long, value_name = "METHOD", value_parser = ["trust", "peer", "scram-sha-256", "md5", "reject"])]
    auth: Option<String>,
    /// Whose the directory becomes, if root calls [default: whoever owns the directory that it is made in]
    #[arg(long, value_name = "UID:GID")]
    owner: Option<String>,
}

pub(super) async fn run(invocation: &Invocation<'_>, command: &ComputeCommand) -> Result<bool> {
    match command {
        ComputeCommand::Create(create) => make(invocation, create).await,
    }
}

#[derive(Serialize, Debug)]
struct Created {
    pgdata: PathBuf,
    volume: String,
    compute: String,
    pg_major: u32,
    force: bool,
}

async fn make(invocation: &Invocation<'_>, create: &Create) -> Result<bool> {
    let config = invocation.config()?;
    let pgdata = std::path::absolute(&create.pgdata).context("-D")?;
    let owner = owner(create.owner.as_deref(), &pgdata)?;
    let volume = match control_file(&config).await {
        Err(StateError::NoVolume) => bail!(
            "the nodes keep no volume yet. Make a cluster with initdb instead, and start it with \
             shared_preload_libraries = 'pg_quorum' and pg_quorum.nodes in its settings: that makes the volume"
        ),
        other => other?,
    };
    let new = NewDirectory {
        pgdata,
        nodes: config.nodes.clone(),
        tls: invocation.tls_files(&config.nodes)?,
        token: invocation.token(&config.nodes)?,
        volume,
        port: create.port,
        auth: auth_method(create.auth.as_deref()),
        owner,
        force: create.force,
    };
    let identity = create_directory(&new)?;
    let created = Created {
        pgdata: new.pgdata,
        volume: new.volume.volume.to_string(),
        compute: identity.compute.to_string(),
        pg_major: new.volume.facts.pg_major,
        force: new.force,
    };
    if invocation.json {
        print_json(&created)?;
    } else {
        print_text(&text(&created, new.volume.owner.map(|owner| owner.to_string())))?;
    }
    Ok(true)
}

fn text(created: &Created, owner: Option<String>) -> String {
    let dir = created.pgdata.display();
    let held = match (owner, created.force) {
        (Some(owner), true) => format!("The first start takes the volume from {owner}, alive or not.\n"),
        (Some(owner), false) => {
            format!("The volume was last held by {owner}: the start is refused while that one lives.\n")
        }
        (None, _) => String::new(),
    };
    format!(
        "{dir} is a compute of volume {volume} (PostgreSQL {major}).\n{held}\
         Look at postgresql.conf, then start it: pg_ctl -D {dir} start\n",
        volume = created.volume,
        major = created.pg_major,
    )
}

/// What `--auth` means.
pub(super) fn auth_method(method: Option<&str>) -> AuthMethod {
    match method {
        None => AuthMethod::default(),
        // There is no peer over TCP: `initdb` makes it ident there, which nobody wants.
        Some("peer") => AuthMethod {
            local: "peer".to_owned(),
            ..AuthMethod::default()
        },
        Some(method) => AuthMethod {
            local: method.to_owned(),
            host: method.to_owned(),
        },
    }
}

/// A server refuses to run as root, and to use a directory of another account.
pub(super) fn owner(wanted: Option<&str>, pgdata: &Path) -> Result<Option<(u32, u32)>> {
    if let Some(text) = wanted {
        let parse = || {
            let (user, group) = text.split_once(':')?;
            Some((user.parse().ok()?, group.parse().ok()?))
        };
        return match parse() {
            Some(owner) => Ok(Some(owner)),
            None => {
                bail!("--owner {text}: two numbers with a colon between them are wanted, such as 106:113")
            }
        };
    }
    let existing = pgdata
        .ancestors()
        .find_map(|directory| std::fs::metadata(directory).ok())
        .context("no directory stands above the new one")?;
    let caller = std::fs::metadata("/proc/self").context("who calls?")?.uid();
    if caller != 0 {
        return Ok(None);
    }
    if existing.uid() == 0 {
        bail!(
            "PostgreSQL does not run as root, and the directory would be root's: call this as the server's account, \
             or name the account with --owner UID:GID"
        );
    }
    Ok(Some((existing.uid(), existing.gid())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_is_for_unix_sockets_only() {
        assert_eq!(auth_method(Some("peer")).host, "scram-sha-256");
        assert_eq!(auth_method(Some("trust")).host, "trust");
        assert_eq!(auth_method(None).local, "peer");
    }
}
