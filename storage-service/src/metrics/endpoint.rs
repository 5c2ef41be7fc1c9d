//! The HTTP face: any GET is answered with all figures, in Prometheus's text format.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::collect::{Nodes, ObservedNode};

/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may be idle, or take to say what it wants.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// After a connection could not be accepted (no file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An endpoint that serves until it is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Listens on `address` (`host:port`). Runs on the current runtime.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn start(address: &str, nodes: Vec<ObservedNode>) -> io::Result<Endpoint> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mut registry = Registry::with_prefix("pg_quorum");
        registry.register_collector(Box::new(Nodes(nodes)));
        let task = tokio::spawn(accept(listener, Arc::new(registry)));
        Ok(Endpoint { address, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((connection, _)) => {
                let registry = Arc::clone(&registry);
                tokio::spawn(async move {
                    serve(connection, registry).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("a scrape could not connect: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(connection: TcpStream, registry: Arc<Registry>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let registry = Arc::clone(&registry);
        async move { Ok::<_, Infallible>(answer(request.method(), registry).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .serve_connection(TokioIo::new(connection), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!("a scrape ended early: {error}");
    }
}

async fn answer(method: &Method, registry: Arc<Registry>) -> Response<Full<Bytes>> {
    if method != Method::GET {
        return only(StatusCode::METHOD_NOT_ALLOWED);
    }
    // A reading waits for locks and asks the disk.
    let encoded = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).map(|()| text)
    });
    match encoded.await {
        Ok(Ok(text)) => {
            let mut response = Response::new(Full::from(text));
            let content_type = hyper::header::HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        }
        failed => {
            tracing::error!("the figures could not be written down: {failed:?}");
            only(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn only(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
