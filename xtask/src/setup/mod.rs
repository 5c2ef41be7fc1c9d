//! Getting a machine ready: system packages, the build, the installed extension.

mod build;
mod extension;
mod packages;

pub use build::{build, cargo};
pub use extension::install_extension;
pub use packages::install_packages;
