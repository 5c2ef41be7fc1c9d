//! Processes by number: whether they live, what they started, how they end.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Name and state letter of a process, from `/proc/PID/stat`; `None` if there is none.
fn name_and_state(pid: u32) -> Option<(String, char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let open = stat.find('(')?;
    let close = stat.rfind(')')?;
    let mut fields = stat[close + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some((stat[open + 1..close].to_owned(), state, parent))
}

/// Whether the process exists and has not ended (a zombie has).
pub fn is_alive(pid: u32) -> bool {
    name_and_state(pid).is_some_and(|(_, state, _)| state != 'Z' && state != 'X')
}

/// Whether the process lives and its program has this name: a pid file may be older than the last reboot.
pub fn is_alive_as(pid: u32, name: &str) -> bool {
    name_and_state(pid).is_some_and(|(found, state, _)| found == name && state != 'Z' && state != 'X')
}

/// Everything that the process started, and what those started, without the process itself.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(found) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if let Some((_, _, parent)) = name_and_state(found) {
            parents.push((found, parent));
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(found, _)| *found),
        );
        next += 1;
    }
    family.split_off(1)
}

/// Sends a signal; a process that is gone already is no error.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The only other errors are a wrong signal, which the type excludes, and somebody else's process,
        // which the wait that follows notices.
        let _ = kill_process(pid, signal);
    }
}

/// Waits until the process has ended. Returns whether it did within the time.
pub fn wait_until_gone(pid: u32, within: Duration) -> bool {
    wait_while(within, || is_alive(pid))
}

/// Waits until the process has ended and its parent has taken note. Until then its number is in use, and
/// PostgreSQL takes a number that is in use for a living postmaster.
pub fn wait_until_reaped(pid: u32, within: Duration) -> bool {
    wait_while(within, || name_and_state(pid).is_some())
}

fn wait_while(within: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + within;
    while condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
