//! Attach: making PGDATA ready at the volume's durable LSN, under a new epoch, at each start.
//!
//! Every start is the same path: the first one, one after a clean stop or a crash, the crash restart of the
//! postmaster, the start of another machine. There is no redo pass.
//!
//! ```text
//!  postmaster                       child                                   nodes
//!  shmem_startup_hook ──fork──►  take the volume ─────────────────────────► promise, start
//!      waits, logs               (empty volume: import this cluster ──────► base)
//!      hears stop requests       epoch-start record ──────────────────────► four segments
//!                                PGDATA from the image at the VDL ◄──────── image, WAL
//!  pg_control into shared ◄──────  exit
//!  memory, start goes on
//! ```

mod child;
mod import;
mod report;
mod slots;
mod stages;
mod take;
mod warm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use pg_quorum_client::Attachment;
use pg_quorum_client::pgdata::{self, Result};
use pg_quorum_tls::TlsFiles;
use pg_quorum_types::VolumeId;

use crate::pg::control_file::{self, CONTROL_FILE_BYTES};
use crate::pg::fork::{ChildEnd, run_in_child};
use crate::pg::server;
use crate::shared::{self, LinkState};

pub use pg_quorum_client::pgdata::{Failure, Layout};
use report::Report;

/// What the child needs to know.
#[derive(Clone, Debug)]
pub struct AttachSettings {
    pub pgdata: PathBuf,
    /// For the owner's description.
    pub port: i32,
    pub nodes: Vec<String>,
    pub volume: Option<VolumeId>,
    /// For connections to the nodes; `None`: in the clear.
    pub tls: Option<TlsFiles>,
    /// A file with a token for the nodes.
    pub token: Option<PathBuf>,
    /// How long to wait for four nodes.
    pub patience: Duration,
    /// `CATALOG_VERSION_NO` of this server.
    pub catalog_version: u32,
}

impl AttachSettings {
    fn current() -> Result<AttachSettings> {
        let tls = crate::settings::tls_files();
        Ok(AttachSettings {
            pgdata: server::data_directory(),
            port: server::port(),
            nodes: crate::settings::nodes(),
            volume: crate::settings::volume(),
            tls: tls.map_err(|error| Failure::new(error.to_string()))?,
            token: crate::settings::token_file(),
            patience: crate::settings::attach_timeout(),
            catalog_version: server::catalog_version(),
        })
    }
}

/// Attaches, in `shmem_startup_hook` of the postmaster, after [`crate::shared::create`]. Ends the start with a
/// FATAL message when it fails.
pub fn attach() {
    if let Err(failure) = try_attach() {
        report_fatal(failure);
    }
}

fn try_attach() -> Result<()> {
    let settings = AttachSettings::current()?;
    let pgdata = settings.pgdata.clone();
    let mut failed = None;
    let end = run_in_child(
        move |pipe| child::run(&settings, pipe),
        |line| match serde_json::from_str(line) {
            Ok(Report::Log(text)) => pgrx::log!("pg_quorum: {text}"),
            Ok(Report::Failed(failure)) => failed = Some(failure),
            Err(_) => pgrx::log!("pg_quorum: {line}"),
        },
    )
    .map_err(|error| Failure::new(format!("could not start the process that attaches: {error}")))?;
    match (end, failed) {
        (ChildEnd::Exited(0), _) => adopt(&pgdata),
        (_, Some(failure)) => Err(failure),
        (ChildEnd::StopRequested, None) => Err(Failure::new(
            "attaching to the volume was ended by a request to stop",
        )),
        (ChildEnd::Exited(code), None) => Err(Failure::new(format!(
            "the process that attaches to the volume ended with exit code {code}"
        ))),
        (ChildEnd::Signaled(signal), None) => Err(Failure::new(format!(
            "the process that attaches to the volume was ended by signal {signal}"
        ))),
    }
}

/// The postmaster takes over what the child has made.
fn adopt(pgdata: &Path) -> Result<()> {
    let attachment = load_attachment(pgdata)?;
    let path = pgdata.join("global/pg_control");
    let file = std::fs::read(&path).map_err(Failure::file("read", &path))?;
    let content = file
        .first_chunk::<CONTROL_FILE_BYTES>()
        .ok_or_else(|| Failure::new(format!("\"{}\" is too short", path.display())))?;
    control_file::publish(content);
    let state = shared::state();
    state.set_epoch(attachment.epoch.number);
    state.volume.set(&attachment.volume.to_string());
    state.publish_vdl(attachment.vdl);
    state.raise_read_floor(attachment.vdl);
    state.set_link(LinkState::Starting);
    Ok(())
}

fn load_attachment(pgdata: &Path) -> Result<Attachment> {
    pgdata::load_attachment(pgdata)
        .map_err(|error| Failure::new(error.to_string()))?
        .ok_or_else(|| Failure::new("attaching left no attach.json behind"))
}

fn report_fatal(failure: Failure) {
    let mut report = pgrx::pg_sys::panic::ErrorReport::new(
        pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("pg_quorum: {}", failure.message),
        "attach",
    );
    if let Some(detail) = failure.detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = failure.hint {
        report = report.set_hint(hint);
    }
    report.report(pgrx::PgLogLevel::FATAL);
}
