//! What a token says.

use std::fmt;

use pg_quorum_types::VolumeId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What the bearer may do to the volume.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything: make it, take it, write and read it.
    Compute,
    /// Read it, and see how it is.
    Reader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Compute => "compute",
            Role::Reader => "reader",
        })
    }
}

/// A token's content. The registered claims have PASETO's names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    pub volume: VolumeId,
    pub role: Role,
    /// Whom it was made for, for the logs.
    #[serde(rename = "sub")]
    pub bearer: String,
    /// The first moment at which it does not count any more.
    #[serde(rename = "exp", with = "time::serde::rfc3339")]
    pub expires: OffsetDateTime,
}

impl Claims {
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        now >= self.expires
    }
}
