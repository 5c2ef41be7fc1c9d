//! What a person sees while it works: one line for each step, with the time it began at.

use std::sync::OnceLock;
use std::time::Instant;

static BEGIN: OnceLock<Instant> = OnceLock::new();

/// A step begins. Standard error, so that standard output keeps to the results.
pub fn step(what: &str) {
    let seconds = BEGIN.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("[{:2}:{:02}] {what}", seconds / 60, seconds % 60);
}

/// A line that belongs to the current step.
pub fn detail(what: &str) {
    eprintln!("        {what}");
}
