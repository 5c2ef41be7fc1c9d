//! What a client must be told: where the nodes are, which volume is meant, how long to wait.

use std::time::Duration;

use pg_quorum_tls::Tls;
use pg_quorum_token::TokenFile;
use pg_quorum_types::VolumeId;

/// Addresses, and how to reach them.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of each node.
    pub nodes: Vec<String>,
    /// Refuse nodes that keep another volume.
    pub volume: Option<VolumeId>,
    pub transport: Transport,
}

/// How nodes are reached.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    pub timeouts: Timeouts,
    /// `None`: in the clear.
    pub tls: Option<Tls>,
    /// Shown with every request; only over TLS.
    pub token: Option<TokenFile>,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// One TCP and HTTP/2 connection.
    pub connect: Duration,
    /// One request and its answer.
    pub request: Duration,
    /// Enough nodes to begin with (reported all the while).
    pub quorum: Duration,
    /// During an import or an image: no progress of one node at all.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(5),
            quorum: Duration::from_secs(60),
            stall: Duration::from_secs(30),
        }
    }
}

/// The list of addresses cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("no node is named: give the six addresses as host:port,host:port,…")]
    NoNodes,
    #[error("\"{0}\" is no address: host:port is wanted, such as 10.0.0.1:7101")]
    BadAddress(String),
    #[error("the address {0} is named twice")]
    Repeated(String),
    #[error("a token is not sent in the clear: it needs the certificates for TLS, too")]
    TokenInTheClear,
}

impl ClientConfig {
    /// A configuration from a comma-separated list of addresses.
    ///
    /// # Errors
    /// An empty list, something that is no `host:port`, or an address that is there twice.
    pub fn parse(nodes: &str) -> Result<ClientConfig, ConfigError> {
        let mut addresses: Vec<String> = Vec::new();
        for address in nodes
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
        {
            check_address(address)?;
            if addresses.iter().any(|other| other == address) {
                return Err(ConfigError::Repeated(address.to_owned()));
            }
            addresses.push(address.to_owned());
        }
        if addresses.is_empty() {
            return Err(ConfigError::NoNodes);
        }
        Ok(ClientConfig {
            nodes: addresses,
            volume: None,
            transport: Transport::default(),
        })
    }
}

fn check_address(address: &str) -> Result<(), ConfigError> {
    let bad = || ConfigError::BadAddress(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    let is_plain = !host.is_empty() && !host.contains([':', '/', '@', ' ']);
    if port == 0 || !(is_ipv6 || is_plain) {
        return Err(bad());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_addresses_is_taken_apart_and_checked() {
        let config = ClientConfig::parse("127.0.0.1:7101, node-2:7102,[::1]:7103").unwrap();
        assert_eq!(config.nodes, ["127.0.0.1:7101", "node-2:7102", "[::1]:7103"]);
        let error = |text: &str| ClientConfig::parse(text).unwrap_err();
        assert_eq!(error(" ,"), ConfigError::NoNodes);
        assert_eq!(error("a:1,a:1"), ConfigError::Repeated("a:1".into()));
        for bad in ["a", "a:", "a:0", ":1", "::1:7", "http://a:1", "a:70000"] {
            assert_eq!(error(bad), ConfigError::BadAddress(bad.into()));
        }
    }
}
