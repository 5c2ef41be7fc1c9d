//! The storage service's wire protocol (`proto/*.proto`) and its conversions to domain types.

pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic)] // generated code
    tonic::include_proto!("pg_quorum.v1");
}
