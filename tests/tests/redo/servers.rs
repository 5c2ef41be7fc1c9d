//! The two stock servers: one that writes the WAL, and a standby that replays it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pg_quorum_deployment::{Account, Binaries, Server, Settings, ShutdownMode, capture};
use pg_quorum_tests::ports::free_ports;
use pg_quorum_tests::postgres_tests::PostgresTests;
use pg_quorum_tests::scratch::Scratch;
use pg_quorum_types::{ClusterFacts, Lsn};
use postgres::Client;

use crate::steps::Steps;

/// A script for psql.
pub struct Script {
    pub name: &'static str,
    pub text: &'static str,
}

/// A primary without pg_quorum, and a copy of its directory from before the workload.
pub struct Servers {
    pub primary: Server,
    base: PathBuf,
    steps: RefCell<Steps>,
    // Last, so that it is deleted after the server has been killed.
    scratch: Scratch,
}

impl Servers {
    /// A running server whose clean state before is kept as the base, and whose whole log stays.
    ///
    /// Transaction numbers start at 2097152 so that the commit log has a file to lose.
    pub fn start(name: &str, initdb: &[&str], settings: &Settings) -> Servers {
        let account = Account::for_servers().expect("an account for servers");
        let scratch = Scratch::new(&account, name);
        let port = free_ports(1);
        let primary = Server {
            pgdata: scratch.path().join("primary"),
            port,
            log: scratch.path().join("primary.log"),
            binaries: Binaries::locate(),
            account,
        };
        let servers = Servers {
            base: scratch.path().join("base"),
            steps: RefCell::default(),
            primary,
            scratch,
        };
        servers.primary.initdb(initdb).expect("initdb");
        servers.tool(
            "pg_resetwal",
            &[
                "--force",
                "--next-transaction-id=2097152",
                "--multixact-ids=65536,65536",
            ],
        );
        let settings = Settings::local(port, servers.scratch.path())
            .with("fsync", "off")
            .with("max_wal_size", "100GB")
            .with("wal_keep_size", "100GB")
            .with("checkpoint_timeout", "1h")
            .with("max_prepared_transactions", 20)
            .with("track_commit_timestamp", "on")
            .with("wal_consistency_checking", "all")
            .with("wal_compression", "lz4")
            .and(settings);
        servers
            .primary
            .configure(&settings)
            .expect("write postgresql.conf");
        servers.primary.start().expect("start the primary");
        servers.stop();
        copy(&servers.primary.account, &servers.primary.pgdata, &servers.base);
        servers.primary.start().expect("start the primary");
        servers
    }

    pub fn connect(&self) -> Client {
        pg_quorum_tests::sql::connect(&self.primary.uri())
    }

    /// What the server does from now on is this step's, in the table.
    pub fn begin_step(&self, name: &'static str) {
        let begin = pg_quorum_tests::sql::value(&mut self.connect(), "SELECT pg_current_wal_insert_lsn()");
        let begin = begin.parse().expect("an LSN");
        self.steps.borrow_mut().begin(begin, name);
    }

    pub fn stop(&self) {
        self.primary.stop(ShutdownMode::Fast).expect("stop the primary");
    }

    /// Starts the stopped primary as a standby and promotes it: the log goes on on another timeline.
    pub fn promote(&self) {
        let signal = self.primary.pgdata.join("standby.signal");
        std::fs::write(&signal, "").expect("write standby.signal");
        self.primary.account.own(&signal).expect("own standby.signal");
        self.primary.start().expect("start as a standby");
        self.tool("pg_ctl", &["promote", "--wait"]);
    }

    /// Crashes the primary so that its log ends inside a record, and lets it recover.
    ///
    /// The record is a message, which changes no page; a commit behind it brings it to the file. Then the page on which
    /// the message goes on, and all behind it, is lost, as if it had not reached the disk.
    pub fn crash_inside_a_record(&self) {
        let mut client = self.connect();
        let message = "BEGIN; SELECT txid_current(); SELECT pg_logical_emit_message(false, 'torn', repeat('x', 30000)); COMMIT";
        let start: Lsn = pg_quorum_tests::sql::value(&mut client, "SELECT pg_current_wal_insert_lsn()")
            .parse()
            .expect("an LSN");
        pg_quorum_tests::sql::execute(&mut client, message);
        let file = pg_quorum_tests::sql::value(&mut client, &format!("SELECT pg_walfile_name('{start}')"));
        self.primary
            .stop(ShutdownMode::Immediate)
            .expect("stop the primary at once");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(self.pg_wal().join(file))
            .expect("open the segment");
        let segment_bytes = file.metadata().expect("the segment's size").len();
        let lost_from = (start.0 + 8192).next_multiple_of(8192) % segment_bytes;
        assert!(
            lost_from > 8192 && lost_from + 32768 < segment_bytes,
            "the message is inside of one segment"
        );
        // A hole reads as zeros.
        file.set_len(lost_from).expect("cut the segment");
        file.set_len(segment_bytes).expect("lengthen the segment");
        self.primary.start().expect("start the primary");
    }

    /// Runs PostgreSQL's own regression tests, and returns how many scripts they are.
    pub fn core_regression(&self) -> usize {
        self.begin_step("core regression tests");
        PostgresTests::CoreRegression.pass(&self.primary, &self.scratch.path().join("regression"))
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    fn pg_wal(&self) -> PathBuf {
        self.primary.pgdata.join("pg_wal")
    }

    /// Runs a script as a step.
    pub fn script(&self, script: &Script) {
        self.begin_step(script.name);
        self.psql(script.text);
    }

    /// Runs statements with psql, each as its own transaction.
    pub fn psql(&self, statements: &str) {
        let file = self.scratch.path().join("script.sql");
        std::fs::write(&file, statements).expect("write the script");
        let copy_file = self.scratch.path().join("rows.copy");
        let mut psql = self
            .primary
            .account
            .command(self.primary.binaries.postgres("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname"])
            .arg(self.primary.uri())
            .arg(format!("--set=copy_file={}", copy_file.display()))
            .arg("--file")
            .arg(&file);
        capture(&mut psql).expect("the script");
    }

    /// Runs one of PostgreSQL's programs that take a connection string.
    pub fn client_tool(&self, program: &str, arguments: &[&str]) {
        let mut command = self
            .primary
            .account
            .command(self.primary.binaries.postgres(program));
        command
            .args(["--host=127.0.0.1", "--username=postgres", "--port"])
            .arg(self.primary.port.to_string())
            .args(arguments);
        capture(&mut command).expect(program);
    }

    /// Runs one of PostgreSQL's programs that take a stopped server's directory.
    fn tool(&self, program: &str, arguments: &[&str]) -> String {
        self.tool_in(&self.primary.pgdata, program, arguments)
    }

    fn tool_in(&self, pgdata: &Path, program: &str, arguments: &[&str]) -> String {
        let mut command = self
            .primary
            .account
            .command(self.primary.binaries.postgres(program));
        command
            .env("LC_ALL", "C")
            .args(arguments)
            .arg("--pgdata")
            .arg(pgdata);
        capture(&mut command).expect(program)
    }

    /// The cluster's facts, and the start of the shutdown checkpoint that the base ended with.
    pub fn facts(&self) -> (ClusterFacts, Lsn) {
        let text = self.tool_in(&self.base, "pg_controldata", &[]);
        let facts = ClusterFacts {
            system_identifier: number(&text, "Database system identifier"),
            timeline: number(&text, "Latest checkpoint's TimeLineID") as u32,
            wal_segment_bytes: number(&text, "Bytes per WAL segment") as u32,
            data_checksums: number(&text, "Data page checksum version") != 0,
            pg_control_version: number(&text, "pg_control version number") as u32,
            catalog_version: number(&text, "Catalog version number") as u32,
            pg_major: 15,
        };
        (facts, checkpoint(&text))
    }

    /// Ends the primary's life: its log goes to a copy of the base, which is to replay it.
    pub fn hand_over(&self) -> Standby {
        let end = checkpoint(&self.tool("pg_controldata", &[]));
        let account = &self.primary.account;
        let server = Server {
            pgdata: self.scratch.path().join("standby"),
            log: self.scratch.path().join("standby.log"),
            ..self.primary.clone()
        };
        copy(account, &self.base, &server.pgdata);
        std::fs::remove_dir_all(server.pgdata.join("pg_wal")).expect("remove the base's pg_wal");
        // Moved, since with all its images it can be large.
        std::fs::rename(self.pg_wal(), server.pgdata.join("pg_wal")).expect("move pg_wal");
        std::fs::remove_dir_all(&self.primary.pgdata).expect("remove the primary");
        std::fs::write(server.pgdata.join("recovery.signal"), "").expect("write recovery.signal");
        account
            .own(&server.pgdata.join("recovery.signal"))
            .expect("own recovery.signal");
        let settings = Settings::default()
            .with("hot_standby", "off")
            .with("restore_command", "/bin/false")
            .with("wal_recycle", "off")
            .with("recovery_target_lsn", end)
            .with("recovery_target_action", "shutdown")
            .with("recovery_target_timeline", "latest");
        server.configure(&settings).expect("write postgresql.conf");
        Standby { server }
    }

    pub fn steps(&self) -> Steps {
        self.steps.borrow().clone()
    }
}

/// A copy of the base with the primary's log. A replay only reads the log: others may read it meanwhile.
pub struct Standby {
    server: Server,
}

impl Standby {
    pub fn pgdata(&self) -> &Path {
        &self.server.pgdata
    }

    pub fn pg_wal(&self) -> PathBuf {
        self.server.pgdata.join("pg_wal")
    }

    /// Brings it to the end of the log with a stock server, which stops there.
    pub fn replay(&self) {
        let log = std::fs::File::create(&self.server.log).expect("make the standby's log");
        let status = self
            .server
            .account
            .command(self.server.binaries.postgres("postgres"))
            .arg("-D")
            .arg(&self.server.pgdata)
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .expect("run the standby");
        let said = std::fs::read_to_string(&self.server.log).unwrap_or_default();
        assert!(
            status.success() && said.contains("shutdown at recovery target"),
            "the standby did not reach the end ({status}):\n{said}"
        );
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Err(error) = self.primary.kill_everything() {
            eprintln!("{error:#}");
        }
    }
}

fn copy(account: &Account, from: &Path, to: &Path) {
    capture(account.command("cp").arg("-a").arg(from).arg(to)).expect("copy a directory");
}

fn field<'a>(control_data: &'a str, name: &str) -> &'a str {
    control_data
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("pg_controldata prints no {name}"))
        .trim()
}

fn number(control_data: &str, name: &str) -> u64 {
    field(control_data, name).parse().expect("a number")
}

fn checkpoint(control_data: &str) -> Lsn {
    field(control_data, "Latest checkpoint location")
        .parse()
        .expect("an LSN")
}
