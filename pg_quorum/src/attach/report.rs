//! What the attaching child tells the postmaster: one JSON object a line.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::Failure;

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// For the server's log.
    Log(String),
    /// The attach has failed.
    Failed(Failure),
}

/// The child's end of the pipe.
#[derive(Debug)]
pub struct Reporter {
    pipe: Mutex<File>,
}

impl Reporter {
    pub fn new(pipe: File) -> Reporter {
        Reporter {
            pipe: Mutex::new(pipe),
        }
    }

    pub fn log(&self, text: impl Into<String>) {
        self.send(&Report::Log(text.into()));
    }

    /// A pipe that nobody reads any more (the postmaster is gone) takes this process with it soon: no error.
    pub fn send(&self, report: &Report) {
        if let Ok(mut line) = serde_json::to_string(report)
            && let Ok(mut pipe) = self.pipe.lock()
        {
            line.push('\n');
            let _ = pipe.write_all(line.as_bytes());
        }
    }
}
