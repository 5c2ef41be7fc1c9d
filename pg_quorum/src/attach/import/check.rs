//! Whether a directory may be imported: a cluster of this version that was stopped cleanly.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use pg_quorum_client::pgdata::{Failure, Layout, Result};
use pg_quorum_proto::v1::{self, state_item::Item};
use pg_quorum_types::{ClusterFacts, Lsn};
use pg_quorum_wal::{ClusterState, ControlFile, WalSplitter};

/// Bytes of one WAL item.
const WAL_PIECE_BYTES: usize = 1 << 20;

/// What the import begins with.
#[derive(Clone, Debug)]
pub struct StoppedCluster {
    /// End of the shutdown checkpoint's record: the base.
    pub end: Lsn,
    /// WAL of the segment that `end` stands in, from the segment's start.
    pub wal_prefix: Bytes,
    pub control_file: Bytes,
}

/// Checks a directory and finds the end of its WAL.
pub fn stopped_cluster(
    layout: &Layout,
    control: &ControlFile,
    control_bytes: &[u8],
) -> Result<StoppedCluster> {
    check_state(layout, control)?;
    let facts = control.facts();
    let end = shutdown_checkpoint_end(layout, facts, control.last_checkpoint())?;
    // A record that ends with its segment leaves nothing of the next one to send.
    let last_byte = Lsn(end.0 - 1);
    let (path, segment_start) = layout.wal_file(last_byte);
    let file = File::open(&path).map_err(Failure::file("open", &path))?;
    let mut wal = vec![0; usize::try_from(end.bytes_since(segment_start)).unwrap_or(0)];
    file.read_exact_at(&mut wal, 0)
        .map_err(Failure::file("read", &path))?;
    Ok(StoppedCluster {
        end,
        wal_prefix: wal.into(),
        control_file: Bytes::copy_from_slice(control_bytes),
    })
}

impl StoppedCluster {
    /// The items that the walk over the directory does not give.
    pub fn items(&self) -> impl Iterator<Item = v1::StateItem> + '_ {
        let start = Lsn(self.end.0 - self.wal_prefix.len() as u64);
        let pieces = (0..self.wal_prefix.len())
            .step_by(WAL_PIECE_BYTES)
            .map(move |at| {
                let until = (at + WAL_PIECE_BYTES).min(self.wal_prefix.len());
                Item::WalPrefix(v1::state_item::WalPrefix {
                    lsn: (start + at as u64).0,
                    wal: self.wal_prefix.slice(at..until),
                })
            });
        pieces
            .chain([Item::ControlFile(self.control_file.clone())])
            .map(|item| v1::StateItem { item: Some(item) })
    }
}

fn check_state(layout: &Layout, control: &ControlFile) -> Result<()> {
    if control.state() != ClusterState::ShutDown {
        return Err(Failure::new("this cluster was not shut down cleanly and cannot be imported")
            .detail(format!("Its state is \"{}\".", state_name(control.state())))
            .hint(
                "Start it once without pg_quorum in shared_preload_libraries, stop it with `pg_ctl stop -m fast`, then start it with pg_quorum again.",
            ));
    }
    for file in [
        "global/pg_filenode.map",
        "base/1/PG_VERSION",
        "base/1/pg_filenode.map",
    ] {
        if !layout.join(file).exists() {
            return Err(Failure::new("this directory holds no whole cluster and cannot be imported")
                .detail(format!("\"{file}\" is missing."))
                .hint("An empty volume is filled from a cluster made by initdb, or from an existing one that was stopped cleanly."));
        }
    }
    if layout.join("backup_label").exists() {
        return Err(Failure::new("this directory is a base backup that was never started, and cannot be imported")
            .hint("Start it once without pg_quorum in shared_preload_libraries, stop it cleanly, then start it with pg_quorum."));
    }
    Ok(())
}

/// As `pg_controldata` says it.
fn state_name(state: ClusterState) -> &'static str {
    match state {
        ClusterState::Startup => "starting up",
        ClusterState::ShutDown => "shut down",
        ClusterState::ShutDownInRecovery => "shut down in recovery",
        ClusterState::ShuttingDown => "shutting down",
        ClusterState::InCrashRecovery => "in crash recovery",
        ClusterState::InArchiveRecovery => "in archive recovery",
        ClusterState::InProduction => "in production",
    }
}

/// Reads the record that `pg_control` names.
fn shutdown_checkpoint_end(layout: &Layout, facts: ClusterFacts, start: Lsn) -> Result<Lsn> {
    let damaged = |problem: String| {
        Failure::new(format!(
            "the shutdown checkpoint at {start} cannot be read: {problem}"
        ))
        .hint("Without its last WAL segment the cluster cannot be imported.")
    };
    let mut splitter = WalSplitter::new(facts, start);
    loop {
        if let Some(record) = splitter
            .next_record()
            .map_err(|error| damaged(error.to_string()))?
        {
            if record.start != start {
                return Err(damaged("no record starts there".to_owned()));
            }
            return Ok(record.end);
        }
        let at = splitter.fed_up_to();
        if at.bytes_since(start) > 2 * layout.wal_segment_bytes() {
            return Err(damaged("it has no end".to_owned()));
        }
        let (path, segment_start) = layout.wal_file(at);
        let rest_of_page = 8192 - at.0 % 8192;
        let mut bytes = vec![0; usize::try_from(rest_of_page).unwrap_or(8192)];
        File::open(&path)
            .and_then(|file| file.read_exact_at(&mut bytes, at.bytes_since(segment_start)))
            .map_err(|error| damaged(format!("\"{}\": {error}", path.display())))?;
        splitter.feed(bytes.into());
    }
}
