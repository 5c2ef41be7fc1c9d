//! What a node tells Prometheus, over plain HTTP.

use std::net::SocketAddr;

use pg_quorum_proto::v1;
use pg_quorum_proto::v1::pages_client::PagesClient;
use pg_quorum_quorum::RequestContext;
use pg_quorum_types::{Epoch, SegmentId};
use storage_service::metrics::Endpoint;
use storage_service::node::{Node, NodeConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

async fn ask(address: SocketAddr, method: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("connect");
    let request = format!("{method} /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("send");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    answer
}

fn value(answer: &str, sample: &str) -> f64 {
    let line = answer.lines().find_map(|line| line.strip_prefix(sample));
    let line = line.unwrap_or_else(|| panic!("no {sample} in {answer}"));
    line.trim().parse().expect("a number")
}

/// A node that belongs to no volume refuses whoever asks for pages of one.
async fn ask_for_pages(node: &Node) {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", node.address()))
        .expect("an address")
        .connect()
        .await
        .expect("connect");
    let context = RequestContext {
        volume: pg_quorum_types::VolumeId(Uuid::new_v4()),
        protection_group: pg_quorum_types::ProtectionGroup(0),
        epoch: Epoch {
            number: 1,
            writer: Uuid::new_v4(),
        },
        membership_version: 1,
        segment: SegmentId(Uuid::new_v4()),
    };
    let request = v1::GetPagesRequest {
        context: Some(context.into()),
        ..v1::GetPagesRequest::default()
    };
    let reply = PagesClient::new(channel)
        .get_pages(request)
        .await
        .expect("a reply");
    assert!(reply.into_inner().refused.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_has_the_nodes_figures_of_now() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let config = NodeConfig::new("az1-1", "az1", "127.0.0.1:0".to_owned(), data);
    let node = Node::start(config).await.expect("the node");
    let endpoint = Endpoint::start("127.0.0.1:0", vec![node.observed()])
        .await
        .expect("the endpoint");

    let first = ask(endpoint.address(), "GET").await;
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    assert!(
        first.contains("content-type: text/plain; version=0.0.4"),
        "{first}"
    );
    assert!(first.contains("# TYPE pg_quorum_log_sync_seconds histogram\n"));
    let mine = |name: &str| format!("pg_quorum_{name}{{node=\"az1-1\"}}");
    for (name, expected) in [
        ("active", 0.0),
        ("scl_lsn", 0.0),
        ("backlog_bytes", 0.0),
        ("pages_served_total", 0.0),
        ("page_requests_refused_total", 0.0),
        ("log_sync_seconds_count", 0.0),
    ] {
        assert_eq!(value(&first, &mine(name)), expected, "{name}");
    }
    assert!(value(&first, &mine("disk_free_bytes")) > 0.0);

    ask_for_pages(&node).await;
    let second = ask(endpoint.address(), "GET").await;
    assert_eq!(value(&second, &mine("page_requests_refused_total")), 1.0);

    let refused = ask(endpoint.address(), "POST").await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    node.stop().await;
}
