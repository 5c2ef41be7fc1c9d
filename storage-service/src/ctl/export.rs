//! `quorumctl volume export`: the way back to an ordinary cluster.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use pg_quorum_client::{ExportProgress, ExportRequest, Exported, export_volume};
use pg_quorum_types::Lsn;
use serde::Serialize;

use super::Invocation;
use super::compute::{auth_method, owner};
use super::output::{bytes, print_json, print_text};

/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(super) struct Export {
    /// The new directory: empty, or not there yet
    #[arg(short = 'D', long = "pgdata", value_name = "DIR")]
    pgdata: PathBuf,
    /// Everything before this: the end of a record that the nodes still keep [default: the durable end of the log]
    #[arg(long)]
    lsn: Option<Lsn>,
    /// A directory for tablespaces, a folder for each: empty, or not there yet [default: inside of the new directory]
    #[arg(long, value_name = "DIR")]
    tablespaces: Option<PathBuf>,
    /// Authentication in pg_hba.conf, for Unix sockets and TCP alike [default: peer for Unix sockets,
    /// scram-sha-256 for TCP from this machine]
    #[arg(long, value_name = "METHOD", value_parser = ["trust", "peer", "scram-sha-256", "md5", "reject"])]
    auth: Option<String>,
    /// Whose the directory becomes, if root calls [default: whoever owns the directory that it is made in]
    #[arg(long, value_name = "UID:GID")]
    owner: Option<String>,
}

#[derive(Serialize, Debug)]
struct ExportedRow {
    pgdata: PathBuf,
    volume: String,
    system_identifier: u64,
    lsn: u64,
    databases: usize,
    forks: usize,
    prepared_transactions: usize,
    bytes: u64,
    seconds: f64,
}

pub(super) async fn run(invocation: &Invocation<'_>, export: &Export) -> Result<bool> {
    let config = invocation.config()?;
    let pgdata = std::path::absolute(&export.pgdata).context("-D")?;
    let tablespaces = export.tablespaces.as_ref().map(std::path::absolute).transpose();
    let request = ExportRequest {
        owner: owner(export.owner.as_deref(), &pgdata)?,
        pgdata,
        lsn: export.lsn,
        tablespaces: tablespaces.context("--tablespaces")?,
        auth: auth_method(export.auth.as_deref()),
    };
    let started = Instant::now();
    let last_line = Cell::new(started);
    let progress = |progress: ExportProgress| {
        if last_line.get().elapsed() >= PROGRESS_INTERVAL {
            last_line.set(Instant::now());
            eprintln!("quorumctl: {}", progress_line(progress, started.elapsed()));
        }
    };
    let exported = export_volume(&config, &request, &progress).await?;
    let row = ExportedRow::new(&request, &exported, started.elapsed());
    if invocation.json {
        print_json(&row)?;
    } else {
        print_text(&row.text())?;
    }
    Ok(true)
}

fn progress_line(progress: ExportProgress, elapsed: Duration) -> String {
    let ExportProgress {
        bytes: done,
        total_bytes,
    } = progress;
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let rest = (total_bytes - done) as f64 / rate.max(1.0);
    format!(
        "{} of {} at {:.0} MB/s, {rest:.0} s to go",
        bytes(done),
        bytes(total_bytes),
        rate / 1e6
    )
}

impl ExportedRow {
    fn new(request: &ExportRequest, exported: &Exported, elapsed: Duration) -> ExportedRow {
        ExportedRow {
            pgdata: request.pgdata.clone(),
            volume: exported.volume.to_string(),
            system_identifier: exported.system_identifier,
            lsn: exported.lsn.0,
            databases: exported.databases,
            forks: exported.forks,
            prepared_transactions: exported.prepared_transactions,
            bytes: exported.bytes,
            seconds: elapsed.as_secs_f64(),
        }
    }

    fn text(&self) -> String {
        let dir = self.pgdata.display();
        format!(
            "{dir} is an ordinary cluster, volume {} as of {}: {} databases, {} in {:.1} s.\n\
             It is a fork: it has the system identifier of the volume ({}), and what it writes stays in it.\n\
             Look at postgresql.conf, then start it: pg_ctl -D {dir} start\n",
            self.volume,
            Lsn(self.lsn),
            self.databases,
            bytes(self.bytes),
            self.seconds,
            self.system_identifier,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_rate_and_what_is_left() {
        let progress = ExportProgress {
            bytes: 100 << 20,
            total_bytes: 300 << 20,
        };
        let line = progress_line(progress, Duration::from_secs(2));
        assert_eq!(
            line,
            format!(
                "{} of {} at 52 MB/s, 4 s to go",
                bytes(100 << 20),
                bytes(300 << 20)
            )
        );
    }
}
