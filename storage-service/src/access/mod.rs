//! Who may ask this node for what: what is not signed for is refused.
//!
//! ```text
//!   certificate (TLS)      a node's: reads any volume, speaks as a peer; writes nothing
//!                          a compute's, or none: what its token says
//!   token                  volume, role, until when
//! ```
//! Without keys for tokens everybody who gets a connection may do everything. With them a request is
//! looked at twice: here, before any service sees it, whether it bears a token that counts; then by the service, which
//! knows what it is about, through its [`Grant`]. A stream asks its grant again and again, and so ends when its token
//! expires or its key is withdrawn.
//!
//! Refusals are gRPC errors (`unauthenticated`, `permission_denied`), counted, and told in the log once a second at most.

mod refusals;

use std::fmt;
use std::sync::Arc;

use pg_quorum_tls::{Caller, Peer};
use pg_quorum_token::{Role, TokenKeys};
use pg_quorum_types::{NodeName, VolumeId};
use time::OffsetDateTime;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

pub use refusals::Refusals;

/// How a token is shown.
const SCHEME: &str = "Bearer ";

/// What a request wants to do to a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    Read,
    Write,
}

/// A node's rule.
#[derive(Debug)]
pub struct Access {
    node: NodeName,
    keys: Option<TokenKeys>,
    pub refusals: Refusals,
}

/// What a request may do; among its extensions.
#[derive(Clone)]
pub struct Grant {
    access: Arc<Access>,
    caller: Option<Caller>,
    token: Option<MetadataValue<Ascii>>,
}

impl Access {
    /// `None`: no tokens are asked for.
    pub fn new(node: NodeName, keys: Option<TokenKeys>) -> Access {
        Access {
            node,
            keys,
            refusals: Refusals::default(),
        }
    }

    /// Lets a request in that has a grant of any kind, and attaches it.
    ///
    /// # Errors
    /// `unauthenticated`.
    #[allow(clippy::result_large_err)] // tonic's interceptors return it
    pub fn admit(self: &Arc<Access>, mut request: Request<()>) -> Result<Request<()>, Status> {
        let grant = Grant {
            access: Arc::clone(self),
            caller: request.extensions().get::<Caller>().copied(),
            token: request.metadata().get("authorization").cloned(),
        };
        grant.check(None)?;
        request.extensions_mut().insert(grant);
        Ok(request)
    }
}

/// Why not.
enum Denial {
    Unauthenticated(String),
    NotPermitted(String),
}

#[allow(clippy::result_large_err)] // the services' error
impl Grant {
    /// A request's.
    ///
    /// # Errors
    /// A request that has not come through [`Access::admit`].
    pub fn of<T>(request: &Request<T>) -> Result<Grant, Status> {
        let grant = request.extensions().get::<Grant>();
        grant
            .cloned()
            .ok_or_else(|| Status::internal("a request without a grant"))
    }

    /// Whether the request may do this to the volume, now.
    ///
    /// # Errors
    /// `unauthenticated` or `permission_denied`.
    pub fn may(&self, right: Right, volume: VolumeId) -> Result<(), Status> {
        self.check(Some((right, volume)))
    }

    /// Whether it is a node that speaks. What nodes tell each other is believed: a token does not suffice.
    ///
    /// # Errors
    /// `permission_denied`.
    pub fn is_peer(&self) -> Result<(), Status> {
        match self.peer() {
            Peer::Unknown | Peer::Node => Ok(()),
            Peer::Compute => Err(self.refuse(Denial::NotPermitted(
                "this is for storage nodes, the certificate is a compute's".to_owned(),
            ))),
        }
    }

    /// A connection that says nothing of who it is counts for least.
    fn peer(&self) -> Peer {
        self.caller.map_or(Peer::Compute, |caller| caller.peer)
    }

    fn check(&self, wanted: Option<(Right, VolumeId)>) -> Result<(), Status> {
        self.decide(wanted).map_err(|denial| self.refuse(denial))
    }

    #[expect(clippy::disallowed_methods, reason = "a token's end")]
    fn decide(&self, wanted: Option<(Right, VolumeId)>) -> Result<(), Denial> {
        let Some(keys) = &self.access.keys else {
            return Ok(());
        };
        if self.peer() == Peer::Node {
            return match wanted {
                Some((Right::Write, _)) => Err(Denial::NotPermitted(
                    "a storage node's certificate does not suffice to write".to_owned(),
                )),
                Some((Right::Read, _)) | None => Ok(()),
            };
        }
        let shown = self
            .token
            .as_ref()
            .and_then(|value| value.to_str().ok()?.strip_prefix(SCHEME));
        let shown =
            shown.ok_or_else(|| Denial::Unauthenticated("a token is wanted, none was shown".to_owned()))?;
        let claims = keys
            .verify(shown, OffsetDateTime::now_utc())
            .map_err(|error| Denial::Unauthenticated(error.to_string()))?;
        let bearer = &claims.bearer;
        match wanted {
            Some((_, volume)) if volume != claims.volume => Err(Denial::NotPermitted(format!(
                "the token of \"{bearer}\" is for volume {}, not for {volume}",
                claims.volume
            ))),
            Some((Right::Write, _)) if claims.role == Role::Reader => Err(Denial::NotPermitted(format!(
                "the token of \"{bearer}\" is a reader's"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn refuse(&self, denial: Denial) -> Status {
        let refusals = &self.access.refusals;
        let status = match denial {
            Denial::Unauthenticated(reason) => {
                refusals.count_unauthenticated();
                Status::unauthenticated(reason)
            }
            Denial::NotPermitted(reason) => {
                refusals.count_not_permitted();
                Status::permission_denied(reason)
            }
        };
        if let Some(untold) = refusals.tell_now() {
            let from = self.caller.and_then(|caller| caller.address);
            let from = from.map_or_else(|| "a client".to_owned(), |address| address.to_string());
            tracing::warn!(node = %self.access.node, untold, "a request of {from} was refused: {}", status.message());
        }
        status
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("caller", &self.caller).finish()
    }
}
