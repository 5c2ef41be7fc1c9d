//! The files of one side, and what they hold.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};

/// What gRPC is called in a handshake.
const HTTP2: &[u8] = b"h2";

/// The files cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TlsError {
    #[error("TLS needs an authority, a certificate and a key; not given: {}", .missing.join(", "))]
    Incomplete { missing: Vec<&'static str> },
    #[error("the {what} in {}: {reason}", .path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error("the certificate in {} and the key in {}: {reason}", .certificate.display(), .key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        reason: String,
    },
}

/// PEM files of one side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Certificates of those who may issue the other side's.
    pub authority: PathBuf,
    /// This side's certificate, with those between it and the authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// From three settings: all of them, or none for connections in the clear.
    ///
    /// # Errors
    /// Only some are there.
    pub fn from_settings(
        authority: Option<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Option<TlsFiles>, TlsError> {
        match (authority, certificate, key) {
            (None, None, None) => Ok(None),
            (Some(authority), Some(certificate), Some(key)) => Ok(Some(TlsFiles {
                authority,
                certificate,
                key,
            })),
            (authority, certificate, key) => {
                let settings = [
                    ("authority", authority.is_none()),
                    ("certificate", certificate.is_none()),
                    ("key", key.is_none()),
                ];
                let missing = settings.into_iter().filter(|(_, is_missing)| *is_missing);
                Err(TlsError::Incomplete {
                    missing: missing.map(|(name, _)| name).collect(),
                })
            }
        }
    }

    /// Differs once a file was replaced or changed.
    pub(crate) fn stamp(&self) -> Stamp {
        [&self.authority, &self.certificate, &self.key].map(|path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.ino(), file.modified().ok()?))
        })
    }

    pub(crate) fn read(&self) -> Result<Loaded, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("authority", &self.authority)? {
            let added = roots.add(certificate);
            added.map_err(|error| file_error("authority", &self.authority, error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("certificate", &self.certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| file_error("key", &self.key, error))?;
        let mismatch = |error: rustls::Error| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason: error.to_string(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| file_error("authority", &self.authority, error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(mismatch)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(mismatch)?;
        server.alpn_protocols = vec![HTTP2.to_vec()];
        // No session is taken up again: each connection is checked against the files as they are now.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(mismatch)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(mismatch)?;
        client.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Loaded {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// Inode and time of each file; `None` for one that is not there.
pub(crate) type Stamp = [Option<(u64, SystemTime)>; 3];

/// What the files held when they were read.
pub(crate) struct Loaded {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(what, path, error))?;
    if certificates.is_empty() {
        return Err(file_error(what, path, "it holds no certificate in PEM"));
    }
    Ok(certificates)
}

fn file_error(what: &'static str, path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_settings_are_refused_by_name() {
        let file = || Some(PathBuf::from("f"));
        assert_eq!(TlsFiles::from_settings(None, None, None), Ok(None));
        assert!(matches!(
            TlsFiles::from_settings(file(), file(), file()),
            Ok(Some(_))
        ));
        let error = TlsFiles::from_settings(file(), None, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "TLS needs an authority, a certificate and a key; not given: certificate, key"
        );
    }
}
