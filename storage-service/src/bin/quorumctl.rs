//! The tool for people who run volumes and computes: see `quorumctl --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    storage_service::ctl::main()
}
