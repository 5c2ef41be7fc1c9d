//! `quorumctl`: what is the volume's state, what is each node's, make a compute, order a failover.
//!
//! Every command prints text for people or, with `--json`, one JSON value for scripts; errors go to standard
//! error and say what to do. The exit status is 0, 1 after a failure, 2 for a wrong command line.

mod compute;
mod export;
mod failover;
mod known_nodes;
mod node;
mod output;
mod pki;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use pg_quorum_client::ClientConfig;
use pg_quorum_tls::{Tls, TlsFiles};
use pg_quorum_token::TokenFile;
use pg_quorum_types::VolumeId;

use known_nodes::KnownNodes;

/// Shows and manages pg_quorum volumes, storage nodes and computes.
#[derive(Parser, Debug)]
#[command(
    name = "quorumctl",
    version,
    after_help = "Example:\n  quorumctl --nodes 10.0.0.1:7101,10.0.0.2:7101,10.0.1.1:7101,10.0.1.2:7101,10.0.2.1:7101,10.0.2.2:7101 volume show"
)]
struct Cli {
    /// Addresses of the storage nodes, separated by commas
    #[arg(long, env = "PG_QUORUM_NODES", global = true, value_name = "HOST:PORT,…")]
    nodes: Option<String>,
    /// The volume, where nodes might keep several
    #[arg(long, global = true, value_name = "UUID")]
    volume: Option<uuid::Uuid>,
    /// Certificates of the nodes' authority (PEM); needs --tls-cert and --tls-key [default: what `pki use` was told about the
    /// nodes, else connections in the clear]
    #[arg(long, env = "PG_QUORUM_TLS_CA", global = true, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The certificate to show to the nodes (PEM)
    #[arg(long, env = "PG_QUORUM_TLS_CERT", global = true, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, env = "PG_QUORUM_TLS_KEY", global = true, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// A file with a token for the volume (quorumctl pki token), where nodes want one; needs certificates [default: as they]
    #[arg(long, env = "PG_QUORUM_TOKEN", global = true, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The volume that the nodes keep
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// The storage nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Compute directories (PGDATA)
    #[command(subcommand)]
    Compute(compute::ComputeCommand),
    /// Certificates and tokens for nodes and computes
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// Let a compute take the volume from whoever holds it, at its next start
    Failover(failover::FailoverCommand),
}

/// What every command needs.
struct Invocation<'a> {
    nodes: Option<&'a str>,
    volume: Option<VolumeId>,
    tls: Option<TlsFiles>,
    token: Option<PathBuf>,
    json: bool,
}

impl Invocation<'_> {
    fn addresses(&self) -> Result<Vec<String>> {
        Ok(self.parsed()?.nodes)
    }

    fn parsed(&self) -> Result<ClientConfig> {
        let Some(nodes) = self.nodes else {
            bail!(
                "which nodes? Give their addresses with --nodes or in the environment variable PG_QUORUM_NODES"
            );
        };
        ClientConfig::parse(nodes).context("--nodes")
    }

    /// Those of the command line, else what the user's own file says about these nodes.
    fn tls_files(&self, nodes: &[String]) -> Result<Option<TlsFiles>> {
        if self.tls.is_some() {
            return Ok(self.tls.clone());
        }
        Ok(known()?.find(nodes))
    }

    /// As [`Invocation::tls_files`].
    fn token(&self, nodes: &[String]) -> Result<Option<PathBuf>> {
        if self.token.is_some() || self.tls.is_some() {
            return Ok(self.token.clone());
        }
        Ok(known()?.token(nodes))
    }

    fn config(&self) -> Result<ClientConfig> {
        let mut config = self.parsed()?;
        config.volume = self.volume;
        config.transport.token = self.token(&config.nodes)?.map(TokenFile::new);
        config.transport.tls = self.tls_files(&config.nodes)?.map(Tls::load).transpose()?;
        Ok(config)
    }
}

/// What the user's own file says.
fn known() -> Result<KnownNodes> {
    KnownNodes::path().map_or_else(|| Ok(KnownNodes::default()), |path| KnownNodes::read(&path))
}

/// Runs the command line. What `quorumctl` does.
pub fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quorumctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run(cli: &Cli) -> Result<bool> {
    let absolute = |path: &Option<PathBuf>| path.as_deref().map(std::path::absolute).transpose();
    let tls = TlsFiles::from_settings(
        absolute(&cli.tls_ca)?,
        absolute(&cli.tls_cert)?,
        absolute(&cli.tls_key)?,
    )
    .context("--tls-ca, --tls-cert and --tls-key go together")?;
    let context = Invocation {
        nodes: cli.nodes.as_deref(),
        volume: cli.volume.map(VolumeId),
        tls,
        token: absolute(&cli.token)?,
        json: cli.json,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match &cli.command {
            Command::Volume(command) => volume::run(&context, command).await,
            Command::Node(command) => node::run(&context, command).await,
            Command::Compute(command) => compute::run(&context, command).await,
            Command::Pki(command) => pki::run(&context, command),
            Command::Failover(command) => failover::run(&context, command),
        }
    })
}
