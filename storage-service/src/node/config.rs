//! What a node is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pg_quorum_tls::Tls;
use pg_quorum_token::TokenKeys;
use pg_quorum_types::{AzName, NodeName};

use crate::derived::DerivedSettings;
use crate::log::LogSettings;

/// A dead owner's lease lasts so long.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(5);
pub const DEFAULT_GOSSIP_INTERVAL: Duration = Duration::from_millis(500);

/// One node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub name: NodeName,
    pub az: AzName,
    /// `host:port`.
    pub listen: String,
    pub data: PathBuf,
    pub lease: Duration,
    pub gossip_interval: Duration,
    pub log: LogSettings,
    pub derived: DerivedSettings,
    /// For clients and peers; `None`: in the clear.
    pub tls: Option<Tls>,
    /// Whose tokens count; `None`: none is asked for. Tokens need TLS.
    pub token_keys: Option<TokenKeys>,
    /// For tests: what is not synced is lost when the process is killed.
    pub lossy_disk: bool,
    /// For tests: the log's disk is full when it has so many bytes.
    pub disk_quota_bytes: Option<Arc<AtomicU64>>,
}

impl NodeConfig {
    /// A node with the defaults.
    pub fn new(name: &str, az: &str, listen: String, data: PathBuf) -> NodeConfig {
        NodeConfig {
            name: NodeName(name.to_owned()),
            az: AzName(az.to_owned()),
            listen,
            data,
            lease: DEFAULT_LEASE,
            gossip_interval: DEFAULT_GOSSIP_INTERVAL,
            log: LogSettings::default(),
            derived: DerivedSettings::default(),
            tls: None,
            token_keys: None,
            lossy_disk: false,
            disk_quota_bytes: None,
        }
    }

    /// The six nodes of the embedded mode, two in each of three zones, on adjacent ports. They share what threads
    /// there are for redo.
    pub fn embedded(nodes_dir: &Path, host: &str, port_base: u16) -> Vec<NodeConfig> {
        let derived = DerivedSettings::default();
        let mut nodes = Vec::new();
        for zone in 1..=3 {
            for member in 1..=2 {
                let name = format!("az{zone}-{member}");
                let listen = format!("{host}:{}", usize::from(port_base) + nodes.len());
                let data = nodes_dir.join(&name).join("data");
                nodes.push(NodeConfig {
                    derived: derived.clone(),
                    ..NodeConfig::new(&name, &format!("az{zone}"), listen, data)
                });
            }
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_mode_has_two_nodes_in_each_of_three_zones() {
        let nodes = NodeConfig::embedded(Path::new("/d/nodes"), "127.0.0.1", 7100);
        let summary: Vec<String> = nodes
            .iter()
            .map(|node| {
                format!(
                    "{} {} {} {}",
                    node.name,
                    node.az,
                    node.listen,
                    node.data.display()
                )
            })
            .collect();
        assert_eq!(
            summary,
            [
                "az1-1 az1 127.0.0.1:7100 /d/nodes/az1-1/data",
                "az1-2 az1 127.0.0.1:7101 /d/nodes/az1-2/data",
                "az2-1 az2 127.0.0.1:7102 /d/nodes/az2-1/data",
                "az2-2 az2 127.0.0.1:7103 /d/nodes/az2-2/data",
                "az3-1 az3 127.0.0.1:7104 /d/nodes/az3-1/data",
                "az3-2 az3 127.0.0.1:7105 /d/nodes/az3-2/data",
            ]
        );
    }
}
