//! An authority of one's own in a directory, and certificates by it, for those who have no other.
//!
//! ```text
//!   DIR/ca.pem, ca.key          the authority; the key is needed to issue, by nobody else
//!   DIR/node.pem, node.key      for servers and for clients: a storage node
//!   DIR/compute.pem, …          for clients only: a compute or quorumctl
//!   DIR/token.key, token.pub    signs tokens; the nodes get token.pub
//!   DIR/compute.token           what its bearer may do to one volume
//! ```
//! Keys are ECDSA over P-256 and for their owner's eyes only. A certificate's purposes are what tells a node from a
//! compute ([`pg_quorum_tls::Peer`]).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pg_quorum_token::{Claims, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// How long the authority lasts.
const AUTHORITY_DAYS: u32 = 3650;
/// Clocks of machines may be apart by so much.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{}: {source}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("making a token: {0}")]
    Token(String),
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A node that is reached under these host names and IP addresses.
    Node { hosts: &'a [String] },
    /// A compute or a tool.
    Compute,
}

/// Makes `ca.pem` and `ca.key`, `token.key` and `token.pub`, and the directory if there is none.
///
/// # Errors
/// There is an authority already, or the directory cannot be written to.
pub fn init(dir: &Path) -> Result<(), PkiError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| file_error(dir, source))?;
    let key = KeyPair::generate()?;
    let mut params = params("pg_quorum authority", AUTHORITY_DAYS, &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    write(dir.join("ca.key"), &key.serialize_pem(), 0o600, Existing::Refuse)?;
    write(dir.join("ca.pem"), &certificate.pem(), 0o644, Existing::Refuse)?;
    let pair = SigningKey::generate().map_err(PkiError::Token)?;
    write(
        dir.join("token.key"),
        &line(&pair.secret),
        0o600,
        Existing::Refuse,
    )?;
    write(
        dir.join("token.pub"),
        &line(&pair.public),
        0o644,
        Existing::Refuse,
    )
}

fn line(text: &str) -> String {
    format!("{text}\n")
}

/// Makes `NAME.token`, in place of an older one, with which processes that run go on.
///
/// # Errors
/// No `token.key` in the directory, or the directory cannot be written to.
pub fn issue_token(dir: &Path, name: &str, claims: &Claims) -> Result<(), PkiError> {
    let key = SigningKey::parse(&read(&dir.join("token.key"))?).map_err(PkiError::Token)?;
    let token = key.sign(claims).map_err(PkiError::Token)?;
    write(
        dir.join(format!("{name}.token")),
        &line(&token),
        0o600,
        Existing::Replace,
    )
}

/// Makes `NAME.pem` and `NAME.key`, in place of older ones, with which processes that run go on for new connections.
///
/// # Errors
/// No authority in the directory, something that is no host, or the directory cannot be written to.
pub fn issue(dir: &Path, name: &str, subject: Subject<'_>, days: u32) -> Result<(), PkiError> {
    let authority_key = KeyPair::from_pem(&read(&dir.join("ca.key"))?)?;
    let authority = Issuer::from_ca_cert_pem(&read(&dir.join("ca.pem"))?, authority_key)?;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let (hosts, purposes) = match subject {
        Subject::Node { hosts } => (hosts, vec![ExtendedKeyUsagePurpose::ServerAuth, client]),
        Subject::Compute => (&[][..], vec![client]),
    };
    let mut params = params(name, days, hosts)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = purposes;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    let file = |extension| dir.join(format!("{name}.{extension}"));
    write(file("key"), &key.serialize_pem(), 0o600, Existing::Replace)?;
    write(file("pem"), &certificate.pem(), 0o644, Existing::Replace)
}

#[expect(clippy::disallowed_methods, reason = "a certificate's dates")]
fn params(name: &str, days: u32, hosts: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(days.into());
    Ok(params)
}

#[derive(Clone, Copy)]
enum Existing {
    Refuse,
    Replace,
}

/// Written beside it, then put into its place: nobody reads half a file.
fn write(path: PathBuf, text: &str, mode: u32, existing: Existing) -> Result<(), PkiError> {
    let beside = path.with_added_extension("new");
    let written = || {
        let _ = fs::remove_file(&beside);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match existing {
            Existing::Replace => fs::rename(&beside, &path),
            Existing::Refuse => fs::hard_link(&beside, &path).and_then(|()| fs::remove_file(&beside)),
        }
    };
    written().map_err(|source| file_error(&path, source))
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> PkiError {
    PkiError::File {
        path: path.to_owned(),
        source,
    }
}
