//! `quorumctl failover`: a compute is told to take the volume.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use pg_quorum_client::pgdata::{ComputeIdentity, request_force};
use serde::Serialize;

use super::Invocation;
use super::output::print_json;

/// Order a compute to take the volume from whoever holds it, at its next start.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  quorumctl failover -D /var/lib/postgresql/15/standby --force\n  \
                        pg_ctl -D /var/lib/postgresql/15/standby restart\n\n\
                        Without such an order a start waits until the lease of a dead owner has run out, and is refused \
                        while the owner lives or if this compute was fenced. The order holds for one start."
)]
pub(super) struct FailoverCommand {
    /// The compute's data directory
    #[arg(short = 'D', long = "pgdata", value_name = "DIR")]
    pgdata: PathBuf,
    /// Yes, also from a living server: it is fenced, and stops
    #[arg(long)]
    force: bool,
}

#[derive(Serialize, Debug)]
struct Ordered {
    pgdata: PathBuf,
    compute: String,
    volume: Option<String>,
}

pub(super) fn run(invocation: &Invocation<'_>, command: &FailoverCommand) -> Result<bool> {
    let pgdata = std::path::absolute(&command.pgdata)?;
    let Some(identity) = ComputeIdentity::load(&pgdata)? else {
        bail!(
            "{} is no compute of a volume. Make one with: quorumctl compute create -D DIR --force",
            pgdata.display()
        );
    };
    if !command.force {
        bail!(
            "a failover takes the volume from its owner, also from a living server, which then stops. If that is \
             wanted, add --force. Without it, just start this compute: it takes the volume over once the owner's \
             lease has run out"
        );
    }
    request_force(&pgdata)?;
    let ordered = Ordered {
        compute: identity.compute.to_string(),
        volume: identity.volume.map(|volume| volume.to_string()),
        pgdata,
    };
    if invocation.json {
        print_json(&ordered)?;
    } else {
        let dir = ordered.pgdata.display();
        println!("The next start of {dir} takes the volume: pg_ctl -D {dir} start (or restart, if it runs)");
    }
    Ok(true)
}
