//! SQL through psql: the benchmarks need no more than a value now and then.

use std::process::Command;

use anyhow::{Context, Result};
use pg_quorum_deployment::{Server, capture};

use crate::report;

/// Rows that one step of [`write_wal`] changes.
const ROWS: u32 = 1_000_000;

/// Runs statements and returns what they print, without headers.
pub fn psql(server: &Server, statements: &str) -> Result<String> {
    psql_in(server, "postgres", statements)
}

/// As [`psql`], in this database.
pub fn psql_in(server: &Server, database: &str, statements: &str) -> Result<String> {
    let mut command = Command::new(server.binaries.postgres("psql"));
    command
        .args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--command",
        ])
        .arg(statements)
        .arg(server.database_uri(database));
    Ok(capture(&mut command)?.trim().to_owned())
}

/// A query's only value, as a number.
pub fn number(server: &Server, query: &str) -> Result<f64> {
    let text = psql(server, query)?;
    text.parse()
        .with_context(|| format!("{query} returned {text:?}, not a number"))
}

/// `pgbench -i`.
pub fn fill(server: &Server, scale: u32) -> Result<()> {
    let mut command = Command::new(server.binaries.postgres("pgbench"));
    command.args([
        "--initialize",
        "--quiet",
        "--scale",
        &scale.to_string(),
        &server.uri(),
    ]);
    capture(&mut command)?;
    psql(server, "CHECKPOINT").map(drop)
}

/// What a run of pgbench says.
pub struct Run {
    pub transactions: f64,
    pub tps: f64,
}

/// TPC-B, prepared statements.
pub fn pgbench(server: &Server, clients: u32, seconds: u32) -> Result<Run> {
    script(server, "tpcb-like", clients, seconds)
}

/// One lookup by primary key for each transaction, prepared statements.
pub fn select_only(server: &Server, clients: u32, seconds: u32) -> Result<Run> {
    script(server, "select-only", clients, seconds)
}

fn script(server: &Server, builtin: &str, clients: u32, seconds: u32) -> Result<Run> {
    let mut command = Command::new(server.binaries.postgres("pgbench"));
    command
        .args([
            "--no-vacuum",
            "--protocol=prepared",
            "--builtin",
            builtin,
            "--client",
            &clients.to_string(),
        ])
        .args([
            "--jobs",
            &clients.min(2).to_string(),
            "--time",
            &seconds.to_string(),
            &server.uri(),
        ]);
    let text = capture(&mut command)?;
    let after = |label: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
        rest.split_whitespace()
            .next()?
            .split('/')
            .next()?
            .parse::<f64>()
            .ok()
    };
    Ok(Run {
        transactions: after("number of transactions actually processed: ")
            .context("pgbench printed no count")?,
        tps: after("tps = ").context("pgbench printed no tps")?,
    })
}

/// Small transactions, bulk loads and updates of everything, until there is so much WAL. Returns its bytes.
pub fn write_wal(server: &Server, megabytes: f64) -> Result<f64> {
    let position = || number(server, "SELECT pg_current_wal_lsn() - '0/0'");
    let begin = position()?;
    let statements = [
        format!(
            "DROP TABLE IF EXISTS bulk; CREATE TABLE bulk AS SELECT g AS id, md5(g::text) AS a, 0 AS b \
             FROM generate_series(1, {ROWS}) g; ALTER TABLE bulk ADD PRIMARY KEY (id); CREATE INDEX ON bulk (a)"
        ),
        "UPDATE bulk SET b = b + 1 WHERE id % 2 = 0".to_owned(),
        "UPDATE pgbench_accounts SET abalance = abalance + 1".to_owned(),
        "DELETE FROM bulk WHERE id % 3 = 0; VACUUM bulk; VACUUM pgbench_accounts".to_owned(),
    ];
    let mut told = 0.0;
    for statement in statements.iter().cycle() {
        for part in statement.split("; ") {
            psql(server, part)?;
        }
        pgbench(server, 4, 1)?;
        let written = position()? - begin;
        if written / 1e6 - told >= 1000.0 {
            told = written / 1e6;
            report::detail(&format!("{told:.0} of {megabytes:.0} MB of WAL written"));
        }
        if written / 1e6 >= megabytes {
            return Ok(written);
        }
    }
    Ok(0.0)
}
