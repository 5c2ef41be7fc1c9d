//! Is the other owner alive? Its lease says so only by being renewed.

use std::time::{Duration, Instant};

use pg_quorum_types::{ComputeId, Owner};

/// How much later than expected a lease must end to count as renewed: more than what a late answer makes.
const SLACK: Duration = Duration::from_millis(300);
/// Renewals that are believed. One may be a last message that was still under way when its sender died.
const RENEWALS: u32 = 2;

/// Watches another owner's lease over several looks at it.
#[derive(Default, Debug)]
pub(super) struct LeaseWatch {
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    compute: ComputeId,
    ends_at: Instant,
    renewals: u32,
}

impl LeaseWatch {
    /// Whether the owner has shown, since it was first looked at, that it lives.
    pub fn is_renewed(&mut self, owner: &Owner, remaining: Duration, now: Instant) -> bool {
        let ends_at = now + remaining;
        match &mut self.seen {
            Some(seen) if seen.compute == owner.compute => {
                if ends_at > seen.ends_at + SLACK {
                    seen.renewals += 1;
                    seen.ends_at = ends_at;
                }
                seen.renewals >= RENEWALS
            }
            _ => {
                self.seen = Some(Seen {
                    compute: owner.compute,
                    ends_at,
                    renewals: 0,
                });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            compute: ComputeId(uuid::Uuid::from_u128(1)),
            description: "db1".into(),
        }
    }

    #[test]
    fn a_dead_owners_lease_runs_down() {
        let start = Instant::now();
        let mut watch = LeaseWatch::default();
        for step in 0..10u32 {
            let passed = Duration::from_millis(500) * step;
            let remaining = Duration::from_secs(5).saturating_sub(passed);
            assert!(!watch.is_renewed(&owner(), remaining, start + passed));
        }
    }

    #[test]
    fn an_owner_that_renews_its_lease_twice_is_alive() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let full = Duration::from_secs(5);
        let mut watch = LeaseWatch::default();
        assert!(!watch.is_renewed(&owner(), full, at(0)));
        assert!(!watch.is_renewed(&owner(), full, at(1000)));
        assert!(watch.is_renewed(&owner(), full, at(2000)));
    }
}
