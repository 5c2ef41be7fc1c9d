//! A deployment for a person: six nodes and a server in one directory.

mod down;
mod record;
mod up;

pub use down::down;
pub use up::{UpOptions, default_directory, up};
