//! The account that servers run as.
//!
//! PostgreSQL refuses to run as root, so root starts everything as the `postgres` user that Debian's package
//! creates; anybody else runs servers as themselves.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Who servers run as, and how a command becomes theirs.
#[derive(Clone, Debug)]
pub struct Account {
    pub name: String,
    /// User and group to change to; `None` if the caller is that user already.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// `postgres` for root, the caller for anybody else.
    ///
    /// # Errors
    /// Root on a machine without a `postgres` user.
    pub fn for_servers() -> Result<Account> {
        let uid = rustix::process::getuid().as_raw();
        if uid != 0 {
            let name = std::env::var("USER").unwrap_or_else(|_| uid.to_string());
            return Ok(Account { name, ids: None });
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let Some(ids) = find_ids(&passwd, "postgres") else {
            bail!("there is no user postgres: install the package postgresql-15 first");
        };
        Ok(Account {
            name: "postgres".to_owned(),
            ids: Some(ids),
        })
    }

    /// A command that runs under this account, in `/` (a directory that everybody may enter), without input.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.ids {
            command
                .uid(uid)
                .gid(gid)
                .env("HOME", "/var/lib/postgresql")
                .env("USER", &self.name);
        }
        command
    }

    /// Makes the account the owner of a file or directory.
    ///
    /// # Errors
    /// The operating system's.
    pub fn own(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.ids {
            chown(path, Some(uid), Some(gid)).with_context(|| format!("chown {}", path.display()))?;
        }
        Ok(())
    }

    /// Creates a directory, with its parents, and makes the account its owner.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create_dir(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        self.own(path)
    }

    /// Whether the account can enter the directory (a home directory of root's usually cannot be entered).
    pub fn can_enter(&self, path: &Path) -> bool {
        self.command("test")
            .arg("-x")
            .arg(path)
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// User and group id from the text of `/etc/passwd`.
fn find_ids(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let fields: Vec<&str> = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_named_user() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\npostgres:x:105:111:PostgreSQL:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(find_ids(passwd, "postgres"), Some((105, 111)));
        assert_eq!(find_ids(passwd, "post"), None);
    }
}
