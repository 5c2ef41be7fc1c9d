//! The clusters that are measured: ours, one whose commits wait for six log receivers, and a plain one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pg_quorum_deployment::{
    Account, Binaries, Layout, Node, NodeFlags, Server, Settings, ShutdownMode, Signal, kill, run, six_nodes,
    workspace_root,
};

use super::BenchOptions;
use super::psql::{fill, number};
use crate::report;
use crate::setup::cargo;

const RECEIVERS: u32 = 6;
/// How many of the receivers a commit waits for.
const RECEIVER_QUORUM: u32 = 4;

/// What all benchmarks share.
pub struct Bench<'a> {
    pub options: &'a BenchOptions,
    pub account: Account,
    pub binaries: Binaries,
    pub root: PathBuf,
}

/// A server with whatever it depends on; everything stops on drop and its files go.
pub struct Rig {
    pub server: Server,
    pub nodes: Vec<Node>,
    layout: Layout,
    pub processes: Vec<Child>,
}

impl<'a> Bench<'a> {
    pub fn prepare(options: &'a BenchOptions) -> Result<Bench<'a>> {
        let account = Account::for_servers()?;
        let root = options
            .dir
            .clone()
            .unwrap_or_else(|| workspace_root().join("target/bench"));
        account.create_dir(&root)?;
        if !account.can_enter(&root) {
            bail!(
                "the user {} cannot reach {}: choose another directory with --dir",
                account.name,
                root.display()
            );
        }
        let binaries = Binaries::locate().copy_to(&root.join("bin"), &account)?;
        Ok(Bench {
            options,
            account,
            binaries,
            root,
        })
    }

    fn rig(&self, name: &str, port: u16) -> Result<Rig> {
        let root = self.root.join(name);
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
        }
        let layout = Layout::new(&root);
        self.account.create_dir(&layout.computes())?;
        self.account.create_dir(&layout.sockets())?;
        let server = Server {
            pgdata: layout.compute("primary"),
            port,
            log: layout.compute_log("primary"),
            binaries: self.binaries.clone(),
            account: self.account.clone(),
        };
        server.initdb(&[])?;
        server.trust_loopback()?;
        Ok(Rig {
            server,
            nodes: Vec::new(),
            layout,
            processes: Vec::new(),
        })
    }

    /// The same settings for every server, so that only the way to durability differs.
    fn common_settings(rig: &Rig) -> Settings {
        Settings::local(rig.server.port, &rig.layout.sockets())
            .with("shared_buffers", "256MB")
            .with("max_wal_size", "4GB")
            .with("wal_level", "replica")
    }

    /// Stock PostgreSQL with fsync.
    pub fn plain(&self) -> Result<Rig> {
        let rig = self.rig("plain", self.options.port_base)?;
        rig.server.configure(&Self::common_settings(&rig))?;
        rig.server.start()?;
        fill(&rig.server, self.options.scale)?;
        Ok(rig)
    }

    /// Stock PostgreSQL whose commits wait for any four of six `pg_receivewal --synchronous`.
    pub fn receivers(&self) -> Result<Rig> {
        let mut rig = self.rig("receivers", self.options.port_base + 1)?;
        let names: Vec<String> = (1..=RECEIVERS)
            .map(|number| format!("receiver{number}"))
            .collect();
        let settings = Self::common_settings(&rig).with("wal_keep_size", "4GB");
        rig.server.configure(&settings)?;
        rig.server.start()?;
        for name in &names {
            let directory = rig.layout.root.join(name);
            self.account.create_dir(&directory)?;
            let mut command = self.account.command(self.binaries.postgres("pg_receivewal"));
            let connection = format!(
                "host=127.0.0.1 port={} user=postgres application_name={name}",
                rig.server.port
            );
            command
                .arg("--synchronous")
                .arg("--directory")
                .arg(&directory)
                .arg("--dbname")
                .arg(connection);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            rig.processes
                .push(command.spawn().context("start pg_receivewal")?);
        }
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let deadline = Instant::now() + Duration::from_secs(60);
        while number(&rig.server, streaming)? < f64::from(RECEIVERS) {
            if Instant::now() > deadline {
                bail!("the six log receivers do not stream");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let standbys = format!("ANY {RECEIVER_QUORUM} ({})", names.join(", "));
        super::psql::psql(
            &rig.server,
            &format!("ALTER SYSTEM SET synchronous_standby_names = '{standbys}'"),
        )?;
        super::psql::psql(&rig.server, "SELECT pg_reload_conf()")?;
        fill(&rig.server, self.options.scale)?;
        Ok(rig)
    }

    /// pg_quorum on six node processes.
    pub fn quorum(&self) -> Result<Rig> {
        let rig = self.adopted("quorum", |_| Ok(()))?;
        rig.server.start()?;
        super::psql::psql(&rig.server, "CREATE EXTENSION pg_quorum")?;
        fill(&rig.server, self.options.scale)?;
        Ok(rig)
    }

    /// A cluster that `prepare` has filled as a stock server's, and has stopped; six node processes without a volume, and
    /// settings with which the next start imports it.
    pub fn adopted(&self, name: &str, prepare: impl FnOnce(&Rig) -> Result<()>) -> Result<Rig> {
        let mut rig = self.rig(name, self.options.port_base + 2)?;
        rig.server.configure(&Self::common_settings(&rig))?;
        prepare(&rig)?;
        rig.nodes = six_nodes(&rig.layout, self.options.port_base + 10);
        for node in &rig.nodes {
            rig.processes
                .push(node.start(&self.binaries, &self.account, &NodeFlags::new())?);
        }
        let addresses: Vec<String> = rig.nodes.iter().map(Node::address).collect();
        rig.server
            .configure(&Settings::default().with_quorum(&addresses))?;
        Ok(rig)
    }
}

impl Rig {
    /// Restarts the server, first changing these settings for good.
    pub fn restart_with(&self, settings: &[(&str, &str)]) -> Result<()> {
        for (name, value) in settings {
            super::psql::psql(&self.server, &format!("ALTER SYSTEM SET {name} = '{value}'"))?;
        }
        self.server.stop(ShutdownMode::Fast)?;
        self.server.start()
    }

    /// A copy of the stopped server's files: where a replay of what it writes next begins.
    pub fn copy_of_stopped_server(&self) -> Result<Server> {
        let mut copy = self.server.clone();
        copy.pgdata = self.server.pgdata.with_file_name("base");
        copy.log = self.server.log.with_file_name("base.log");
        copy_tree(&self.server, &self.server.pgdata, &copy.pgdata)?;
        Ok(copy)
    }

    /// The directory that everything of it is in.
    pub fn root(&self) -> &Path {
        &self.layout.root
    }

    /// One node's place, not started.
    pub fn single_node(&self, bench: &Bench<'_>) -> Result<Node> {
        let nodes = six_nodes(&self.layout, bench.options.port_base + 10);
        nodes.into_iter().next().context("no nodes")
    }
}

pub fn copy_tree(server: &Server, from: &Path, to: &Path) -> Result<()> {
    run(server.account.command("cp").args(["-a", "--"]).arg(from).arg(to))
}

/// Builds a benchmark's driver, a program of the tests' crate. Returns its path.
pub fn build_driver(name: &str) -> Result<PathBuf> {
    run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "pg-quorum-tests",
        "--bin",
        name,
    ]))?;
    Ok(Binaries::locate().ours.join(name))
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.server.postmaster().is_some()
            && let Err(error) = self.server.stop(ShutdownMode::Immediate)
        {
            report::detail(&format!("{error:#}"));
        }
        for process in &mut self.processes {
            kill(process.id(), Signal::KILL);
            // It is gone either way.
            let _ = process.wait();
        }
        if let Err(error) = fs::remove_dir_all(&self.layout.root) {
            report::detail(&format!("cannot remove {}: {error}", self.layout.root.display()));
        }
    }
}
