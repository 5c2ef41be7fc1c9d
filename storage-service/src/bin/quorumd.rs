//! `quorumd`: a storage node, or all six of them in one process.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use pg_quorum_tls::{Tls, TlsFiles};
use pg_quorum_token::TokenKeys;
use serde::Deserialize;
use storage_service::derived::RedoThreads;
use storage_service::metrics::Endpoint;
use storage_service::node::{Node, NodeConfig};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A storage node of pg_quorum.
///
/// Examples:
///   quorumd --node az1-1 --az az1 --listen 127.0.0.1:7101 --data /var/lib/quorumd
///   quorumd --config /etc/quorumd.toml
///   quorumd --embedded --dir ./nodes --port-base 7100
#[derive(Parser, Debug)]
#[command(version, verbatim_doc_comment)]
struct Flags {
    /// A TOML file with the same settings as the flags (node, az, listen, data, …); flags win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's name. It is written into the data directory, which then belongs to this node.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The node's availability zone.
    #[arg(long, value_name = "NAME")]
    az: Option<String>,
    /// The address to listen on.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The data directory. An empty or missing one is formatted.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Six nodes in this process: az1-1, az1-2, az2-1, az2-2, az3-1, az3-2.
    #[arg(long, requires = "dir", conflicts_with_all = ["config", "node", "az", "listen", "data"])]
    embedded: bool,
    /// Where the embedded nodes have their directories: DIR/NAME/data.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first embedded node's port; the others follow.
    #[arg(long, value_name = "PORT", default_value_t = 7100)]
    port_base: u16,
    /// The address that the embedded nodes listen on.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,

    /// Where Prometheus gets the process's figures: GET http://HOST:PORT/metrics. Left out, nowhere.
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
    /// Certificates of the authority that issues those of nodes and computes, in PEM. With this, --tls-cert and --tls-key
    /// the node speaks mutual TLS only; without all three it speaks in the clear with anybody.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The node's certificate, for servers and for clients, in PEM. Files that are replaced are used for new connections.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Public keys of those who sign tokens (quorumctl pki init: token.pub). With it computes and tools may do what their
    /// tokens say, and nothing without one; needs TLS. A file that is replaced is used from then on.
    #[arg(long, value_name = "FILE")]
    token_key: Option<PathBuf>,

    /// How long an owner that is silent counts as alive.
    #[arg(long, value_name = "MS")]
    lease_ms: Option<u64>,
    /// So much log is kept even if nobody needs it.
    #[arg(long, value_name = "BYTES")]
    log_retention_bytes: Option<u64>,
    /// With how many threads the process turns log into pages at most (as many as there are cores). Those in the
    /// background step back behind everything else.
    #[arg(long, value_name = "N")]
    redo_threads: Option<NonZeroUsize>,
    /// The form of the log messages on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Test only: what is not synced is lost when the process is killed.
    #[arg(long)]
    test_lossy_disk: bool,
    /// Test only: each sync of the log takes so much longer.
    #[arg(long, value_name = "MS")]
    test_append_delay_ms: Option<u64>,
    /// Test only: the log's disk is full when it has so many bytes.
    #[arg(long, value_name = "BYTES")]
    test_disk_quota_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// The configuration file.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    node: Option<String>,
    az: Option<String>,
    listen: Option<String>,
    data: Option<PathBuf>,
    metrics: Option<String>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    token_key: Option<PathBuf>,
    lease_ms: Option<u64>,
    log_retention_bytes: Option<u64>,
    redo_threads: Option<NonZeroUsize>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    start_logging(flags.log_format);
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let file = match &flags.config {
        Some(path) => read_config(path)?,
        None => ConfigFile::default(),
    };
    let nodes = nodes(flags, &file)?;
    let metrics = flags.metrics.as_ref().or(file.metrics.as_ref());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(flags, nodes, metrics.map(String::as_str)))
}

/// Two even on one core: a task that blocks for a moment must not hold up the others.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

async fn serve(flags: &Flags, configs: Vec<NodeConfig>, metrics: Option<&str>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut nodes = Vec::new();
    for config in configs {
        let pid_file = flags.embedded.then(|| config.data.with_file_name("quorumd.pid"));
        match Node::start(config).await {
            Ok(node) => nodes.push(node),
            Err(error) => {
                stop(nodes).await;
                return Err(error.into());
            }
        }
        if let Some(path) = pid_file {
            std::fs::write(&path, format!("{}\n", std::process::id()))
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    let _endpoint = match metrics {
        Some(address) => match tell(address, &nodes).await {
            Ok(endpoint) => Some(endpoint),
            Err(error) => {
                stop(nodes).await;
                return Err(error);
            }
        },
        None => None,
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop(nodes).await;
    Ok(())
}

/// The endpoint for Prometheus.
async fn tell(address: &str, nodes: &[Node]) -> anyhow::Result<Endpoint> {
    let observed = nodes.iter().map(Node::observed).collect();
    let endpoint = Endpoint::start(address, observed)
        .await
        .with_context(|| format!("listening on {address} for Prometheus"))?;
    tracing::info!("figures for Prometheus at http://{}/metrics", endpoint.address());
    Ok(endpoint)
}

async fn stop(nodes: Vec<Node>) {
    futures::future::join_all(nodes.into_iter().map(Node::stop)).await;
}

fn nodes(flags: &Flags, file: &ConfigFile) -> anyhow::Result<Vec<NodeConfig>> {
    let mut nodes = match &flags.dir {
        Some(dir) if flags.embedded => {
            if flags.port_base > u16::MAX - 5 {
                bail!("--port-base {} leaves no room for six ports", flags.port_base);
            }
            NodeConfig::embedded(dir, &flags.host, flags.port_base)
        }
        _ => vec![single(flags, file)?],
    };
    let tls = tls(flags, file)?;
    let token_keys = token_keys(flags, file, tls.is_some())?;
    let redo_threads = flags.redo_threads.or(file.redo_threads);
    let redo_threads = redo_threads.map(RedoThreads::new);
    for node in &mut nodes {
        node.tls.clone_from(&tls);
        node.token_keys.clone_from(&token_keys);
        if let Some(threads) = &redo_threads {
            node.derived.redo_threads = threads.clone();
        }
        if let Some(lease) = flags.lease_ms.or(file.lease_ms) {
            node.lease = Duration::from_millis(lease);
        }
        if let Some(bytes) = flags.log_retention_bytes.or(file.log_retention_bytes) {
            node.log.retention_bytes = bytes;
        }
        if let Some(delay) = flags.test_append_delay_ms {
            node.log.sync_delay = Duration::from_millis(delay);
        }
        node.lossy_disk = flags.test_lossy_disk;
        node.disk_quota_bytes = flags
            .test_disk_quota_bytes
            .map(|bytes| Arc::new(AtomicU64::new(bytes)));
    }
    Ok(nodes)
}

fn tls(flags: &Flags, file: &ConfigFile) -> anyhow::Result<Option<Tls>> {
    let chosen = |flag: &Option<PathBuf>, in_file: &Option<PathBuf>| flag.clone().or_else(|| in_file.clone());
    let files = TlsFiles::from_settings(
        chosen(&flags.tls_ca, &file.tls_ca),
        chosen(&flags.tls_cert, &file.tls_cert),
        chosen(&flags.tls_key, &file.tls_key),
    )
    .context("--tls-ca, --tls-cert and --tls-key go together")?;
    if files.is_none() {
        tracing::warn!(
            "connections are neither encrypted nor authenticated: there is no --tls-ca, --tls-cert and --tls-key"
        );
    }
    Ok(files.map(Tls::load).transpose()?)
}

fn token_keys(flags: &Flags, file: &ConfigFile, has_tls: bool) -> anyhow::Result<Option<TokenKeys>> {
    let Some(path) = flags.token_key.clone().or_else(|| file.token_key.clone()) else {
        return Ok(None);
    };
    if !has_tls {
        bail!("--token-key needs --tls-ca, --tls-cert and --tls-key: tokens are not sent in the clear");
    }
    TokenKeys::load(path).map(Some).context("--token-key")
}

fn single(flags: &Flags, file: &ConfigFile) -> anyhow::Result<NodeConfig> {
    let needed = |flag: &Option<String>, in_file: &Option<String>, name: &str| {
        let value = flag.clone().or_else(|| in_file.clone());
        value.with_context(|| format!("--{name} is missing (or {name} in the configuration file)"))
    };
    let data = flags.data.clone().or_else(|| file.data.clone());
    Ok(NodeConfig::new(
        &needed(&flags.node, &file.node, "node")?,
        &needed(&flags.az, &file.az, "az")?,
        needed(&flags.listen, &file.listen, "listen")?,
        data.context("--data is missing (or data in the configuration file)")?,
    ))
}

fn read_config(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no valid configuration", path.display()))
}
