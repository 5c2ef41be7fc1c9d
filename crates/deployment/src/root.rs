//! Commands that need root's rights.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// The command as it is for root, with `sudo` for anybody else.
///
/// # Errors
/// Neither root nor able to use `sudo` without a password.
pub fn as_root(program: &str) -> Result<Command> {
    if rustix::process::getuid().is_root() {
        return Ok(Command::new(program));
    }
    let asks_nothing = Path::new("/usr/bin/sudo").exists()
        && Command::new("sudo")
            .args(["-n", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if !asks_nothing {
        bail!("{program} needs root's rights: run as root, or with sudo that asks for no password");
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    Ok(command)
}
