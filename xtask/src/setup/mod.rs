//! Getting a machine ready: system packages, the build, the installed extension, the server's source package.

mod build;
mod extension;
mod packages;
mod postgres_source;

pub use build::{build, cargo};
pub use extension::install_extension;
pub use packages::install_packages;
pub use postgres_source::prepare_postgres_source;
