//! Six node processes and one PostgreSQL server in a scratch directory.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use pg_quorum_deployment::{
    Account, Binaries, Certificates, Layout, Node, NodeFlags, Server, Settings, ShutdownMode, Signal,
    descendants, kill, six_nodes, wait_until_gone,
};
use postgres::Client;

use crate::ports::free_ports;
use crate::scratch::Scratch;
use crate::sql;
use crate::status::NodeStatus;

/// What differs from the usual cluster.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// More flags for every `quorumd`.
    pub node_flags: NodeFlags,
    /// More options for `initdb`.
    pub initdb: Vec<&'static str>,
    /// More settings for every server.
    pub settings: Settings,
    /// Nodes and servers that speak in the clear.
    pub plain: bool,
}

/// Six nodes, and the place of a server. Everything is killed on drop.
pub struct Cluster {
    pub layout: Layout,
    pub nodes: Vec<Node>,
    pub server: Server,
    plan: Plan,
    certificates: Option<Certificates>,
    processes: Vec<Option<Child>>,
    computes: u32,
    // Last, so that it is deleted after everything has been killed.
    _scratch: Scratch,
}

impl Cluster {
    /// Nodes and a running server with an imported cluster.
    ///
    /// # Panics
    /// As everything here: what is part of the set-up must work.
    pub fn start(name: &str) -> Cluster {
        Cluster::start_with(name, Plan::default())
    }

    /// As [`Cluster::start`], with differences.
    ///
    /// # Panics
    /// The set-up fails.
    pub fn start_with(name: &str, plan: Plan) -> Cluster {
        let cluster = Cluster::nodes_only(name, plan);
        cluster.make_cluster();
        cluster.start_server();
        cluster
    }

    /// Running nodes without a volume, and no data directory.
    ///
    /// # Panics
    /// The set-up fails.
    pub fn nodes_only(name: &str, plan: Plan) -> Cluster {
        let mut cluster = Cluster::stopped(name, plan);
        for index in 0..cluster.nodes.len() {
            cluster.start_node(index);
        }
        cluster
    }

    /// The directories only: nothing runs.
    ///
    /// # Panics
    /// The set-up fails.
    pub fn stopped(name: &str, plan: Plan) -> Cluster {
        let account = Account::for_servers().expect("an account for servers");
        let scratch = Scratch::new(&account, name);
        let layout = Layout::new(scratch.path());
        let binaries = Binaries::locate()
            .copy_to(&layout.bin(), &account)
            .expect("quorumd is built");
        account.create_dir(&layout.computes()).expect("make compute/");
        account.create_dir(&layout.sockets()).expect("make run/");
        let make_certificates =
            || Certificates::make(&layout.pki(), &binaries, &account).expect("quorumctl pki");
        let certificates = (!plan.plain).then(make_certificates);
        let port = free_ports(7);
        let nodes = six_nodes(&layout, port + 1);
        let server = Server {
            pgdata: layout.compute("primary"),
            port,
            log: layout.compute_log("primary"),
            binaries,
            account,
        };
        Cluster {
            layout,
            processes: nodes.iter().map(|_| None).collect(),
            nodes,
            server,
            plan,
            certificates,
            computes: 1,
            _scratch: scratch,
        }
    }

    /// `initdb` with the settings of a compute node.
    ///
    /// # Panics
    /// `initdb` fails.
    pub fn make_cluster(&self) {
        self.server.initdb(&self.plan.initdb).expect("initdb");
        self.configure(&self.server);
    }

    /// `initdb` for a server that knows nothing of the nodes.
    ///
    /// # Panics
    /// `initdb` fails.
    pub fn make_stock_cluster(&self, initdb: &[&str]) {
        self.server.initdb(initdb).expect("initdb");
        self.server.trust_loopback().expect("write pg_hba.conf");
        let settings = Settings::local(self.server.port, &self.layout.sockets());
        self.server.configure(&settings).expect("write postgresql.conf");
    }

    fn configure(&self, server: &Server) {
        server.trust_loopback().expect("write pg_hba.conf");
        server
            .configure(&self.settings(server.port))
            .expect("write postgresql.conf");
    }

    /// The settings of a compute node of this volume.
    pub fn settings(&self, port: u16) -> Settings {
        Settings::local(port, &self.layout.sockets())
            .and(&self.quorum_settings())
            .and(&self.plan.settings)
    }

    /// What makes any server a compute node of this volume.
    pub fn quorum_settings(&self) -> Settings {
        let tls = self.certificates.as_ref().map(Certificates::settings);
        Settings::default()
            .with_quorum(&self.addresses())
            .and(&tls.unwrap_or_default())
    }

    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// # Panics
    /// The server does not start.
    pub fn start_server(&self) {
        if let Err(error) = self.server.start() {
            panic!("{error:#}");
        }
    }

    /// Tries to start the server, expecting a refusal; returns what it said.
    ///
    /// # Panics
    /// The server starts.
    pub fn refused_start(&self) -> String {
        refused_start(&self.server)
    }

    /// A clean restart, and an empty local page cache: pages are at the nodes only.
    ///
    /// # Panics
    /// The server does not stop or start.
    pub fn restart_without_cache(&self) {
        self.server.stop(ShutdownMode::Fast).expect("pg_ctl stop");
        self.start_server();
        let mut client = self.connect();
        sql::execute(&mut client, "CREATE EXTENSION IF NOT EXISTS pg_quorum");
        sql::value(&mut client, "SELECT quorum.drop_cache()");
    }

    pub fn connect(&self) -> Client {
        sql::connect(&self.server.uri())
    }

    /// The machine burns down: `kill -9` of every process of the server, and the data directory is gone.
    ///
    /// # Panics
    /// Something survives.
    pub fn burn_compute(&self) {
        self.server.kill_everything().expect("kill the server");
        std::fs::remove_dir_all(&self.server.pgdata).expect("remove PGDATA");
    }

    /// A new, empty data directory for the volume, elsewhere, made by `quorumctl compute create`. It is the cluster's
    /// server from now on; it is not started.
    ///
    /// # Panics
    /// `quorumctl` fails.
    pub fn create_compute(&mut self) {
        self.server = self.another_compute(self.server.port);
    }

    /// As [`Cluster::create_compute`], without taking the place of the cluster's server.
    ///
    /// # Panics
    /// `quorumctl` fails.
    pub fn another_compute(&mut self, port: u16) -> Server {
        self.computes += 1;
        let name = format!("compute-{}", self.computes);
        let server = Server {
            pgdata: self.layout.compute(&name),
            port,
            log: self.layout.compute_log(&name),
            ..self.server.clone()
        };
        let mut command = self.quorumctl();
        command.args(["compute", "create", "-D"]).arg(&server.pgdata);
        pg_quorum_deployment::capture(&mut command).expect("quorumctl compute create");
        self.configure(&server);
        server
    }

    /// While the cluster's server is dead another compute has the volume, runs `statements`, and is killed. Then the
    /// volume is the first one's again, by force; it is not started.
    ///
    /// # Panics
    /// One of these cannot be done.
    pub fn lend_to_another_compute(&mut self, statements: &str) {
        let other = self.another_compute(self.server.port);
        // The dead one's lease runs out first.
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = other.start() {
            assert!(Instant::now() < deadline, "{error:#}");
        }
        sql::execute(&mut sql::connect(&other.uri()), statements);
        other.kill_everything().expect("kill the other server");
        self.take_back_by_force();
    }

    /// The next start of the server takes the volume, whoever has had it since (`quorumctl failover --force`).
    ///
    /// # Panics
    /// `quorumctl` fails.
    pub fn take_back_by_force(&self) {
        let mut force = self.quorumctl();
        force
            .args(["failover", "-D"])
            .arg(&self.server.pgdata)
            .arg("--force");
        assert!(force.status().expect("run quorumctl").success());
    }

    /// `quorumctl` with the nodes' addresses, as the servers' account.
    pub fn quorumctl(&self) -> Command {
        let mut command = self.server.account.command(self.server.binaries.quorumctl());
        command.arg("--nodes").arg(self.addresses().join(","));
        if let Some(certificates) = &self.certificates {
            command.args(certificates.tool_flags());
        }
        command
    }

    /// A new token for the volume in place of the one that server and tools show. It lasts so long: `5s`, `1h`.
    ///
    /// # Panics
    /// The cluster is a plain one, or `quorumctl` fails.
    pub fn renew_token(&self, volume: &str, lasts: &str) {
        assert!(self.certificates.is_some(), "a plain cluster has no tokens");
        let mut command = self.quorumctl();
        command.args(["--volume", volume, "pki", "token", "--lasts", lasts, "--dir"]);
        command.arg(self.layout.pki());
        pg_quorum_deployment::capture(&mut command).expect("quorumctl pki token");
    }

    /// What the nodes say, in the order of `nodes`.
    ///
    /// # Panics
    /// `quorumctl` prints something else than rows of JSON.
    pub fn status(&self) -> Vec<NodeStatus> {
        let output = self
            .quorumctl()
            .args(["--json", "node", "status"])
            .output()
            .expect("run quorumctl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("node status: {error}\n{text}\n{said}"))
    }

    /// Waits until every node holds what the volume had when it was called: a node that was away fetches the rest.
    ///
    /// # Panics
    /// Not within a minute.
    pub fn wait_until_caught_up(&self) {
        let durable = self.status().iter().map(|node| node.vdl).max().unwrap_or(0);
        crate::wait_for("all nodes have caught up", Duration::from_secs(60), || {
            self.status().iter().all(|node| node.scl >= durable)
        });
    }

    /// # Panics
    /// The node does not start.
    pub fn start_node(&mut self, index: usize) {
        let flags = self.plan.node_flags.clone();
        self.start_node_with(index, &flags);
    }

    /// # Panics
    /// The node does not start.
    pub fn start_node_with(&mut self, index: usize, flags: &NodeFlags) {
        let node = &self.nodes[index];
        let mut all_flags = self
            .certificates
            .as_ref()
            .map_or_else(NodeFlags::new, Certificates::node_flags);
        all_flags.extend_from_slice(flags);
        let child = node
            .start(&self.server.binaries, &self.server.account, &all_flags)
            .unwrap_or_else(|error| panic!("{error:#}"));
        self.processes[index] = Some(child);
    }

    fn signal_node(&self, index: usize, signal: Signal) {
        if let Some(child) = &self.processes[index] {
            kill(child.id(), signal);
        }
    }

    /// `kill -9`.
    pub fn kill_node(&mut self, index: usize) {
        self.end_node(index, Signal::KILL);
    }

    /// A graceful stop.
    pub fn stop_node(&mut self, index: usize) {
        self.end_node(index, Signal::TERM);
    }

    fn end_node(&mut self, index: usize, signal: Signal) {
        self.signal_node(index, signal);
        if let Some(mut child) = self.processes[index].take() {
            // Not an error if it has been waited for.
            let _ = child.wait();
        }
    }

    /// SIGSTOP: the node takes nothing and says nothing, but what it has stays.
    pub fn pause_node(&self, index: usize) {
        self.signal_node(index, Signal::STOP);
    }

    pub fn resume_node(&self, index: usize) {
        self.signal_node(index, Signal::CONT);
    }

    /// End of the last record in the data directory of a stopped server, as `pg_waldump` finds it.
    ///
    /// # Panics
    /// `pg_waldump` cannot be run, or prints no record.
    pub fn end_of_local_wal(&self) -> u64 {
        let segments = self.server.pgdata.join("pg_wal");
        let mut names: Vec<String> = std::fs::read_dir(&segments)
            .expect("read pg_wal")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.len() == 24)
            .collect();
        names.sort();
        let last = names.last().expect("a WAL segment");
        // It ends with an error where the log ends: the message names the position.
        let output = Command::new(self.server.binaries.postgres("pg_waldump"))
            .arg(segments.join(last))
            .output()
            .expect("run pg_waldump");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().last().expect("a record in the last segment");
        let field = |name: &str| {
            line.split(name)
                .nth(1)?
                .split([',', ' '])
                .find(|word| !word.is_empty())
        };
        let start = field("lsn: ").and_then(parse_lsn).expect("the record's LSN");
        let length: u64 = line
            .split("tot): ")
            .nth(1)
            .and_then(|rest| rest.split('/').nth(1))
            .and_then(|rest| rest.split(',').next())
            .and_then(|length| length.trim().parse().ok())
            .expect("the record's length");
        // A shutdown checkpoint is too short to reach the next page more than once: nodes count to its aligned end.
        start + length.next_multiple_of(8)
    }

    /// The process of the server's link worker.
    ///
    /// # Panics
    /// There is none.
    pub fn link_worker(&self) -> u32 {
        let postmaster = self.server.postmaster().expect("the server runs");
        let is_link = |pid: &u32| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.contains("pg_quorum link")
        };
        let worker = descendants(postmaster).into_iter().find(is_link);
        worker.expect("the link worker")
    }

    /// What the server has logged since it was made.
    pub fn server_log(&self) -> String {
        std::fs::read_to_string(&self.server.log).unwrap_or_default()
    }
}

/// A position such as `0/16B3748`.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// Tries to start a server, expecting a refusal; returns what it said.
///
/// # Panics
/// The server starts.
pub fn refused_start(server: &Server) -> String {
    match server.start() {
        Ok(()) => panic!("the server in {} started", server.pgdata.display()),
        Err(error) => format!("{error:#}"),
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Every server below compute/, also a second one that a test started.
        for entry in std::fs::read_dir(self.layout.computes())
            .into_iter()
            .flatten()
            .flatten()
        {
            let server = Server {
                pgdata: entry.path(),
                ..self.server.clone()
            };
            if let Some(postmaster) = server.postmaster() {
                kill(postmaster, Signal::CONT);
                if let Err(error) = server.kill_everything() {
                    eprintln!("{error:#}");
                }
            }
        }
        for child in self.processes.iter_mut().flatten() {
            kill(child.id(), Signal::KILL);
            let _ = child.wait();
            wait_until_gone(child.id(), Duration::from_secs(10));
        }
    }
}
