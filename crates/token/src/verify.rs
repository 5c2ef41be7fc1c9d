//! The node's side: is a token signed by one of ours, and does it still count?

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use pasetors::Public;
use pasetors::keys::AsymmetricPublicKey;
use pasetors::token::UntrustedToken;
use pasetors::version4::{PublicToken, V4};
use time::OffsetDateTime;

use crate::watched::Watched;
use crate::{Claims, FileError};

/// Tokens that are known to be signed; more of them begin anew.
const MAX_VERIFIED: usize = 1024;
/// No token of ours comes near it.
const MAX_TOKEN_BYTES: usize = 4096;

/// A token that does not count.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("it is no token of this kind")]
    Malformed,
    #[error("the token is not signed with a key that this node knows")]
    NotSigned,
    #[error("the token of \"{bearer}\" has expired at {expires}")]
    Expired { bearer: String, expires: OffsetDateTime },
    #[error("the token says nothing that is understood: {0}")]
    Claims(String),
}

/// Public keys in a file, one a line (`k4.public.…`; lines that begin with `#` are remarks). A token of any of them
/// counts, so that keys can be changed one after the other. Clones share what is known.
#[derive(Clone)]
pub struct TokenKeys(Arc<Watched<Keys>>);

struct Keys {
    keys: Vec<AsymmetricPublicKey<V4>>,
    /// A signature costs about a hundred microseconds: it is verified once. Goes with the keys.
    verified: Mutex<HashMap<Box<str>, Arc<Claims>>>,
}

impl TokenKeys {
    /// # Errors
    /// The file cannot be read, or holds anything but keys.
    pub fn load(path: PathBuf) -> Result<TokenKeys, FileError> {
        let keys = Watched::new(path, parse);
        keys.get()?;
        Ok(TokenKeys(Arc::new(keys)))
    }

    /// What the token says, if it is signed and counts at `now`.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Arc<Claims>, TokenError> {
        // It was read once: what it held stays.
        let keys = self.0.get().map_err(|_| TokenError::NotSigned)?;
        let claims = keys.claims(token)?;
        if claims.has_expired(now) {
            return Err(TokenError::Expired {
                bearer: claims.bearer.clone(),
                expires: claims.expires,
            });
        }
        Ok(claims)
    }
}

impl Keys {
    fn claims(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        if let Some(claims) = self.verified.lock().get(token) {
            return Ok(claims.clone());
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let untrusted = UntrustedToken::<Public, V4>::try_from(token).map_err(|_| TokenError::Malformed)?;
        let signed = self
            .keys
            .iter()
            .find_map(|key| PublicToken::verify(key, &untrusted, None, None).ok())
            .ok_or(TokenError::NotSigned)?;
        let claims = serde_json::from_str(signed.payload());
        let claims = Arc::new(claims.map_err(|error| TokenError::Claims(error.to_string()))?);
        let mut verified = self.verified.lock();
        if verified.len() >= MAX_VERIFIED {
            verified.clear();
        }
        verified.insert(token.into(), Arc::clone(&claims));
        Ok(claims)
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenKeys").field(&self.0.path()).finish()
    }
}

fn parse(text: &str) -> Result<Keys, String> {
    let lines = text.lines().map(str::trim);
    let keys: Result<Vec<_>, String> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            AsymmetricPublicKey::try_from(line).map_err(|error| format!("no key k4.public.…: {error:?}"))
        })
        .collect();
    let keys = keys?;
    if keys.is_empty() {
        return Err("it holds no key k4.public.…".to_owned());
    }
    Ok(Keys {
        keys,
        verified: Mutex::default(),
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tokens end by it")]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use pg_quorum_types::VolumeId;

    use super::*;
    use crate::{KeyPair, Role, SigningKey, TokenFile};

    fn sign(pair: &KeyPair, expires: OffsetDateTime) -> String {
        let claims = Claims {
            volume: VolumeId::random(),
            role: Role::Reader,
            bearer: "me".to_owned(),
            expires,
        };
        SigningKey::parse(&pair.secret).unwrap().sign(&claims).unwrap()
    }

    fn write(path: &Path, text: &str) {
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    fn wait_for(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_token_counts_until_it_expires_if_it_is_signed_with_a_key_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.pub");
        let (ours, next, theirs) = (pair(), pair(), pair());
        write(&path, &format!("# now\n{}\n{}\n", ours.public, next.public));
        let keys = TokenKeys::load(path).unwrap();
        let now = OffsetDateTime::now_utc();
        let expires = now + Duration::from_secs(60);
        for pair in [&ours, &next] {
            let token = sign(pair, expires);
            for _ in 0..2 {
                assert_eq!(keys.verify(&token, now).unwrap().role, Role::Reader);
            }
            let later = now + Duration::from_secs(61);
            assert!(matches!(
                keys.verify(&token, later),
                Err(TokenError::Expired { .. })
            ));
        }
        assert_eq!(
            keys.verify(&sign(&theirs, expires), now),
            Err(TokenError::NotSigned)
        );
        assert_eq!(keys.verify("", now), Err(TokenError::Malformed));
        assert_eq!(keys.verify("v4.public.AAAA", now), Err(TokenError::Malformed));
    }

    #[test]
    fn every_changed_byte_of_a_token_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.pub");
        let pair = pair();
        write(&path, &pair.public);
        let keys = TokenKeys::load(path).unwrap();
        let now = OffsetDateTime::now_utc();
        let token = sign(&pair, now + Duration::from_secs(60));
        for at in "v4.public.".len()..token.len() {
            let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            assert!(keys.verify(&changed, now).is_err(), "byte {at}");
        }
        keys.verify(&token, now).unwrap();
    }

    #[test]
    fn replaced_files_count_and_unusable_ones_leave_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let (public, token) = (
            directory.path().join("token.pub"),
            directory.path().join("t.token"),
        );
        let (old, new) = (pair(), pair());
        write(&public, &old.public);
        let keys = TokenKeys::load(public.clone()).unwrap();
        let bearer = TokenFile::new(token.clone());
        assert!(bearer.token().is_err());
        let now = OffsetDateTime::now_utc();
        let expires = now + Duration::from_secs(600);
        write(&token, &sign(&old, expires));
        wait_for(|| bearer.token().is_ok());
        keys.verify(&bearer.token().unwrap(), now).unwrap();

        write(&public, "half a k");
        write(&token, "v4.pu");
        std::thread::sleep(Duration::from_millis(1200));
        keys.verify(&bearer.token().unwrap(), now).unwrap();

        // Also what was verified before does not count without its key.
        write(&public, &new.public);
        let shown = bearer.token().unwrap();
        wait_for(|| keys.verify(&shown, now) == Err(TokenError::NotSigned));
        write(&token, &sign(&new, expires));
        wait_for(|| keys.verify(&bearer.token().unwrap(), now).is_ok());
    }

    fn pair() -> KeyPair {
        SigningKey::generate().unwrap()
    }
}
