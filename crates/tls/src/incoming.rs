//! The server's side.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Tls;

/// Handshakes under way; more connections wait in the listener's queue.
const MAX_HANDSHAKES: usize = 256;
/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end of a request's connection; among the request's extensions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    pub peer: Peer,
    /// `None`: gone already.
    pub address: Option<SocketAddr>,
}

/// What the other end's certificate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Anybody: the connection is in the clear.
    Unknown,
    /// Has a certificate for servers: a storage node.
    Node,
    /// Has a certificate for clients only: a compute or a tool.
    Compute,
}

/// Connections to serve. Handshakes run beside each other: who is slow, or says nothing, holds up nobody. With `tls` a
/// client without a certificate of the authority gets none. Ends when the receiver is dropped.
///
/// Must be called inside a tokio runtime.
pub fn incoming(listener: TcpListener, tls: Option<Tls>) -> mpsc::Receiver<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(1);
    tokio::spawn(accept(listener, tls, ready));
    connections
}

async fn accept(listener: TcpListener, tls: Option<Tls>, ready: mpsc::Sender<io::Result<Connection>>) {
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let Some(tls) = &tls else {
            let _ = ready.send(Ok(Connection::Plain(stream))).await;
            continue;
        };
        let acceptor = TlsAcceptor::from(tls.server());
        let ready = ready.clone();
        tokio::spawn(async move {
            let _slot = slot;
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let _ = ready.send(Ok(Connection::Tls(Box::new(stream)))).await;
                }
                Ok(Err(error)) => tracing::warn!(%address, "a connection was refused: {error}"),
                Err(_) => tracing::warn!(%address, "a connection was refused: no handshake in time"),
            }
        });
    }
}

/// One connection, with its handshake done.
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        let (peer, stream) = match self {
            Connection::Plain(stream) => (Peer::Unknown, stream),
            Connection::Tls(stream) => {
                let (stream, session) = stream.get_ref();
                let chain = session.peer_certificates().unwrap_or_default();
                let is_node = chain.first().is_some_and(is_for_servers);
                (if is_node { Peer::Node } else { Peer::Compute }, stream)
            }
        };
        Caller {
            peer,
            address: stream.peer_addr().ok(),
        }
    }
}

fn is_for_servers(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    matches!(certificate.extended_key_usage(), Ok(Some(usage)) if usage.value.server_auth)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Connection::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Connection::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Connection::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Connection::Plain(stream) => stream.is_write_vectored(),
            Connection::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(context),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Connection::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
