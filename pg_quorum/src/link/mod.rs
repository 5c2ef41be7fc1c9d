//! The link: this server's only way to the storage nodes.

mod backends_rounds;
mod by_myself;
mod last_records;
mod local_wal;
mod pages;
mod quorum_watch;
mod read_point;
mod status;
mod worker;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use pg_quorum_client::{AppendLimits, Attachment, Fenced, Timeouts, Transport, pgdata};
use pg_quorum_tls::{Tls, TlsError};
use pg_quorum_token::TokenFile;

pub use crate::pg::worker::register;
pub use by_myself::{ask_unchanged_by_myself, fetch_by_myself, ship_by_myself};

use read_point::ReadPoints;

use crate::pg::{postmaster_death, server, syncrep, worker as process};
use crate::shared::{self, LinkState, SharedState};

/// Patience and limits of the link.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    pub limits: AppendLimits,
    pub transport: Transport,
    /// How long a shutdown waits for a lost quorum.
    pub shutdown_patience: Duration,
}

impl LinkSettings {
    /// As the server's settings say.
    ///
    /// # Errors
    /// Files for TLS that cannot be used.
    pub fn current() -> Result<LinkSettings, TlsError> {
        let tls = crate::settings::tls_files()?.map(Tls::load).transpose()?;
        Ok(LinkSettings {
            limits: AppendLimits::DEFAULT,
            transport: Transport {
                timeouts: Timeouts::default(),
                tls,
                token: crate::settings::token_file().map(TokenFile::new),
            },
            shutdown_patience: crate::settings::shutdown_timeout(),
        })
    }
}

/// The link worker's life. Returns when its work is done; a panic makes the caller abort.
///
/// # Panics
/// When it cannot go on: the server restarts all its processes and attaches anew.
pub fn run() {
    postmaster_death::die_with_postmaster();
    let state = shared::state();
    let wakeup = shared::wal_wakeup().expect("the postmaster has made the wake-ups");
    process::start_signals(wakeup);
    let attachment = pgdata::load_attachment(&server::data_directory())
        .expect("attach.json can be read")
        .expect("attach has written attach.json");
    syncrep::release_waiters(attachment.vdl);
    let read_points = Arc::new(ReadPoints::default());
    let settings =
        LinkSettings::current().unwrap_or_else(|error| panic!("the files for TLS cannot be used: {error}"));
    start_page_thread(
        state,
        attachment.clone(),
        settings.transport.clone(),
        read_points.clone(),
    );
    start_removal_thread();
    let end = run_wal_path(state, attachment, &settings, read_points);
    match end {
        worker::End::Stopped {
            is_everything_durable,
        } => {
            if is_everything_durable {
                pgrx::log!("pg_quorum: everything is durable up to {}", state.vdl());
            } else {
                pgrx::warning!(
                    "pg_quorum: fewer than four storage nodes answer; WAL behind {} is in this directory only and is given up",
                    state.vdl()
                );
            }
            state.set_link(LinkState::Gone);
        }
        worker::End::Fenced(fenced) => stop_fenced_server(state, &fenced),
    }
}

fn run_wal_path(
    state: &'static SharedState,
    attachment: Attachment,
    settings: &LinkSettings,
    read_points: Arc<ReadPoints>,
) -> worker::End {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let outcome = runtime.block_on(async {
        let worker = worker::Worker::start(state, attachment, settings, read_points)?;
        state.set_link(LinkState::Running);
        worker.run().await
    });
    match outcome {
        Ok(end) => end,
        Err(error) => panic!("the link worker cannot go on: {error:#}"),
    }
}

fn start_page_thread(
    state: &'static SharedState,
    attachment: Attachment,
    transport: Transport,
    read_points: Arc<ReadPoints>,
) {
    let body = move || {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            pages::serve(state, attachment, &transport, &read_points)
        }));
        // Without it every read of an absent page would wait for ever.
        eprintln!("pg_quorum: the thread that reads pages has ended: {outcome:?}");
        server::crash();
    };
    process::spawn_quiet_thread("pages", body).expect("a thread can be made");
}

/// Removes what attach has set aside. What is left when this process ends is removed by the next one.
fn start_removal_thread() {
    let pgdata = server::data_directory();
    let body = move || {
        if let Err(failure) = pgdata::remove_set_aside(&pgdata) {
            eprintln!("pg_quorum: {failure}");
        }
    };
    process::spawn_quiet_thread("old files", body).expect("a thread can be made");
}

/// Another compute holds the volume: nothing is acknowledged any more, and the server stops at once.
fn stop_fenced_server(state: &SharedState, fenced: &Arc<Fenced>) {
    let message = format!("another compute has taken the volume: {fenced}");
    state.link_message.set(&message);
    state.set_link(LinkState::Fenced);
    if let Err(error) = remember_fence(fenced) {
        pgrx::warning!("pg_quorum: could not note in this data directory that it was fenced: {error}");
    }
    pgrx::log!("pg_quorum: {message}. This server stops at once; it acknowledges nothing any more.");
    server::stop_immediately();
    // Leaving would be a crash restart in place of the shutdown.
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn remember_fence(fenced: &Arc<Fenced>) -> Result<(), pgdata::PgdataError> {
    let directory = server::data_directory();
    if let Some(mut identity) = pgdata::ComputeIdentity::load(&directory)? {
        identity.fenced_by = Some(Fenced::clone(fenced));
        identity.save(&directory)?;
    }
    Ok(())
}
