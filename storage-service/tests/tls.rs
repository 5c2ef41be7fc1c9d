//! Who gets an answer from a node with TLS, and from a client with TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pg_quorum_client::{ClientConfig, Timeouts, Transport, probe};
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::peer_client::PeerClient;
use pg_quorum_tls::{Tls, TlsError, TlsFiles};
use storage_service::node::Node;
use tonic::Code;
use tonic::transport::Endpoint;

mod authority;

use authority::{authority, files, tls};

async fn start(dir: &Path, tls: Option<Tls>) -> Node {
    authority::start(dir, |config| config.tls = tls).await
}

/// Over a connection of its own.
async fn answers(node: &Node, tls: Option<Tls>) -> Result<(), String> {
    let config = ClientConfig {
        nodes: vec![node.address().to_string()],
        volume: None,
        transport: Transport {
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                ..Timeouts::default()
            },
            tls,
            token: None,
        },
    };
    let report = probe(&config).await.expect("an address").remove(0);
    report.outcome.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_of_the_same_authority_get_an_answer() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (scratch.path().join("ours"), scratch.path().join("theirs"));
    authority(&ours);
    authority(&theirs);
    let node = start(scratch.path(), tls(&ours, &ours, "node")).await;

    answers(&node, tls(&ours, &ours, "compute"))
        .await
        .expect("a compute");
    answers(&node, tls(&ours, &ours, "node")).await.expect("a peer");
    for (who, tls) in [
        ("in the clear", None),
        ("another authority's", tls(&ours, &theirs, "compute")),
        (
            "does not know the node's authority",
            tls(&theirs, &ours, "compute"),
        ),
    ] {
        let refused = answers(&node, tls).await;
        assert!(refused.is_err(), "a client that is {who} got an answer");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_tls_takes_no_answer_in_the_clear_or_from_a_computes_certificate() {
    let scratch = tempfile::tempdir().expect("a directory");
    let pki = scratch.path().join("pki");
    authority(&pki);
    let plain = start(&scratch.path().join("plain"), None).await;
    answers(&plain, None).await.expect("both in the clear");
    assert!(answers(&plain, tls(&pki, &pki, "compute")).await.is_err());
    plain.stop().await;

    // Whoever has a compute's key must not be able to pass for a node.
    let impostor = start(&scratch.path().join("impostor"), tls(&pki, &pki, "compute")).await;
    assert!(answers(&impostor, tls(&pki, &pki, "compute")).await.is_err());
    impostor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_files_count_for_new_connections() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (live, next) = (scratch.path().join("live"), scratch.path().join("next"));
    authority(&live);
    authority(&next);
    let node = start(scratch.path(), tls(&live, &live, "node")).await;
    let client = tls(&live, &live, "compute");
    answers(&node, client.clone()).await.expect("the first files");
    assert!(answers(&node, tls(&next, &next, "compute")).await.is_err());

    // Half of them: the key is not the certificate's. What was there before still works.
    copy(&next, &live, &["node.key", "compute.key"]);
    answers(&node, client.clone())
        .await
        .expect("the files before a half-done change");

    copy(&next, &live, &["ca.pem", "node.pem", "compute.pem"]);
    answers(&node, client)
        .await
        .expect("the replaced files, on both sides");
    answers(&node, tls(&next, &next, "compute"))
        .await
        .expect("the new authority");
    node.stop().await;
}

fn copy(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        let beside: PathBuf = to.join("beside");
        std::fs::copy(from.join(name), &beside).expect("copy");
        std::fs::rename(&beside, to.join(name)).expect("rename");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compute_cannot_speak_as_a_peer() {
    let scratch = tempfile::tempdir().expect("a directory");
    let pki = scratch.path().join("pki");
    authority(&pki);
    let node = start(scratch.path(), tls(&pki, &pki, "node")).await;
    for (name, code) in [
        ("compute", Code::PermissionDenied),
        // Let through: it is the empty message that is refused.
        ("node", Code::InvalidArgument),
    ] {
        let endpoint = Endpoint::from_shared(format!("http://{}", node.address())).expect("an address");
        let mut peer = PeerClient::new(pg_quorum_tls::channel(endpoint, tls(&pki, &pki, name).as_ref()));
        let refused = peer
            .gossip(v1::PeerState::default())
            .await
            .expect_err("an empty message");
        assert_eq!(refused.code(), code, "{name}: {refused}");
    }
    node.stop().await;
}

#[test]
fn a_key_of_another_certificate_is_refused_by_name() {
    let scratch = tempfile::tempdir().expect("a directory");
    authority(scratch.path());
    let crossed = TlsFiles {
        key: scratch.path().join("compute.key"),
        ..files(scratch.path(), scratch.path(), "node")
    };
    assert!(matches!(Tls::load(crossed), Err(TlsError::Pair { .. })));
}
