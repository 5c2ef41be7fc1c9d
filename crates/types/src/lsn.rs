//! Positions in the WAL byte stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A byte position in a cluster's WAL, page headers counted (PostgreSQL's `XLogRecPtr`).
///
/// A *record LSN* is the first byte of a record; an *end LSN* is exclusive, a multiple of eight, and
/// never steps over the page header that may follow. `Lsn::INVALID` (zero) is no position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// PostgreSQL's `InvalidXLogRecPtr`.
    pub const INVALID: Lsn = Lsn(0);
    /// Larger than every real position.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// Whether this is a position at all.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Bytes from `earlier` to `self`, zero if `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The next multiple of eight at or above this position (PostgreSQL's `MAXALIGN`).
    #[must_use]
    pub const fn max_aligned(self) -> Lsn {
        Lsn((self.0 + 7) & !7)
    }
}

impl std::ops::Add<u64> for Lsn {
    type Output = Lsn;
    fn add(self, bytes: u64) -> Lsn {
        Lsn(self.0 + bytes)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not two hexadecimal numbers with a slash between them.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not an LSN: two hexadecimal numbers with a slash between them, such as 16/B374D848")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;
    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Lsn(u64::from(high) << 32 | u64::from(low)))
        };
        parse().ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for raw in [0, 1, 0x16_B374_D848, u64::MAX] {
            assert_eq!(Lsn(raw).to_string().parse::<Lsn>().unwrap(), Lsn(raw));
        }
        assert!("16B374D848".parse::<Lsn>().is_err());
        assert!("1/1FFFFFFFF".parse::<Lsn>().is_err());
    }
}
