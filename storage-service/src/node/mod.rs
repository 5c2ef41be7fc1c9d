//! A whole node: its directory, its segment, its services and its tasks.
//!
//! * [`config`]: what a node is told, and the six of the embedded mode
//! * `data_dir`: one process for each directory
//! * `mend`: peers' copies of pages that cannot be built here
//! * this file: putting it together and taking it apart

pub mod config;
mod data_dir;
mod mend;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pg_quorum_proto::v1;
use pg_quorum_quorum::{Refused, RequestContext};
use pg_quorum_tls::Tls;
use pg_quorum_types::Lsn;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;

pub use config::NodeConfig;
pub use data_dir::{DataDirError, DataDirLock};

use crate::access::{Access, Grant};
use crate::derived::{Derived, DerivedError};
use crate::disk::{Disk, LossyDisk, QuotaDisk, RealDisk};
use crate::log::LogView;
use crate::metrics::{ObservedNode, PageRequests};
use crate::segment::catch_up::MAX_MESSAGE_BYTES;
use crate::segment::{DerivedState, Segment, SegmentError, SegmentSettings};
use crate::services::{
    AdminService, PagesService, PeerService, ReadGate, SegmentService, StateService, WalService,
};

/// HTTP/2 windows: a stream of appends must not wait for window updates.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// How often a connection is tried, and how long the other side may take to answer: one that has gone without a word
/// holds on to nothing for long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stopping node waits for requests in flight. Streams that stay open end with it.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("node {node} cannot listen on {address}: {source}")]
    Listen {
        node: String,
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the derived state of node {node}: {source}")]
    Derived {
        node: String,
        #[source]
        source: DerivedError,
    },
}

/// A node that runs.
pub struct Node {
    name: String,
    address: SocketAddr,
    segment: Arc<Segment>,
    derived: Arc<Derived>,
    page_requests: Arc<PageRequests>,
    access: Arc<Access>,
    data: PathBuf,
    tasks: Vec<JoinHandle<()>>,
    server: JoinHandle<()>,
    stop_server: Option<oneshot::Sender<()>>,
    _lock: DataDirLock,
}

impl DerivedState for Derived {
    fn cut(&self, to: Lsn) {
        Derived::cut(self, to);
    }

    fn log_floor(&self) -> Lsn {
        Derived::log_floor(self)
    }

    fn upkeep(&self) {
        self.try_store_again();
    }
}

impl ReadGate for Segment {
    fn check_segment(&self, context: &RequestContext) -> Result<(), Refused> {
        self.check_context(context).map_err(|refused| *refused)?;
        self.with_machine(|machine| machine.check_undamaged(self.now()))
            .map_err(|refused| *refused)
    }

    fn view(&self) -> LogView {
        *self.subscribe().borrow()
    }
}

impl Node {
    /// Opens the directory, listens, and serves until [`Node::stop`]. Runs on the current runtime.
    ///
    /// # Errors
    /// The directory or the address cannot be used.
    pub async fn start(config: NodeConfig) -> Result<Node, NodeError> {
        let name = config.name.0.clone();
        let disk = disk_of(&config);
        let lock = DataDirLock::take(&config.data)?;
        let listener = TcpListener::bind(&config.listen).await;
        let listen_error = |source| NodeError::Listen {
            node: name.clone(),
            address: config.listen.clone(),
            source,
        };
        let listener = listener.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;

        let settings = SegmentSettings {
            node: config.name.clone(),
            az: config.az.clone(),
            lease: config.lease,
            gossip_interval: config.gossip_interval,
            log: config.log,
            tls: config.tls.clone(),
        };
        let data = config.data.clone();
        let derived_settings = config.derived.clone();
        let opened = tokio::task::spawn_blocking(move || open(disk, &data, settings, derived_settings));
        let (segment, derived) = match opened.await {
            Ok(opened) => opened.map_err(|error| match error {
                OpenError::Segment(error) => NodeError::Segment(error),
                OpenError::Derived(source) => NodeError::Derived {
                    node: name.clone(),
                    source,
                },
            })?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };

        let page_requests = Arc::default();
        let access = Arc::new(Access::new(config.name.clone(), config.token_keys.clone()));
        let (stop_server, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(
            listener,
            config.tls.clone(),
            Arc::clone(&segment),
            Arc::clone(&derived),
            Arc::clone(&page_requests),
            Arc::clone(&access),
            stopped,
        ));
        let tasks = vec![
            tokio::spawn(Arc::clone(&segment).catch_up()),
            tokio::spawn(Arc::clone(&segment).keep_up()),
            tokio::spawn(mend::run(Arc::clone(&segment), Arc::clone(&derived))),
        ];
        tracing::info!(node = %name, segment = %segment.id(), "listening on {address}, data in {}", config.data.display());
        Ok(Node {
            name,
            address,
            segment,
            derived,
            page_requests,
            access,
            data: config.data,
            tasks,
            server,
            stop_server: Some(stop_server),
            _lock: lock,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// What its figures are read from.
    pub fn observed(&self) -> ObservedNode {
        ObservedNode {
            segment: Arc::clone(&self.segment),
            derived: Arc::clone(&self.derived),
            page_requests: Arc::clone(&self.page_requests),
            access: Arc::clone(&self.access),
            data: self.data.clone(),
        }
    }

    /// Ends in order: no more requests, then the log is flushed and what it holds is recorded.
    pub async fn stop(mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(stop) = self.stop_server.take() {
            let _ = stop.send(());
        }
        if tokio::time::timeout(STOP_WAIT, &mut self.server).await.is_err() {
            self.server.abort();
        }
        let (segment, derived) = (Arc::clone(&self.segment), Arc::clone(&self.derived));
        let stop = move || {
            segment.stop();
            derived.shut_down();
        };
        if let Err(error) = tokio::task::spawn_blocking(stop).await {
            tracing::error!(node = %self.name, "stopping the log has failed: {error}");
        }
        tracing::info!(node = %self.name, scl = %self.segment.log().scl(), "stopped");
    }
}

enum OpenError {
    Segment(SegmentError),
    Derived(DerivedError),
}

/// Segment, and what follows its log.
fn open(
    disk: Arc<dyn Disk>,
    data: &Path,
    settings: SegmentSettings,
    derived_settings: crate::derived::DerivedSettings,
) -> Result<(Arc<Segment>, Arc<Derived>), OpenError> {
    let segment = Segment::open(disk, data, settings).map_err(OpenError::Segment)?;
    let log: Arc<dyn crate::derived::RecordLog> = segment.log().clone();
    let derived = Derived::open(&data.join("derived"), derived_settings, log, segment.subscribe());
    let derived = Arc::new(derived.map_err(OpenError::Derived)?);
    check_that_they_fit(&segment, &derived);
    segment.set_derived(Arc::clone(&derived) as Arc<dyn DerivedState>);
    Ok((segment, derived))
}

/// Log and derived state are kept apart: one of them may have been lost.
fn check_that_they_fit(segment: &Segment, derived: &Derived) {
    let Some(complete) = segment.with_machine(|machine| machine.meta().base) else {
        return;
    };
    let begin = segment.log().begin();
    match derived.base() {
        None => segment.set_damaged("its base is missing".to_owned()),
        Some(base) if base.base != complete.base => {
            segment.set_damaged("its pages are of another import than its log".to_owned());
        }
        Some(_) if segment.log().scl() < derived.applied_lsn() => segment.set_damaged(format!(
            "its log ends at {}, its pages are of {}",
            segment.log().scl(),
            derived.applied_lsn()
        )),
        Some(_) if begin > complete.base.lsn && begin > derived.log_floor().max(derived.applied_lsn()) => {
            segment.set_damaged(format!(
                "its log begins at {begin}, its pages end at {}",
                derived.applied_lsn()
            ));
        }
        Some(_) => {}
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    segment: Arc<Segment>,
    derived: Arc<Derived>,
    page_requests: Arc<PageRequests>,
    access: Arc<Access>,
    stopped: oneshot::Receiver<()>,
) {
    let gate: Arc<dyn ReadGate> = segment.clone();
    let name = segment.settings().node.clone();
    let incoming = ReceiverStream::new(pg_quorum_tls::incoming(listener, tls));
    let segments = SegmentService::new(Arc::clone(&segment), Arc::clone(&derived));
    let admin = AdminService::new(Arc::clone(&segment), Arc::clone(&derived));
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .layer(InterceptorLayer::new(move |request| access.admit(request)))
        .add_service(
            v1::segment_server::SegmentServer::new(segments).max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(v1::peer_server::PeerServer::with_interceptor(
            PeerService::new(segment),
            |request| Grant::of(&request)?.is_peer().map(|()| request),
        ))
        .add_service(v1::admin_server::AdminServer::new(admin).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(v1::pages_server::PagesServer::new(PagesService::new(
            Arc::clone(&gate),
            Arc::clone(&derived),
            page_requests,
        )))
        .add_service(v1::state_server::StateServer::new(StateService::new(
            Arc::clone(&gate),
            Arc::clone(&derived),
        )))
        .add_service(v1::wal_server::WalServer::new(WalService::new(gate, derived)))
        .serve_with_incoming_shutdown(incoming, async {
            let _ = stopped.await;
        });
    if let Err(error) = served.await {
        tracing::error!(node = %name, "the server has ended: {error}");
    }
}

fn disk_of(config: &NodeConfig) -> Arc<dyn Disk> {
    match (config.lossy_disk, &config.disk_quota_bytes) {
        (false, None) => Arc::new(RealDisk),
        (true, None) => Arc::new(LossyDisk::new(RealDisk)),
        (false, Some(quota)) => Arc::new(QuotaDisk::new(RealDisk, Arc::clone(quota))),
        (true, Some(quota)) => Arc::new(LossyDisk::new(QuotaDisk::new(RealDisk, Arc::clone(quota)))),
    }
}
