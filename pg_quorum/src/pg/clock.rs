//! A clock that every process of the server reads alike.

use crate::cache::Tick;

/// Now, by the machine's coarse monotonic clock (a few milliseconds), which costs no system call.
pub fn tick() -> Tick {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the result; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    let per_second = i64::from(Tick::PER_SECOND);
    let ticks = now.tv_sec * per_second + now.tv_nsec / (1_000_000_000 / per_second);
    Tick(ticks as u32) // wraps, as a Tick may
}
