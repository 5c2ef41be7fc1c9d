//! Tokens that say what their bearer may do to which volume, until when: PASETO `v4.public`, signed with Ed25519.
//!
//! ```text
//!   token.key ──► SigningKey ──► compute.token ──► TokenFile ══ authorization: Bearer ══► TokenKeys ◄── token.pub
//!                 (whoever issues)                 (compute, tool)                        (node)
//! ```
//! * [`Claims`], [`Role`]: what a token says
//! * [`SigningKey`]: makes keys and tokens
//! * [`TokenFile`]: the bearer's side, a file that is read again when it was replaced
//! * [`TokenKeys`]: the node's side, public keys in a file that is read again when it was replaced
//!
//! A token is as good as a password: it is sent over TLS only. This crate knows nothing of connections, nor what a
//! request needs; a node decides that.

mod bearer;
mod claims;
mod sign;
mod verify;
mod watched;

pub use bearer::{TokenFile, TokenFileError};
pub use claims::{Claims, Role};
pub use sign::{KeyPair, SigningKey};
pub use verify::{TokenError, TokenKeys};
pub use watched::FileError;
