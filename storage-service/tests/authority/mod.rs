//! Certificates and a node for tests of who gets an answer.

use std::path::Path;

use pg_quorum_tls::{Tls, TlsFiles};
use storage_service::node::{Node, NodeConfig};
use storage_service::pki::{self, Subject};

const DAYS: u32 = 2;

pub fn authority(dir: &Path) {
    pki::init(dir).expect("an authority");
    issue(dir);
}

pub fn issue(dir: &Path) {
    let hosts = ["127.0.0.1".to_owned()];
    pki::issue(dir, "node", Subject::Node { hosts: &hosts }, DAYS).expect("a node's certificate");
    pki::issue(dir, "compute", Subject::Compute, DAYS).expect("a compute's certificate");
}

pub fn files(authority: &Path, own: &Path, name: &str) -> TlsFiles {
    TlsFiles {
        authority: authority.join("ca.pem"),
        certificate: own.join(format!("{name}.pem")),
        key: own.join(format!("{name}.key")),
    }
}

pub fn tls(authority: &Path, own: &Path, name: &str) -> Option<Tls> {
    Some(Tls::load(files(authority, own, name)).expect("usable files"))
}

pub async fn start(dir: &Path, change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut config = NodeConfig::new("a", "az1", "127.0.0.1:0".to_owned(), dir.join("data"));
    change(&mut config);
    Node::start(config).await.expect("a node")
}
