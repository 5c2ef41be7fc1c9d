//! storage-service
