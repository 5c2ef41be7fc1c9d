//! WAL of a stock server, and the server's files as they were before it: what the benchmarks of redo work on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pg_quorum_deployment::{Server, Settings, ShutdownMode, capture};
use serde::de::DeserializeOwned;

use super::setup::{Bench, Rig, build_driver, copy_tree};

/// How long stock PostgreSQL may take for its redo.
const REDO_PATIENCE: Duration = Duration::from_secs(600);

/// See the module.
pub struct Recording {
    rig: Rig,
    /// A copy of the stopped server.
    base: Server,
    driver: PathBuf,
}

impl Recording {
    /// Makes it: `prepare` makes what the base has beside pgbench's tables, `load` the WAL. Nothing but the load is in
    /// that: neither checkpoints nor images of pages.
    pub fn make(
        bench: &Bench<'_>,
        prepare: impl FnOnce(&Server) -> Result<()>,
        load: impl FnOnce(&Server) -> Result<()>,
    ) -> Result<Recording> {
        let driver = build_driver("redo_speed")?;
        let rig = bench.plain()?;
        prepare(&rig.server)?;
        rig.server.stop(ShutdownMode::Fast)?;
        rig.server.configure(
            &Settings::default()
                .with("fsync", "off")
                .with("checkpoint_timeout", "1h")
                .with("max_wal_size", "64GB")
                .with("wal_keep_size", "64GB")
                .with("full_page_writes", "off"),
        )?;
        let base = rig.copy_of_stopped_server()?;
        rig.server.start()?;
        load(&rig.server)?;
        rig.server.kill_everything()?;
        Ok(Recording { rig, base, driver })
    }

    fn wal(&self) -> PathBuf {
        self.rig.server.pgdata.join("pg_wal")
    }

    /// What the driver `redo_speed` prints when it is told to do `what`.
    pub fn drive<T: DeserializeOwned>(&self, what: &[&str]) -> Result<T> {
        let text = capture(
            Command::new(&self.driver)
                .args(what)
                .arg("--base")
                .arg(&self.base.pgdata)
                .arg("--wal")
                .arg(self.wal())
                .arg("--scratch")
                .arg(self.rig.root()),
        )?;
        serde_json::from_str(&text).with_context(|| format!("redo_speed {what:?} printed {text:?}"))
    }

    /// Seconds that stock PostgreSQL's startup process takes for the WAL: recovery after a crash, from a copy of the
    /// base.
    pub fn stock_recovery(&self) -> Result<f64> {
        let mut stock = self.base.clone();
        stock.pgdata = self.base.pgdata.with_file_name("stock");
        stock.log = self.base.log.with_file_name("stock.log");
        let seconds = self.recover(&stock);
        remove(&stock.pgdata)?;
        seconds
    }

    fn recover(&self, stock: &Server) -> Result<f64> {
        remove(&stock.pgdata)?;
        if stock.log.exists() {
            fs::remove_file(&stock.log)?;
        }
        copy_tree(stock, &self.base.pgdata, &stock.pgdata)?;
        // The killed server's control file says that it was running, and has the checkpoint that the base ended with.
        let control = Path::new("global/pg_control");
        fs::copy(self.rig.server.pgdata.join(control), stock.pgdata.join(control))?;
        fs::remove_dir_all(stock.pgdata.join("pg_wal"))?;
        copy_tree(stock, &self.wal(), &stock.pgdata.join("pg_wal"))?;
        stock.start()?;
        let seconds = self.wait_for_redo(stock);
        stock.stop(ShutdownMode::Immediate)?;
        seconds
    }

    fn wait_for_redo(&self, stock: &Server) -> Result<f64> {
        let deadline = Instant::now() + REDO_PATIENCE;
        let line = loop {
            let log = fs::read_to_string(&stock.log)?;
            if let Some(line) = log.lines().find(|line| line.contains("redo done at")) {
                break line.to_owned();
            }
            if Instant::now() > deadline {
                bail!("stock PostgreSQL reports no redo:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let elapsed = line
            .split("elapsed: ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        elapsed
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("no time in {line:?}"))
    }
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}
