//! How many segments make a quorum.
//!
//! | members | write | read |
//! | ---: | ---: | ---: |
//! | 3 | 2 | 2 |
//! | 4 | 3 | 2 |
//! | 6 | 4 | 3 |
//!
//! Invariant: two write quorums have a member in common (no two writers can both have one), and so have a
//! write and a read quorum. While a membership changes there are two sets; then a quorum is one in each.

use pg_quorum_types::{Lsn, Membership, SegmentId};

/// Members that must answer for a write quorum of `members`: more than half.
pub const fn write_quorum(members: usize) -> usize {
    members / 2 + 1
}

/// Members that must answer for a read quorum of `members`: every write quorum meets it.
pub const fn read_quorum(members: usize) -> usize {
    members + 1 - write_quorum(members)
}

const _: () = assert!(write_quorum(6) == 4 && read_quorum(6) == 3);

/// One set of members, or the two sets of a membership that changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumSet {
    sets: Vec<Vec<SegmentId>>,
}

impl QuorumSet {
    /// The quorums of one set of members.
    ///
    /// # Panics
    /// If there are no members: nothing would be everything.
    pub fn new(members: impl IntoIterator<Item = SegmentId>) -> QuorumSet {
        QuorumSet::joint([members.into_iter().collect()])
    }

    /// The quorums of a membership.
    pub fn of(membership: &Membership) -> QuorumSet {
        QuorumSet::new(membership.members.iter().map(|member| member.segment))
    }

    /// Quorums that are one in each of several sets.
    ///
    /// # Panics
    /// If there is no set, or an empty one.
    pub fn joint(sets: impl IntoIterator<Item = Vec<SegmentId>>) -> QuorumSet {
        let mut sets: Vec<Vec<SegmentId>> = sets.into_iter().collect();
        for set in &mut sets {
            set.sort_unstable();
            set.dedup();
        }
        assert!(
            !sets.is_empty() && sets.iter().all(|set| !set.is_empty()),
            "a quorum of no members"
        );
        QuorumSet { sets }
    }

    /// Every member of every set, once.
    pub fn members(&self) -> Vec<SegmentId> {
        let mut members: Vec<SegmentId> = self.sets.concat();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Whether `segment` is a member of one of the sets.
    pub fn contains(&self, segment: SegmentId) -> bool {
        self.sets.iter().any(|set| set.contains(&segment))
    }

    /// Whether the members that `has` a property make a write quorum.
    pub fn is_write_quorum(&self, has: impl Fn(SegmentId) -> bool) -> bool {
        self.every_set(write_quorum, has)
    }

    /// Whether the members that `has` a property make a read quorum.
    pub fn is_read_quorum(&self, has: impl Fn(SegmentId) -> bool) -> bool {
        self.every_set(read_quorum, has)
    }

    /// The highest LSN that a write quorum has reached: of six, the fourth highest.
    pub fn write_complete(&self, reached: impl Fn(SegmentId) -> Lsn) -> Lsn {
        let complete = |set: &Vec<SegmentId>| {
            let mut lsns: Vec<Lsn> = set.iter().map(|&member| reached(member)).collect();
            lsns.sort_unstable_by(|a, b| b.cmp(a));
            lsns[write_quorum(set.len()) - 1]
        };
        self.sets.iter().map(complete).min().unwrap_or(Lsn::INVALID)
    }

    fn every_set(&self, quorum: fn(usize) -> usize, has: impl Fn(SegmentId) -> bool) -> bool {
        self.sets
            .iter()
            .all(|set| set.iter().filter(|&&member| has(member)).count() >= quorum(set.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn segment(name: char) -> SegmentId {
        SegmentId(Uuid::from_u128(name as u128))
    }

    fn set(names: &str) -> Vec<SegmentId> {
        names.chars().map(segment).collect()
    }

    fn has(names: &'static str) -> impl Fn(SegmentId) -> bool {
        move |member| names.chars().any(|name| segment(name) == member)
    }

    #[test]
    fn sizes_of_quorums() {
        let table: String = (1..=7)
            .map(|n| format!("{n}: write {}, read {}\n", write_quorum(n), read_quorum(n)))
            .collect();
        assert_eq!(
            table,
            "1: write 1, read 1\n\
             2: write 2, read 1\n\
             3: write 2, read 2\n\
             4: write 3, read 2\n\
             5: write 3, read 3\n\
             6: write 4, read 3\n\
             7: write 4, read 4\n"
        );
    }

    #[test]
    fn quorums_of_any_size_meet() {
        for members in 1..=20 {
            assert!(2 * write_quorum(members) > members);
            assert!(write_quorum(members) + read_quorum(members) > members);
        }
    }

    #[test]
    fn golden_table_of_reached_lsns() {
        let six = QuorumSet::new(set("ABCDEF"));
        let complete = |lsns: [u64; 6]| {
            let reached = |member: SegmentId| {
                let index = "ABCDEF".chars().position(|name| segment(name) == member);
                Lsn(lsns[index.unwrap()])
            };
            six.write_complete(reached).0
        };
        assert_eq!(complete([0, 0, 0, 0, 0, 0]), 0);
        assert_eq!(complete([9, 9, 9, 0, 0, 0]), 0);
        assert_eq!(complete([9, 9, 9, 5, 0, 0]), 5);
        assert_eq!(complete([1, 2, 3, 4, 5, 6]), 3);
        assert_eq!(complete([6, 5, 4, 3, 2, 1]), 3);
        assert_eq!(complete([7, 7, 7, 7, 8, 8]), 7);
    }

    #[test]
    fn a_joint_quorum_is_one_in_each_set() {
        let joint = QuorumSet::joint([set("ABCDEF"), set("ABCDEG")]);
        assert!(joint.is_write_quorum(has("ABCD")));
        assert!(!joint.is_write_quorum(has("ABCF")));
        assert!(!joint.is_write_quorum(has("ABCG")));
        assert!(joint.is_write_quorum(has("ABCFG")));
        assert!(joint.is_read_quorum(has("ABFG")));
        assert!(!joint.is_read_quorum(has("ABF")));
        assert_eq!(joint.members(), set("ABCDEFG"));
    }

    #[test]
    fn a_member_named_twice_counts_once() {
        let set = QuorumSet::new(set("AABBCC"));
        assert!(set.is_write_quorum(has("AB")));
        assert!(!set.is_write_quorum(has("A")));
    }
}
