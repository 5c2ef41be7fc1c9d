//! Storage nodes as processes: `quorumd`, one for each node or one for all six.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::process::{is_alive, is_alive_as, kill, wait_until_gone};
use crate::{Account, Binaries, Layout, NODE_NAMES};

/// How long a node may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to stop when asked to, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Additional command-line flags of `quorumd`.
pub type NodeFlags = Vec<String>;

/// One storage node's place.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub az: String,
    pub port: u16,
    /// Holds `quorumd.pid`, `quorumd.log` and `data/`.
    pub directory: PathBuf,
}

/// The six nodes of a deployment, on adjacent ports.
pub fn six_nodes(layout: &Layout, port_base: u16) -> Vec<Node> {
    let node = |(name, port): (&&str, u16)| Node {
        name: (*name).to_owned(),
        az: name.split('-').next().unwrap_or(name).to_owned(),
        port,
        directory: layout.node(name),
    };
    NODE_NAMES.iter().zip(port_base..).map(node).collect()
}

impl Node {
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("quorumd.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join("quorumd.pid")
    }

    /// The process that the pid file names, if it lives.
    pub fn running_pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        is_alive_as(pid, "quorumd").then_some(pid)
    }

    /// Starts `quorumd` for this node alone and waits until it listens.
    ///
    /// # Errors
    /// It ends at once, or does not listen in time.
    pub fn start(&self, binaries: &Binaries, account: &Account, flags: &NodeFlags) -> Result<Child> {
        account.create_dir(&self.directory)?;
        let mut command = account.command(binaries.quorumd());
        command
            .args([
                "--node",
                &self.name,
                "--az",
                &self.az,
                "--listen",
                &self.address(),
                "--data",
            ])
            .arg(self.data())
            .args(flags);
        let mut child = spawn(&mut command, &self.log(), account)?;
        self.write_pid(child.id(), account)?;
        wait_until_listening(&mut child, self, &self.log())?;
        Ok(child)
    }

    fn write_pid(&self, pid: u32, account: &Account) -> Result<()> {
        let path = self.pid_file();
        fs::write(&path, format!("{pid}\n")).with_context(|| format!("write {}", path.display()))?;
        account.own(&path)
    }

    /// Asks the node's process to stop and waits for it. An embedded process stops with all six nodes.
    pub fn stop(&self) {
        if let Some(pid) = self.running_pid() {
            kill(pid, Signal::TERM);
            if !wait_until_gone(pid, STOP_TIMEOUT) {
                kill(pid, Signal::KILL);
                wait_until_gone(pid, STOP_TIMEOUT);
            }
        }
        let _ = fs::remove_file(self.pid_file());
    }
}

/// Starts one process with all six nodes and waits until they listen. Its log is `DIR/nodes/quorumd.log`.
///
/// # Errors
/// It ends at once, or does not listen in time.
pub fn start_embedded(
    layout: &Layout,
    nodes: &[Node],
    binaries: &Binaries,
    account: &Account,
    flags: &NodeFlags,
) -> Result<Child> {
    account.create_dir(&layout.nodes())?;
    for node in nodes {
        account.create_dir(&node.directory)?;
    }
    let first = nodes.first().context("no nodes")?;
    let log = layout.nodes().join("quorumd.log");
    let mut command = account.command(binaries.quorumd());
    command
        .args(["--embedded", "--port-base", &first.port.to_string(), "--dir"])
        .arg(layout.nodes())
        .args(flags);
    let mut child = spawn(&mut command, &log, account)?;
    for node in nodes {
        wait_until_listening(&mut child, node, &log)?;
        node.write_pid(child.id(), account)?;
    }
    Ok(child)
}

/// Starts a server process that outlives us: its own process group, its output in a log file.
fn spawn(command: &mut Command, log: &Path, account: &Account) -> Result<Child> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    account.own(log)?;
    command.stdout(file.try_clone()?).stderr(file).process_group(0);
    command
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))
}

fn wait_until_listening(child: &mut Child, node: &Node, log: &Path) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if std::net::TcpStream::connect(("127.0.0.1", node.port)).is_ok() {
            return Ok(());
        }
        // A child that ended is a zombie until it is waited for.
        if child.try_wait()?.is_some() || !is_alive(child.id()) {
            bail!("node {} ended at once; it said:\n{}", node.name, tail(log));
        }
        if Instant::now() > deadline {
            bail!(
                "node {} does not listen on {}; it said:\n{}",
                node.name,
                node.address(),
                tail(log)
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_nodes_are_two_in_each_of_three_zones() {
        let nodes = six_nodes(&Layout::new(Path::new("/d")), 100);
        let seen: Vec<_> = nodes
            .iter()
            .map(|node| (node.name.as_str(), node.az.as_str(), node.port))
            .collect();
        assert_eq!(seen[0], ("az1-1", "az1", 100));
        assert_eq!(seen[5], ("az3-2", "az3", 105));
        assert_eq!(nodes[2].data(), Path::new("/d/nodes/az2-1/data"));
    }
}
