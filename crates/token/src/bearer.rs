//! The bearer's side: a token in a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pasetors::Public;
use pasetors::token::UntrustedToken;
use pasetors::version4::V4;
use pg_quorum_types::VolumeId;

use crate::watched::Watched;
use crate::{Claims, FileError};

/// A file with a token, read again when it was replaced. Clones share it.
///
/// A file that is not there (yet) is no error before the token is needed: whoever needs it tries again.
#[derive(Clone)]
pub struct TokenFile(Arc<Watched<Token>>);

struct Token {
    text: Arc<str>,
    claims: Claims,
}

/// There is no token to show.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("the token cannot be used: {0}")]
pub struct TokenFileError(#[from] FileError);

impl TokenFile {
    pub fn new(path: PathBuf) -> TokenFile {
        TokenFile(Arc::new(Watched::new(path, parse)))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The token, to be shown to a node.
    ///
    /// # Errors
    /// The file has never held one.
    pub fn token(&self) -> Result<Arc<str>, TokenFileError> {
        Ok(self.0.get()?.text.clone())
    }

    /// The volume that it says it is for. Nothing is verified here: that is the nodes' part.
    ///
    /// # Errors
    /// The file has never held a token.
    pub fn volume(&self) -> Result<VolumeId, TokenFileError> {
        Ok(self.0.get()?.claims.volume)
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenFile").field(&self.path()).finish()
    }
}

fn parse(text: &str) -> Result<Token, String> {
    let text = text.trim();
    let untrusted = UntrustedToken::<Public, V4>::try_from(text)
        .map_err(|error| format!("no token v4.public.…: {error:?}"))?;
    let claims = serde_json::from_slice(untrusted.untrusted_payload())
        .map_err(|error| format!("a token of something else: {error}"))?;
    Ok(Token {
        text: text.into(),
        claims,
    })
}
