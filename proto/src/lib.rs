//! The storage service's wire protocol (`proto/*.proto`) and its conversions to domain types.
//!
//! Wire types stop here: everything behind this crate speaks the domain's types. Conversions from the wire
//! are strict, a missing message, a UUID of the wrong length or an unknown number is an error.

pub mod convert;

pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic)] // generated code
    tonic::include_proto!("pg_quorum.v1");
}

pub use convert::WireError;
