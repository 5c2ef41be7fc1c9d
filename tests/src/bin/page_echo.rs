//! The least that a page costs between two processes over gRPC: a server that answers every request with the same
//! page, and a client that asks for one after the other. The peer of `cargo xtask bench pointread`.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::pages_client::PagesClient;
use pg_quorum_proto::v1::pages_server::{Pages, PagesServer};
use pg_quorum_types::BLOCK_SIZE;
use serde::Serialize;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

/// Not measured: until both sides are warm.
const WARM_UP: usize = 200;

#[derive(Parser)]
struct Arguments {
    /// Where the server listens.
    #[arg(long)]
    address: SocketAddr,
    /// Requests that are measured.
    #[arg(long, default_value_t = 2000)]
    requests: usize,
    /// Be the server; without it, start one and measure.
    #[arg(long)]
    serve: bool,
}

/// What is printed, as JSON.
#[derive(Serialize)]
struct Measured {
    p50_us: f64,
}

struct Echo(Bytes);

#[tonic::async_trait]
impl Pages for Echo {
    type HoldReadPointStream = tonic::codegen::BoxStream<v1::HeldReadPoint>;
    type StreamPagesStream = tonic::codegen::BoxStream<v1::PagesAnswer>;

    async fn get_pages(
        &self,
        _request: Request<v1::GetPagesRequest>,
    ) -> Result<Response<v1::GetPagesReply>, Status> {
        let page = v1::Page {
            page: self.0.clone(),
            error: String::new(),
        };
        Ok(Response::new(v1::GetPagesReply {
            pages: vec![page],
            ..Default::default()
        }))
    }

    async fn stream_pages(
        &self,
        _request: Request<tonic::Streaming<v1::PagesQuestion>>,
    ) -> Result<Response<Self::StreamPagesStream>, Status> {
        Err(Status::unimplemented("single pages only"))
    }

    async fn get_unchanged(
        &self,
        _request: Request<v1::GetUnchangedRequest>,
    ) -> Result<Response<v1::GetUnchangedReply>, Status> {
        Err(Status::unimplemented("pages only"))
    }

    async fn get_relation_size(
        &self,
        _request: Request<v1::GetRelationSizeRequest>,
    ) -> Result<Response<v1::GetRelationSizeReply>, Status> {
        Err(Status::unimplemented("pages only"))
    }

    async fn hold_read_point(
        &self,
        _request: Request<v1::HoldReadPointRequest>,
    ) -> Result<Response<Self::HoldReadPointStream>, Status> {
        Err(Status::unimplemented("pages only"))
    }
}

/// Killed on drop.
struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It is gone either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.serve {
        let echo = Echo(Bytes::from(vec![7; BLOCK_SIZE]));
        let server = Server::builder().add_service(PagesServer::new(echo));
        return Ok(server.serve(arguments.address).await?);
    }
    let address = arguments.address.to_string();
    let server = Command::new(std::env::current_exe()?)
        .args(["--serve", "--address", &address])
        .spawn();
    let _server = ServerProcess(server.context("start the server")?);
    let mut client = connect(&address).await?;
    let mut took = Vec::with_capacity(arguments.requests);
    for request in 0..WARM_UP + arguments.requests {
        let since = Instant::now();
        client.get_pages(v1::GetPagesRequest::default()).await?;
        if request >= WARM_UP {
            took.push(since.elapsed());
        }
    }
    took.sort_unstable();
    let p50 = took.get(took.len() / 2).context("no request was measured")?;
    let measured = Measured {
        p50_us: p50.as_secs_f64() * 1e6,
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

async fn connect(address: &str) -> Result<PagesClient<Channel>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match PagesClient::connect(format!("http://{address}")).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
