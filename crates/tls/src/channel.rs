//! The client's side.

use std::io;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::Tls;

/// A channel to `endpoint`, an `http` address, that is connected when it is used: with TLS, or in the clear.
///
/// With TLS a server must bear a certificate of the authority for the address's host, and gets ours.
pub fn channel(endpoint: Endpoint, tls: Option<&Tls>) -> Channel {
    let Some(tls) = tls else {
        return endpoint.connect_lazy();
    };
    let tls = tls.clone();
    endpoint.connect_with_connector_lazy(tower::service_fn(move |address| {
        let tls = tls.clone();
        async move { connect(&address, &tls).await.map(TokioIo::new) }
    }))
}

async fn connect(address: &Uri, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let invalid = |error: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{address} {error}"));
    let host = address.host().ok_or_else(|| invalid("names no host"))?;
    let port = address.port_u16().ok_or_else(|| invalid("names no port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| invalid("is no name for a certificate"))?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(tls.client()).connect(name, stream).await
}
