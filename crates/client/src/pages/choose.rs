//! Which segment to ask. No I/O, no clock.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pg_quorum_types::SegmentMember;

use super::ReadStats;
use super::latency::Latency;
use crate::LatencyStats;

/// Requests of up to this many blocks are compared with each other, larger ones among themselves.
const SMALL_BLOCKS: usize = 4;
/// One request in this many goes to a segment that is not the best.
const EXPLORE_ONE_IN: u32 = 50;
/// Requests under way that make a segment look twice as slow.
const BUSY: u32 = 4;
/// A second request is not sent sooner than this.
const HEDGE_AT_LEAST: Duration = Duration::from_millis(2);
/// When a second request is sent while the segment's percentile is not known.
const HEDGE_UNKNOWN: Duration = Duration::from_millis(30);
/// The first time that a segment is avoided after a failure; it doubles with each failure that follows.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);
const MAX_LATENCY_US: u64 = 60_000_000;

/// What the reader knows about one segment.
#[derive(Debug)]
pub(super) struct Standing {
    small: Latency,
    large: Latency,
    under_way: u32,
    rests_until: Option<Instant>,
    rest: Duration,
    histogram_us: Histogram<u64>,
    pages: u64,
    requests: u64,
    failures: u64,
    hedges: u64,
    message: String,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RequestEnd {
    /// With pages, or with a failure.
    Answered,
    /// Nobody waited for the answer any more.
    Dropped,
}

/// A segment's place in the order: those that rest last, then by expected latency.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    rests: bool,
    expected: Duration,
}

impl Standing {
    pub fn new() -> Standing {
        Standing {
            small: Latency::new(),
            large: Latency::new(),
            under_way: 0,
            rests_until: None,
            rest: FIRST_REST,
            histogram_us: Histogram::new_with_max(MAX_LATENCY_US, 2).expect("constant bounds"),
            pages: 0,
            requests: 0,
            failures: 0,
            hedges: 0,
            message: String::new(),
        }
    }

    fn latency(&mut self, blocks: usize) -> &mut Latency {
        if blocks <= SMALL_BLOCKS {
            &mut self.small
        } else {
            &mut self.large
        }
    }

    pub fn rank(&mut self, blocks: usize, now: Instant) -> Rank {
        let busy = self.under_way;
        Rank {
            rests: self.rests_until.is_some_and(|until| now < until),
            expected: self.latency(blocks).average() * (BUSY + busy) / BUSY,
        }
    }

    /// How long to wait before another segment is asked, too.
    pub fn hedge_after(&mut self, blocks: usize) -> Duration {
        self.latency(blocks)
            .p95()
            .unwrap_or(HEDGE_UNKNOWN)
            .max(HEDGE_AT_LEAST)
    }

    pub fn on_asked(&mut self, is_hedge: bool) {
        self.under_way += 1;
        self.requests += 1;
        self.hedges += u64::from(is_hedge);
    }

    /// Every request ends with this.
    pub fn on_done(&mut self, blocks: usize, took: Duration, end: RequestEnd) {
        self.under_way -= 1;
        let latency = self.latency(blocks);
        // A request that was dropped would have taken longer. That is news of one that had lasted long; one that was
        // sent just before the other's answer came says nothing.
        if end == RequestEnd::Answered || took > latency.average() {
            latency.record(took);
        }
    }

    pub fn on_answer(&mut self, pages: usize, took: Duration) {
        self.pages += pages as u64;
        self.rests_until = None;
        self.rest = FIRST_REST;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.histogram_us.saturating_record(micros);
    }

    pub fn on_failure(&mut self, message: String, now: Instant) {
        self.failures += 1;
        self.message = message;
        self.rests_until = Some(now + self.rest);
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }

    pub fn stats(&self, member: &SegmentMember) -> ReadStats {
        ReadStats {
            member: member.clone(),
            pages: self.pages,
            requests: self.requests,
            failures: self.failures,
            hedges: self.hedges,
            latency: LatencyStats::of(&self.histogram_us),
            message: self.message.clone(),
        }
    }
}

/// Indexes in the order of their ranks; for one `dice` in [`EXPLORE_ONE_IN`], with another of those that
/// do not rest in front.
pub(super) fn order(ranks: impl Iterator<Item = Rank>, dice: u32) -> Vec<usize> {
    let mut ranked: Vec<(Rank, usize)> = ranks.zip(0..).collect();
    ranked.sort_unstable();
    let awake = ranked.iter().filter(|(rank, _)| !rank.rests).count();
    if dice.is_multiple_of(EXPLORE_ONE_IN) && awake > 1 {
        let other = 1 + (dice / EXPLORE_ONE_IN) as usize % (awake - 1);
        ranked.swap(0, other);
    }
    ranked.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(latency: Duration) -> Standing {
        let mut standing = Standing::new();
        for _ in 0..20 {
            standing.on_asked(false);
            standing.on_done(1, latency, RequestEnd::Answered);
            standing.on_answer(1, latency);
        }
        standing
    }

    fn order_of(standings: &mut [Standing], dice: u32) -> Vec<usize> {
        let now = Instant::now();
        order(standings.iter_mut().map(|standing| standing.rank(1, now)), dice)
    }

    #[test]
    fn the_fastest_is_asked_first_and_now_and_then_another() {
        let ms = Duration::from_millis;
        let mut standings = [standing(ms(3)), standing(ms(1)), standing(ms(2))];
        assert_eq!(order_of(&mut standings, 1), [1, 2, 0]);
        assert_eq!(order_of(&mut standings, 0), [2, 1, 0]);
        assert_eq!(order_of(&mut standings, EXPLORE_ONE_IN), [0, 2, 1]);
    }

    #[test]
    fn one_that_failed_rests_behind_the_slow_ones() {
        let ms = Duration::from_millis;
        let mut standings = [standing(ms(1)), standing(ms(2)), standing(ms(90))];
        standings[0].on_failure("no route".into(), Instant::now());
        assert_eq!(order_of(&mut standings, 1), [1, 2, 0]);
        standings[0].on_answer(1, ms(1));
        assert_eq!(order_of(&mut standings, 1), [0, 1, 2]);
    }

    /// A slow segment was asked as well, a moment before the other one answered: it must not look fast for that.
    #[test]
    fn a_second_request_that_lost_at_once_says_nothing_about_its_segment() {
        let ms = Duration::from_millis;
        let mut standings = [standing(ms(3)), standing(ms(9))];
        for _ in 0..30 {
            standings[1].on_asked(true);
            standings[1].on_done(1, Duration::from_micros(10), RequestEnd::Dropped);
        }
        assert_eq!(order_of(&mut standings, 1), [0, 1]);
        assert_eq!(standings[1].hedge_after(1), ms(9));
        assert_eq!(standings[1].under_way, 0);
        for _ in 0..30 {
            standings[0].on_asked(false);
            standings[0].on_done(1, ms(40), RequestEnd::Dropped);
        }
        assert_eq!(
            order_of(&mut standings, 1),
            [1, 0],
            "it would have taken even longer"
        );
    }

    #[test]
    fn a_busy_segment_yields_to_one_that_is_a_little_slower() {
        let mut standings = [
            standing(Duration::from_millis(10)),
            standing(Duration::from_millis(12)),
        ];
        standings[0].on_asked(false);
        assert_eq!(order_of(&mut standings, 1), [1, 0]);
    }
}
