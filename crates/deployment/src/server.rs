//! One PostgreSQL server: its data directory, its start, its several ends.

use std::fmt;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::process::{descendants, is_alive_as, kill, wait_until_reaped};
use crate::{Account, Binaries, Settings, capture};

/// How long `pg_ctl` waits for a server to start: a first import of a large cluster takes its time.
const START_TIMEOUT_SECONDS: u32 = 3600;
/// How long `pg_ctl` waits for a server to stop.
const STOP_TIMEOUT_SECONDS: u32 = 120;

/// A PGDATA directory and how to run a server in it.
#[derive(Clone, Debug)]
pub struct Server {
    pub pgdata: PathBuf,
    pub port: u16,
    pub log: PathBuf,
    pub binaries: Binaries,
    pub account: Account,
}

/// `pg_ctl stop`'s modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShutdownMode {
    Smart,
    Fast,
    Immediate,
}

impl ShutdownMode {
    fn as_str(self) -> &'static str {
        match self {
            ShutdownMode::Smart => "smart",
            ShutdownMode::Fast => "fast",
            ShutdownMode::Immediate => "immediate",
        }
    }
}

/// The server did not start; this is what it said.
#[derive(Debug)]
pub struct StartFailed {
    pub said: String,
}

impl fmt::Display for StartFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server did not start; it said:\n{}", self.said)
    }
}

impl std::error::Error for StartFailed {}

impl Server {
    /// Makes a new cluster: superuser `postgres`, locale C.UTF-8, no passwords.
    ///
    /// # Errors
    /// `initdb`'s.
    pub fn initdb(&self, options: &[&str]) -> Result<()> {
        if let Some(parent) = self.pgdata.parent() {
            self.account.create_dir(parent)?;
        }
        let mut command = self.account.command(self.binaries.postgres("initdb"));
        command
            .args([
                "--username=postgres",
                "--auth=trust",
                "--locale=C.UTF-8",
                "--encoding=UTF8",
            ])
            .args(options)
            .arg("--pgdata")
            .arg(&self.pgdata);
        capture(&mut command)?;
        Ok(())
    }

    /// Adds settings at the end of `postgresql.conf`, where they win over what stands above them.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn configure(&self, settings: &Settings) -> Result<()> {
        let path = self.pgdata.join("postgresql.conf");
        let mut text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        text.push('\n');
        text.push_str(&settings.to_conf());
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Lets everybody on this machine connect without a password.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn trust_loopback(&self) -> Result<()> {
        let path = self.pgdata.join("pg_hba.conf");
        let text = "local all all trust\n\
                    host all all 127.0.0.1/32 trust\n\
                    local replication all trust\n\
                    host replication all 127.0.0.1/32 trust\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        self.account.own(&path)
    }

    pub fn exists(&self) -> bool {
        self.pgdata.join("PG_VERSION").exists()
    }

    /// The postmaster, if it lives.
    pub fn postmaster(&self) -> Option<u32> {
        postmaster_pid(&self.pgdata).filter(|pid| is_alive_as(*pid, "postgres"))
    }

    pub fn uri(&self) -> String {
        self.database_uri("postgres")
    }

    pub fn database_uri(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Starts the server and waits until it accepts connections. `progress` gets each line that it logs meanwhile.
    ///
    /// # Errors
    /// [`StartFailed`] with what it logged during this start.
    pub fn start_with(&self, progress: &mut dyn FnMut(&str)) -> Result<()> {
        let mut log = LogReader::at_end(&self.log);
        let mut command = self.account.command(self.binaries.postgres("pg_ctl"));
        command
            .args([
                "start",
                "--silent",
                "--wait",
                "--timeout",
                &START_TIMEOUT_SECONDS.to_string(),
                "--pgdata",
            ])
            .arg(&self.pgdata)
            .arg("--log")
            .arg(&self.log)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut pg_ctl = command.spawn().context("start pg_ctl")?;
        let mut said = String::new();
        let status = loop {
            let ended = pg_ctl.try_wait()?;
            for line in log.new_lines() {
                progress(&line);
                said.push_str(&line);
                said.push('\n');
            }
            if let Some(status) = ended {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if status.success() {
            Ok(())
        } else {
            Err(StartFailed { said }.into())
        }
    }

    /// As [`Server::start_with`], quietly.
    ///
    /// # Errors
    /// [`StartFailed`].
    pub fn start(&self) -> Result<()> {
        self.start_with(&mut |_| {})
    }

    /// `pg_ctl stop`.
    ///
    /// # Errors
    /// The server does not stop in time, or is not running.
    pub fn stop(&self, mode: ShutdownMode) -> Result<()> {
        let mut command = self.account.command(self.binaries.postgres("pg_ctl"));
        command
            .args([
                "stop",
                "--wait",
                "--timeout",
                &STOP_TIMEOUT_SECONDS.to_string(),
                "--mode",
                mode.as_str(),
            ])
            .arg("--pgdata")
            .arg(&self.pgdata);
        capture(&mut command).map(drop)
    }

    /// `kill -9` of the postmaster and of every process below it, the postmaster first so that it repairs nothing.
    ///
    /// # Errors
    /// A process survives.
    pub fn kill_everything(&self) -> Result<()> {
        let Some(postmaster) = self.postmaster() else {
            return Ok(());
        };
        kill(postmaster, Signal::STOP);
        let children = descendants(postmaster);
        kill(postmaster, Signal::KILL);
        for child in &children {
            kill(*child, Signal::KILL);
        }
        for pid in children.into_iter().chain([postmaster]) {
            if !wait_until_reaped(pid, Duration::from_secs(30)) {
                bail!("process {pid} survives SIGKILL");
            }
        }
        Ok(())
    }
}

fn postmaster_pid(pgdata: &Path) -> Option<u32> {
    let text = fs::read_to_string(pgdata.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Reads what is appended to a log file.
struct LogReader {
    path: PathBuf,
    position: u64,
    partial: String,
}

impl LogReader {
    fn at_end(path: &Path) -> LogReader {
        LogReader {
            path: path.to_owned(),
            position: fs::metadata(path).map_or(0, |metadata| metadata.len()),
            partial: String::new(),
        }
    }

    fn new_lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        if let Ok(mut file) = fs::File::open(&self.path)
            && file.seek(SeekFrom::Start(self.position)).is_ok()
            && file.read_to_end(&mut bytes).is_ok()
        {
            self.position += bytes.len() as u64;
        }
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        let mut lines = Vec::new();
        while let Some(end) = self.partial.find('\n') {
            lines.push(self.partial[..end].to_owned());
            self.partial.drain(..=end);
        }
        lines
    }
}
