//! What a node does for whom, when it wants tokens.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pg_quorum_client::{CallError, ClientConfig, ConfigError, Timeouts, Transport, probe};
use pg_quorum_proto::v1;
use pg_quorum_proto::v1::admin_client::AdminClient;
use pg_quorum_proto::v1::pages_client::PagesClient;
use pg_quorum_proto::v1::peer_client::PeerClient;
use pg_quorum_proto::v1::segment_client::SegmentClient;
use pg_quorum_proto::v1::state_client::StateClient;
use pg_quorum_proto::v1::wal_client::WalClient;
use pg_quorum_quorum::RequestContext;
use pg_quorum_quorum::segment::{CreateRequest, PromiseRequest, StartRequest};
use pg_quorum_tls::Tls;
use pg_quorum_token::{Claims, Role, TokenFile, TokenKeys};
use pg_quorum_types::{
    AzName, Base, ClusterFacts, ComputeId, Epoch, History, HistoryEntry, Lsn, Membership, NodeName, Owner,
    ProtectionGroup, SegmentMember, VolumeId,
};
use storage_service::node::Node;
use storage_service::pki;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

mod authority;

use authority::{authority, tls};

const HOUR: Duration = Duration::from_secs(3600);

/// An authority, and a node that wants its tokens.
struct Site {
    scratch: TempDir,
    node: Node,
}

impl Site {
    async fn start() -> Site {
        let scratch = tempfile::tempdir().expect("a directory");
        let pki = scratch.path().join("pki");
        authority(&pki);
        let keys = TokenKeys::load(pki.join("token.pub")).expect("keys");
        let node = authority::start(scratch.path(), |config| {
            config.tls = tls(&pki, &pki, "node");
            config.token_keys = Some(keys);
        })
        .await;
        Site { scratch, node }
    }

    fn pki(&self) -> PathBuf {
        self.scratch.path().join("pki")
    }

    fn tls(&self, name: &str) -> Tls {
        tls(&self.pki(), &self.pki(), name).expect("certificates")
    }

    /// Through a new connection with a compute's certificate.
    fn with_token(&self, token: &str) -> Calls {
        self.calls("compute", Some(format!("Bearer {token}")))
    }

    fn calls(&self, certificate: &str, authorization: Option<String>) -> Calls {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.node.address())).expect("an address");
        Calls {
            channel: pg_quorum_tls::channel(endpoint, Some(&self.tls(certificate))),
            authorization: authorization.map(|text| text.parse().expect("a header")),
        }
    }

    /// Refusals so far: without a token that counts, and for something else.
    fn refused(&self) -> (u64, u64) {
        let access = self.node.observed().access;
        (access.refusals.unauthenticated(), access.refusals.not_permitted())
    }

    fn member(&self) -> SegmentMember {
        SegmentMember {
            segment: self.node.segment().id(),
            node: NodeName("a".to_owned()),
            az: AzName("az1".to_owned()),
            address: self.node.address().to_string(),
        }
    }

    fn context(&self, volume: VolumeId) -> RequestContext {
        RequestContext {
            volume,
            protection_group: ProtectionGroup(0),
            epoch: epoch(),
            membership_version: 1,
            segment: self.node.segment().id(),
        }
    }

    fn create(&self, volume: VolumeId) -> v1::CreateVolumeRequest {
        let request = CreateRequest {
            volume,
            protection_group: ProtectionGroup(0),
            system_identifier: 7,
            membership: Membership {
                version: 1,
                members: vec![self.member()],
            },
            segment: self.node.segment().id(),
        };
        request.into()
    }

    fn promise(&self, volume: VolumeId) -> v1::PromiseRequest {
        let request = PromiseRequest {
            context: self.context(volume),
            owner: Owner {
                compute: ComputeId(Uuid::from_u128(5)),
                description: "test".to_owned(),
            },
            last_held_epoch: 0,
            force: false,
        };
        request.into()
    }

    fn import_header(&self, volume: VolumeId) -> v1::ImportChunk {
        let facts = ClusterFacts {
            system_identifier: 7,
            timeline: 1,
            wal_segment_bytes: 16 << 20,
            data_checksums: false,
            pg_control_version: 1300,
            catalog_version: 202_209_061,
            pg_major: 15,
        };
        v1::ImportChunk {
            header: Some(v1::import_chunk::Header {
                context: Some(self.context(volume).into()),
                base: Some(base().into()),
                facts: Some(facts.into()),
            }),
            items: Vec::new(),
            end: None,
        }
    }

    /// Each request that changes something, with what it is answered.
    async fn writes(&self, calls: &Calls, volume: VolumeId) -> Vec<(&'static str, Option<Code>)> {
        let start = StartRequest {
            context: self.context(volume),
            history: History::new(vec![HistoryEntry {
                epoch: epoch(),
                start_lsn: base().lsn,
            }])
            .expect("a history"),
            base: base(),
        };
        let append = v1::AppendRequest {
            context: Some(self.context(volume).into()),
            ..v1::AppendRequest::default()
        };
        let messages = || tokio_stream::iter([append.clone()]);
        vec![
            (
                "promise",
                code(calls.segment().promise(self.promise(volume)).await),
            ),
            (
                "start",
                code(calls.segment().start(v1::StartRequest::from(start)).await),
            ),
            ("append", first(calls.segment().append(messages()).await).await),
            (
                "create",
                code(calls.admin().create_volume(self.create(volume)).await),
            ),
            (
                "import",
                code(
                    calls
                        .admin()
                        .import_base(tokio_stream::iter([self.import_header(volume)]))
                        .await,
                ),
            ),
        ]
    }

    /// Each request that reads.
    async fn reads(&self, calls: &Calls, volume: VolumeId) -> Vec<(&'static str, Option<Code>)> {
        let context = Some(v1::Context::from(self.context(volume)));
        let fork = Some(v1::RelationFork::default());
        let pages = v1::GetPagesRequest {
            context: context.clone(),
            fork,
            ..v1::GetPagesRequest::default()
        };
        let question = tokio_stream::once(v1::PagesQuestion {
            id: 1,
            request: Some(pages.clone()),
        });
        let unchanged = v1::GetUnchangedRequest {
            context: context.clone(),
            fork,
            ..v1::GetUnchangedRequest::default()
        };
        let size = v1::GetRelationSizeRequest {
            context: context.clone(),
            lsn: 0,
            fork,
        };
        let hold = v1::HoldReadPointRequest {
            context: context.clone(),
            lsn: 0,
        };
        let image = v1::GetComputeImageRequest {
            context: context.clone(),
            ..v1::GetComputeImageRequest::default()
        };
        let wal = v1::ReadWalRequest {
            context,
            ..v1::ReadWalRequest::default()
        };
        vec![
            ("status", code(calls.segment().status(v1::StatusRequest {}).await)),
            ("pages", code(calls.pages().get_pages(pages).await)),
            ("stream", first(calls.pages().stream_pages(question).await).await),
            ("unchanged", code(calls.pages().get_unchanged(unchanged).await)),
            ("size", code(calls.pages().get_relation_size(size).await)),
            ("hold", first(calls.pages().hold_read_point(hold).await).await),
            ("image", first(calls.state().get_compute_image(image).await).await),
            ("wal", first(calls.wal().read_wal(wal).await).await),
        ]
    }
}

fn base() -> Base {
    Base {
        id: Uuid::from_u128(3),
        lsn: Lsn(0x100_0028),
    }
}

fn epoch() -> Epoch {
    Epoch {
        number: 1,
        writer: Uuid::from_u128(1),
    }
}

/// Requests over one connection.
struct Calls {
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
}

type Service = InterceptedService<Channel, Show>;

#[derive(Clone)]
struct Show(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Show {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Calls {
    fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), Show(self.authorization.clone()))
    }

    fn segment(&self) -> SegmentClient<Service> {
        SegmentClient::new(self.service())
    }

    fn admin(&self) -> AdminClient<Service> {
        AdminClient::new(self.service())
    }

    fn pages(&self) -> PagesClient<Service> {
        PagesClient::new(self.service())
    }

    fn state(&self) -> StateClient<Service> {
        StateClient::new(self.service())
    }

    fn wal(&self) -> WalClient<Service> {
        WalClient::new(self.service())
    }

    async fn status(&self) -> Option<Code> {
        code(self.segment().status(v1::StatusRequest {}).await)
    }
}

/// The call's error; `None`: it was answered, if only with a refusal of the quorum's rules.
fn code<T>(answer: Result<Response<T>, Status>) -> Option<Code> {
    answer.err().map(|status| status.code())
}

/// The same of a stream's first message.
async fn first<T>(answer: Result<Response<tonic::Streaming<T>>, Status>) -> Option<Code> {
    match answer {
        Err(status) => Some(status.code()),
        Ok(stream) => stream
            .into_inner()
            .message()
            .await
            .err()
            .map(|status| status.code()),
    }
}

#[expect(clippy::disallowed_methods, reason = "a token's end")]
fn token(pki: &Path, name: &str, volume: VolumeId, role: Role, lasts: Duration) -> String {
    let claims = Claims {
        volume,
        role,
        bearer: name.to_owned(),
        expires: OffsetDateTime::now_utc() + lasts,
    };
    pki::issue_token(pki, name, &claims).expect("a token");
    let text = std::fs::read_to_string(pki.join(format!("{name}.token"))).expect("its file");
    text.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_token_that_counts_is_refused() {
    let site = Site::start().await;
    let theirs = site.scratch.path().join("theirs");
    authority(&theirs);
    let volume = VolumeId::random();
    let good = token(&site.pki(), "good", volume, Role::Reader, HOUR);
    let expired = token(&site.pki(), "expired", volume, Role::Compute, Duration::ZERO);
    let forged = token(&theirs, "forged", volume, Role::Compute, HOUR);
    let attempts = [
        site.calls("compute", None),
        site.calls("compute", Some(good.clone())),
        site.with_token("v4.public.nonsense"),
        site.with_token(&expired),
        site.with_token(&forged),
    ];
    for (count, calls) in (1..).zip(&attempts) {
        assert_eq!(
            calls.status().await,
            Some(Code::Unauthenticated),
            "attempt {count}"
        );
        assert_eq!(site.refused(), (count, 0));
    }
    assert_eq!(site.with_token(&good).status().await, None);
    site.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_for_its_volume_and_its_role_only() {
    let site = Site::start().await;
    let (ours, other) = (VolumeId::random(), VolumeId::random());
    let make = |name, volume, role| site.with_token(&token(&site.pki(), name, volume, role, HOUR));
    let compute = make("compute", ours, Role::Compute);
    let reader = make("reader", ours, Role::Reader);
    let stranger = make("stranger", other, Role::Compute);
    assert_eq!(
        code(reader.admin().create_volume(site.create(ours)).await),
        Some(Code::PermissionDenied)
    );
    assert_eq!(
        code(stranger.admin().create_volume(site.create(ours)).await),
        Some(Code::PermissionDenied)
    );
    let created = compute
        .admin()
        .create_volume(site.create(ours))
        .await
        .expect("an answer");
    assert_eq!(created.into_inner().refused, None);

    let before = site.refused();
    let mut denied = site.writes(&reader, ours).await;
    denied.extend(site.writes(&stranger, ours).await);
    denied.extend(site.reads(&stranger, ours).await);
    for (what, answer) in &denied {
        assert_eq!(*answer, Some(Code::PermissionDenied), "{what}");
    }
    assert_eq!(site.refused(), (before.0, before.1 + denied.len() as u64));

    // The stranger names its own volume: this node is no member of it, and is not made one.
    let promised = stranger
        .segment()
        .promise(site.promise(other))
        .await
        .expect("an answer");
    assert!(matches!(
        promised.into_inner().outcome,
        Some(v1::promise_reply::Outcome::Refused(refused)) if refused.reason() == v1::Refusal::NotMember
    ));
    let taken_over = code(stranger.admin().create_volume(site.create(other)).await);
    assert_eq!(taken_over, Some(Code::PermissionDenied));

    for (what, answer) in site.reads(&reader, ours).await {
        assert_eq!(answer, None, "{what} of a reader");
    }
    for (what, answer) in site.writes(&compute, ours).await {
        // The import has no end: it got as far as that.
        let expected = (what == "import").then_some(Code::Cancelled);
        assert_eq!(answer, expected, "{what} of a compute");
    }
    site.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_read_and_speak_as_peers_without_a_token_and_write_nothing() {
    let site = Site::start().await;
    let volume = VolumeId::random();
    let text = token(&site.pki(), "compute", volume, Role::Compute, HOUR);
    let compute = site.with_token(&text);
    compute
        .admin()
        .create_volume(site.create(volume))
        .await
        .expect("a volume");
    let node = site.calls("node", None);
    for (what, answer) in site.reads(&node, volume).await {
        assert_eq!(answer, None, "{what} of a node");
    }
    // What a token would allow, it allows whoever bears it: but not with a node's certificate.
    for node in [node, site.calls("node", Some(format!("Bearer {text}")))] {
        for (what, answer) in site.writes(&node, volume).await {
            assert_eq!(answer, Some(Code::PermissionDenied), "{what} of a node");
        }
    }
    for (certificate, expected) in [
        ("compute", Code::PermissionDenied),
        // Let through: it is the empty message that is refused.
        ("node", Code::InvalidArgument),
    ] {
        let calls = site.calls(certificate, Some(format!("Bearer {text}")));
        let gossip = PeerClient::new(calls.service())
            .gossip(v1::PeerState::default())
            .await;
        assert_eq!(code(gossip), Some(expected), "{certificate}");
    }
    site.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_open_ends_when_its_token_expires() {
    let site = Site::start().await;
    let volume = VolumeId::random();
    let lasting = site.with_token(&token(&site.pki(), "lasting", volume, Role::Compute, HOUR));
    lasting
        .admin()
        .create_volume(site.create(volume))
        .await
        .expect("a volume");
    lasting
        .segment()
        .promise(site.promise(volume))
        .await
        .expect("a promise");

    let lasts = Duration::from_secs(3);
    let started = Instant::now();
    let short = site.with_token(&token(&site.pki(), "short", volume, Role::Compute, lasts));
    let (sender, receiver) = mpsc::channel(1);
    let mut admin = short.admin();
    let import = tokio::spawn(async move { admin.import_base(ReceiverStream::new(receiver)).await });
    sender.send(site.import_header(volume)).await.expect("a header");
    let mut sent = 0;
    // The node takes messages until it ends the stream.
    while sender.send(v1::ImportChunk::default()).await.is_ok() {
        sent += 1;
        assert!(started.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = import
        .await
        .expect("a task")
        .expect_err("an import without an end");
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(status.message().contains("has expired"), "{status}");
    assert!(sent > 1, "{sent}");
    // The expiry is in whole seconds.
    assert!(started.elapsed() >= lasts - Duration::from_secs(1));
    site.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_token_and_a_new_key_count_without_a_restart() {
    let site = Site::start().await;
    let pki = site.pki();
    let volume = VolumeId::random();
    token(&pki, "client", volume, Role::Reader, Duration::ZERO);
    let mut config = ClientConfig {
        nodes: vec![site.node.address().to_string()],
        volume: None,
        transport: Transport {
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                ..Timeouts::default()
            },
            tls: Some(site.tls("compute")),
            token: Some(TokenFile::new(pki.join("client.token"))),
        },
    };
    let refused = ask(&config).await.expect_err("an expired token");
    assert!(
        matches!(&refused, CallError::NotAllowed(why) if why.contains("has expired")),
        "{refused}"
    );
    assert!(refused.may_succeed_later());
    token(&pki, "client", volume, Role::Reader, HOUR);
    wait_for(&config, true).await;

    // Another key's tokens, then no longer the first one's.
    let next = site.scratch.path().join("next");
    authority(&next);
    let keys = |dirs: &[&PathBuf]| {
        let text: String = dirs
            .iter()
            .map(|dir| std::fs::read_to_string(dir.join("token.pub")).expect("a key"))
            .collect();
        let beside = pki.join("beside");
        std::fs::write(&beside, text).expect("write");
        std::fs::rename(beside, pki.join("token.pub")).expect("rename");
    };
    let first = pki.join("first");
    std::fs::create_dir(&first).expect("a directory");
    std::fs::copy(pki.join("token.pub"), first.join("token.pub")).expect("a copy");
    keys(&[&first, &next]);
    token(&next, "client", volume, Role::Reader, HOUR);
    let mut with_next = config.clone();
    with_next.transport.token = Some(TokenFile::new(next.join("client.token")));
    wait_for(&with_next, true).await;
    wait_for(&config, true).await;
    keys(&[&next]);
    wait_for(&config, false).await;
    wait_for(&with_next, true).await;

    config.transport.tls = None;
    let refused = probe(&config).await.expect_err("a token in the clear");
    assert_eq!(refused, ConfigError::TokenInTheClear);
    site.node.stop().await;
}

async fn ask(config: &ClientConfig) -> Result<(), CallError> {
    let report = probe(config).await.expect("an address").remove(0);
    report.outcome.map(drop)
}

/// Until the node answers, or does not allow it any more.
async fn wait_for(config: &ClientConfig, is_allowed: bool) {
    let started = Instant::now();
    loop {
        match (ask(config).await, is_allowed) {
            (Ok(()), true) | (Err(CallError::NotAllowed(_)), false) => return,
            (answer, _) => assert!(started.elapsed() < Duration::from_secs(30), "{answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
