//! The lines that a deployment adds to `postgresql.conf`.

use std::fmt::Write as _;
use std::path::Path;

/// Settings in the order in which they were added; a later one of the same name wins, as in PostgreSQL.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    lines: Vec<(String, String)>,
}

impl Settings {
    /// A development server on the loopback address: everybody on this machine may connect without a password.
    pub fn local(port: u16, sockets: &Path) -> Settings {
        // A Unix socket's path has at most 107 bytes.
        let fits = sockets.as_os_str().len() < 80;
        let directories = if fits {
            sockets.display().to_string()
        } else {
            String::new()
        };
        Settings::default()
            .with("listen_addresses", "127.0.0.1")
            .with("port", port)
            .with("unix_socket_directories", directories)
            .with("log_line_prefix", "%m [%p] %q%u@%d ")
    }

    /// The two settings that make a server a compute node of the volume at these nodes.
    #[must_use]
    pub fn with_quorum(self, nodes: &[String]) -> Settings {
        self.with("shared_preload_libraries", "pg_quorum")
            .with("pg_quorum.nodes", nodes.join(","))
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Settings {
        self.lines.push((name.to_owned(), value.to_string()));
        self
    }

    /// These settings, then the others.
    #[must_use]
    pub fn and(mut self, others: &Settings) -> Settings {
        self.lines.extend(others.lines.iter().cloned());
        self
    }

    /// As the text of a configuration file.
    pub fn to_conf(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.lines {
            let value = value.replace('\'', "''");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} = '{value}'");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_values_are_doubled() {
        assert_eq!(Settings::default().with("a", "it's").to_conf(), "a = 'it''s'\n");
    }
}
