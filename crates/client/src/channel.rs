//! Connections: one lazy HTTP/2 channel for each node, on the runtime that makes it.

use std::time::Duration;

use pg_quorum_proto::v1;
use pg_quorum_token::TokenFile;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::Transport;

/// Bytes that one stream may have under way to us before we have read them.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// The largest message that is taken from a node. Chunks are about a megabyte; a state item that cannot be
/// cut (a two-phase file, a logical message's record) may be as large as PostgreSQL's largest allocation.
const MAX_REPLY_BYTES: usize = 1 << 30;
/// How often a connection is tried, also an idle one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// How long a peer may take to answer that before the connection is given up.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between TCP's own probes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(10);

/// A node's address with its services. Nothing is connected before the first request; a broken connection
/// is made anew by the next one. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub address: String,
    channel: Channel,
    bearer: Bearer,
}

/// Shows the token, if there is one, as it is when a request is sent.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<TokenFile>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(file) = &self.0 {
            let unusable = |error: &dyn std::fmt::Display| Status::unauthenticated(error.to_string());
            let token = file.token().map_err(|error| unusable(&error))?;
            let value = format!("Bearer {token}")
                .parse()
                .map_err(|error| unusable(&error))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

type Calls = InterceptedService<Channel, Bearer>;

impl Node {
    /// Must be called inside a tokio runtime: the connection's tasks live there.
    pub fn new(address: &str, transport: &Transport) -> Result<Node, crate::ConfigError> {
        if transport.token.is_some() && transport.tls.is_none() {
            return Err(crate::ConfigError::TokenInTheClear);
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| crate::ConfigError::BadAddress(address.to_owned()))?
            .connect_timeout(transport.timeouts.connect)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(TCP_KEEPALIVE))
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(Node {
            address: address.to_owned(),
            channel: pg_quorum_tls::channel(endpoint, transport.tls.as_ref()),
            bearer: Bearer(transport.token.clone()),
        })
    }

    fn calls(&self) -> Calls {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub fn segment(&self) -> v1::segment_client::SegmentClient<Calls> {
        v1::segment_client::SegmentClient::new(self.calls()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub fn pages(&self) -> v1::pages_client::PagesClient<Calls> {
        v1::pages_client::PagesClient::new(self.calls()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub fn state(&self) -> v1::state_client::StateClient<Calls> {
        v1::state_client::StateClient::new(self.calls()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub fn wal(&self) -> v1::wal_client::WalClient<Calls> {
        v1::wal_client::WalClient::new(self.calls()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub fn admin(&self) -> v1::admin_client::AdminClient<Calls> {
        v1::admin_client::AdminClient::new(self.calls()).max_decoding_message_size(MAX_REPLY_BYTES)
    }
}
