//! Starting a server, by the clock: until a query is answered, and what the server says of its attach.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pg_quorum_deployment::{Server, capture};

use super::psql::psql;

/// Longer than stock PostgreSQL takes for the redo of what the benchmarks write.
const PATIENCE: Duration = Duration::from_secs(1800);
const POLL: Duration = Duration::from_millis(5);
/// A server that has not written its pid file by then is not there.
const PID_FILE_PATIENCE: Duration = Duration::from_secs(10);

/// Starts a server. Seconds until it has answered `query`, connection and all.
pub fn seconds_to_answer(server: &Server, query: &str) -> Result<f64> {
    let mut command = server.account.command(server.binaries.postgres("pg_ctl"));
    command
        .args(["start", "--silent", "--no-wait", "--pgdata"])
        .arg(&server.pgdata)
        .arg("--log")
        .arg(&server.log);
    let started = Instant::now();
    capture(&mut command)?;
    loop {
        match psql(server, query) {
            Ok(_) => return Ok(started.elapsed().as_secs_f64()),
            Err(error)
                if started.elapsed() > PATIENCE
                    || started.elapsed() > PID_FILE_PATIENCE && server.postmaster().is_none() =>
            {
                let log = fs::read_to_string(&server.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                bail!(
                    "{error:#}; the last the server said, newest first:\n{}",
                    tail.join("\n")
                );
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// The last line of the server's log with these words.
pub fn last_line(server: &Server, words: &str) -> Result<String> {
    let log = fs::read_to_string(&server.log).with_context(|| format!("read {}", server.log.display()))?;
    let line = log.lines().rev().find(|line| line.contains(words));
    line.map(str::to_owned)
        .with_context(|| format!("{} has no line with {words:?}", server.log.display()))
}

/// The number in front of ` s` behind `label` in a line.
pub fn seconds_behind(line: &str, label: &str) -> Result<f64> {
    let rest = line.split(label).nth(1);
    rest.and_then(|rest| rest.split_whitespace().next()?.trim_end_matches(',').parse().ok())
        .with_context(|| format!("no seconds behind {label:?} in {line:?}"))
}
