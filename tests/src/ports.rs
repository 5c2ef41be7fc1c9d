//! Free ports for nodes and servers.

use std::net::TcpListener;
use std::sync::Mutex;

const DEFAULT_BASE: u16 = 17600;
const RANGE: u16 = 380;

static NEXT: Mutex<u16> = Mutex::new(0);

/// The first of `count` adjacent free ports.
///
/// # Panics
/// The range has no such ports.
pub fn free_ports(count: u16) -> u16 {
    let base = std::env::var("PG_QUORUM_TEST_PORT_BASE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(DEFAULT_BASE);
    let mut next = NEXT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut candidate = base + *next;
    loop {
        assert!(
            candidate + count <= base + RANGE,
            "no {count} free ports from {base} on"
        );
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if let Some(taken) = (candidate..candidate + count).rev().find(|port| !is_free(*port)) {
            candidate = taken + 1;
        } else {
            *next = candidate + count - base;
            return candidate;
        }
    }
}
