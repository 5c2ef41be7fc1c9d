//! The issuer's side: keys and tokens.

use std::fmt;

use pasetors::keys::{AsymmetricKeyPair, AsymmetricSecretKey, Generate};
use pasetors::paserk::FormatAsPaserk;
use pasetors::version4::{PublicToken, V4};
use time::OffsetDateTime;

use crate::Claims;

/// Signs tokens.
pub struct SigningKey(AsymmetricSecretKey<V4>);

/// A new key, as its two files hold it.
pub struct KeyPair {
    /// `k4.secret.…`, for whoever issues tokens.
    pub secret: String,
    /// `k4.public.…`, for the nodes.
    pub public: String,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<KeyPair, String> {
        let pair =
            AsymmetricKeyPair::<V4>::generate().map_err(|error| format!("cannot make a key: {error:?}"))?;
        let text = |key: &dyn FormatAsPaserk| {
            let mut text = String::new();
            // Writing to a string does not fail.
            let _ = key.fmt(&mut text);
            text
        };
        Ok(KeyPair {
            secret: text(&pair.secret),
            public: text(&pair.public),
        })
    }

    /// From [`KeyPair::secret`].
    ///
    /// # Errors
    /// It is no such text.
    pub fn parse(text: &str) -> Result<SigningKey, String> {
        AsymmetricSecretKey::try_from(text.trim())
            .map(SigningKey)
            .map_err(|error| format!("no key k4.secret.…: {error:?}"))
    }

    /// A token with these claims; whole seconds of the expiry count.
    ///
    /// # Errors
    /// A date that has no RFC 3339 form.
    pub fn sign(&self, claims: &Claims) -> Result<String, String> {
        let whole = OffsetDateTime::from_unix_timestamp(claims.expires.unix_timestamp());
        let claims = Claims {
            expires: whole.map_err(|error| error.to_string())?,
            ..claims.clone()
        };
        let payload = serde_json::to_vec(&claims).map_err(|error| error.to_string())?;
        PublicToken::sign(&self.0, &payload, None, None).map_err(|error| format!("cannot sign: {error:?}"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish()
    }
}
