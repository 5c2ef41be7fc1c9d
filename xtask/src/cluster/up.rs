//! `cargo xtask up`: from a fresh machine, or from whatever is there, to a running deployment.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use pg_quorum_deployment::{
    Account, Binaries, Certificates, Layout, Node, NodeFlags, Server, Settings, capture, six_nodes,
    start_embedded, workspace_root,
};

use super::record::Record;
use crate::{report, setup};

const DEFAULT_PORT_BASE: u16 = 15432;

#[derive(Args)]
pub struct UpOptions {
    /// Where everything is kept.
    #[arg(long, default_value_os_t = default_directory())]
    dir: PathBuf,
    /// Six node processes instead of one with all six.
    #[arg(long)]
    processes: bool,
    /// Connections in the clear between server, nodes and tools.
    #[arg(long)]
    no_tls: bool,
    /// Read replicas (there are none yet: only 0 is possible).
    #[arg(long, default_value_t = 0)]
    replicas: u16,
    /// The server's port; the nodes take six, from ten above it [default: 15432, or as the directory says].
    #[arg(long)]
    port_base: Option<u16>,
}

/// `cluster/` in the workspace.
pub fn default_directory() -> PathBuf {
    workspace_root().join("cluster")
}

/// Brings a deployment up and prints what to connect to.
///
/// # Errors
/// Any step's, each with what to do about it.
pub fn up(options: &UpOptions) -> Result<()> {
    if options.replicas > 0 {
        bail!("--replicas {}: read replicas are not there yet", options.replicas);
    }
    setup::install_packages()?;
    let account = Account::for_servers()?;
    let (directory, record) = open_directory(options, &account)?;
    setup::build()?;
    let built = Binaries::locate();
    setup::install_extension(&built)?;
    let layout = Layout::new(&directory);
    let binaries = built.copy_to(&layout.bin(), &account)?;
    let nodes = six_nodes(&layout, record.node_port_base());
    let certificates = record
        .tls
        .then(|| Certificates::make(&layout.pki(), &binaries, &account))
        .transpose()?;
    start_nodes(
        &layout,
        &nodes,
        record,
        certificates.as_ref(),
        &binaries,
        &account,
    )?;
    let server = Server {
        pgdata: layout.compute("primary"),
        port: record.primary_port(),
        log: layout.compute_log("primary"),
        binaries,
        account,
    };
    let tools = Tools {
        addresses: nodes.iter().map(Node::address).collect(),
        certificates,
    };
    start_server(&layout, &tools, &server)?;
    tools.use_by_default(&server)?;
    print_result(&layout, &tools, &server)
}

/// Makes the directory, or takes the one that is there with the ports that it was made with.
fn open_directory(options: &UpOptions, account: &Account) -> Result<(PathBuf, Record)> {
    account.create_dir(&options.dir)?;
    let directory = options.dir.canonicalize()?;
    if !account.can_enter(&directory) {
        bail!(
            "the user {}, who runs the servers, cannot reach {}: choose another directory with --dir",
            account.name,
            directory.display()
        );
    }
    let found = Record::read(&directory)?;
    let record = found.unwrap_or(Record {
        port_base: options.port_base.unwrap_or(DEFAULT_PORT_BASE),
        processes: options.processes,
        tls: !options.no_tls,
    });
    if options
        .port_base
        .is_some_and(|port_base| port_base != record.port_base)
    {
        bail!(
            "{} was made with --port-base {}",
            directory.display(),
            record.port_base
        );
    }
    if options.no_tls && record.tls {
        bail!("{} was made with TLS", directory.display());
    }
    if options.processes && !record.processes {
        bail!("{} was made without --processes", directory.display());
    }
    if record.port_base < 1024 || record.port_base > u16::MAX - 16 {
        bail!(
            "--port-base {}: choose one from 1024 to {}",
            record.port_base,
            u16::MAX - 16
        );
    }
    if found.is_none() {
        let ports = std::iter::once(record.primary_port())
            .chain(record.node_port_base()..record.node_port_base() + 6);
        for port in ports {
            if std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
                bail!("port {port} is taken: choose another range with --port-base");
            }
        }
        record.write(&directory)?;
    }
    Ok((directory, record))
}

fn start_nodes(
    layout: &Layout,
    nodes: &[Node],
    record: Record,
    certificates: Option<&Certificates>,
    binaries: &Binaries,
    account: &Account,
) -> Result<()> {
    let stopped: Vec<&Node> = nodes.iter().filter(|node| node.running_pid().is_none()).collect();
    if stopped.is_empty() {
        return Ok(());
    }
    report::step("Starting the storage nodes");
    let flags = certificates.map_or_else(NodeFlags::new, Certificates::node_flags);
    if record.processes {
        for node in stopped {
            node.start(binaries, account, &flags)?;
        }
    } else {
        start_embedded(layout, nodes, binaries, account, &flags)?;
    }
    Ok(())
}

fn start_server(layout: &Layout, tools: &Tools, server: &Server) -> Result<()> {
    if server.postmaster().is_some() {
        return Ok(());
    }
    server.account.create_dir(&layout.computes())?;
    server.account.create_dir(&layout.sockets())?;
    if !server.exists() {
        if tools.volume_id(server)?.is_some() {
            report::step("The data directory is gone: making a new one for the volume");
            capture(
                tools
                    .quorumctl(server)
                    .args(["compute", "create", "-D"])
                    .arg(&server.pgdata),
            )?;
        } else {
            report::step("Making a cluster (initdb)");
            server.initdb(&[])?;
        }
        server.trust_loopback()?;
        let tls = tools.certificates.as_ref().map(Certificates::settings);
        let settings = Settings::local(server.port, &layout.sockets())
            .with_quorum(&tools.addresses)
            .and(&tls.unwrap_or_default());
        server.configure(&settings)?;
    }
    report::step("Starting the server");
    server.start_with(&mut |line| {
        if line.contains("pg_quorum") {
            report::detail(line);
        }
    })
}

/// How `quorumctl` reaches the nodes.
struct Tools {
    addresses: Vec<String>,
    certificates: Option<Certificates>,
}

impl Tools {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--nodes".to_owned(), self.addresses.join(",")];
        arguments.extend(self.certificates.iter().flat_map(Certificates::tool_flags));
        arguments
    }

    /// As the servers' account.
    fn quorumctl(&self, server: &Server) -> Command {
        let mut command = server.account.command(server.binaries.quorumctl());
        command.args(self.arguments());
        command
    }

    /// Whoever calls us may then call `quorumctl --nodes` without the certificates' names, as may the servers' account.
    fn use_by_default(&self, server: &Server) -> Result<()> {
        let mut callers = Command::new(server.binaries.quorumctl());
        callers.args(self.arguments());
        for mut command in [callers, self.quorumctl(server)] {
            capture(command.args(["pki", "use"]))?;
        }
        Ok(())
    }

    /// The volume that the nodes keep, `None` if they keep none.
    fn volume_id(&self, server: &Server) -> Result<Option<String>> {
        let text = capture(self.quorumctl(server).args(["--json", "node", "status"]))?;
        find_volume(&text)
    }
}

/// The first volume named in what `quorumctl --json node status` prints: an array with an object for each node.
fn find_volume(status: &str) -> Result<Option<String>> {
    let rows: serde_json::Value =
        serde_json::from_str(status).context("quorumctl node status printed no JSON")?;
    let volume = |row: &serde_json::Value| Some(row.get("volume")?.as_str()?.to_owned());
    Ok(rows
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(volume)
        .find(|volume| !volume.is_empty()))
}

fn print_result(layout: &Layout, tools: &Tools, server: &Server) -> Result<()> {
    let volume = tools
        .volume_id(server)?
        .context("the nodes keep no volume after the server's start")?;
    println!("primary_uri={}", server.uri());
    println!("pgdata={}", server.pgdata.display());
    println!("nodes={}", tools.addresses.join(","));
    println!("volume={volume}");
    if let Some(certificates) = &tools.certificates {
        println!("tls_ca={}", certificates.authority().display());
        println!("tls_cert={}", certificates.compute().display());
        println!("tls_key={}", certificates.compute_key().display());
        if let Some(token) = certificates.token() {
            println!("token={}", token.display());
        }
    }
    print_hints(&layout.root, server);
    Ok(())
}

/// What to try, on standard error: standard output is for scripts.
fn print_hints(directory: &Path, server: &Server) {
    eprintln!(
        "\nA development server: it listens on the loopback address only and asks for no password. Try\n\n  \
         psql \"{uri}\" -c 'CREATE EXTENSION pg_quorum' -c 'TABLE quorum.segments'\n  \
         pgbench -i -s 10 \"{uri}\" && pgbench -c 8 -T 10 \"{uri}\"\n  \
         cargo xtask down --dir {dir} && rm -rf {pgdata} && cargo xtask up --dir {dir}\n",
        uri = server.uri(),
        dir = directory.display(),
        pgdata = server.pgdata.display(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_is_the_first_one_that_a_node_names() {
        let status = r#"[{"node":"a","volume":null},{"node":"b","volume":"v1"},{"error":"refused"}]"#;
        assert_eq!(find_volume(status).unwrap().as_deref(), Some("v1"));
        assert_eq!(find_volume(r#"[{"node":"a","volume":""}]"#).unwrap(), None);
        assert!(find_volume("no").is_err());
    }
}
