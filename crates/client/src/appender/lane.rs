//! One segment's side of the appender: what it has, what is on its way, what comes next. No I/O, no clock.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pg_quorum_types::Lsn;

use super::AppendLimits;

/// A latency is kept in microseconds, up to a minute, with three digits.
const MAX_LATENCY_US: u64 = 60_000_000;

/// How a segment stands with the writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// No stream; being connected.
    Connecting,
    /// It is brought into the epoch (it was away when the epoch began).
    Joining,
    /// A stream is open and the segment takes what is sent.
    Streaming,
    /// A stream is open; what the segment lacks is not held here any more and comes from its peers.
    CatchingUp,
    /// It refuses for a reason that time alone does not cure.
    Refusing,
    /// It has promised a later epoch.
    Fenced,
}

impl std::fmt::Display for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LinkState::Connecting => "connecting",
            LinkState::Joining => "joining",
            LinkState::Streaming => "streaming",
            LinkState::CatchingUp => "catching up",
            LinkState::Refusing => "refusing",
            LinkState::Fenced => "fenced",
        })
    }
}

#[derive(Debug)]
struct Flight {
    end: Lsn,
    bytes: usize,
    sent_at: Instant,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub state: LinkState,
    /// Why, for a person.
    pub message: String,
    /// Which stream is the current one: an older one's feed ends when it sees another number.
    pub session: u64,
    /// The current stream has told its SCL: records may be sent.
    pub is_greeted: bool,
    /// End of what was sent on the current stream.
    pub sent: Lsn,
    pub scl: Lsn,
    /// Up to here the segment can serve pages; as it was told last.
    pub indexed: Lsn,
    pub told_vdl: Lsn,
    pub last_sent_at: Option<Instant>,
    pub last_heard_at: Option<Instant>,
    /// Set to have a message without records sent at once.
    pub is_heartbeat_due: bool,
    pub waker: Option<Waker>,
    in_flight: VecDeque<Flight>,
    in_flight_bytes: usize,
    pub latency_us: Histogram<u64>,
    pub messages: u64,
    pub bytes: u64,
    pub retransmitted_bytes: u64,
    /// Highest end that was ever sent, to tell retransmission from news.
    ever_sent: Lsn,
}

impl Lane {
    pub fn new() -> Lane {
        Lane {
            state: LinkState::Connecting,
            message: String::new(),
            session: 0,
            is_greeted: false,
            sent: Lsn::INVALID,
            scl: Lsn::INVALID,
            indexed: Lsn::INVALID,
            told_vdl: Lsn::INVALID,
            last_sent_at: None,
            last_heard_at: None,
            is_heartbeat_due: false,
            waker: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            latency_us: Histogram::new_with_max(MAX_LATENCY_US, 3).expect("constant bounds"),
            messages: 0,
            bytes: 0,
            retransmitted_bytes: 0,
            ever_sent: Lsn::INVALID,
        }
    }

    /// A new stream: what was on its way may be lost.
    pub fn open(&mut self) -> u64 {
        self.session += 1;
        self.is_greeted = false;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.wake();
        self.session
    }

    /// The stream has ended.
    pub fn close(&mut self, state: LinkState, message: String) {
        self.session += 1;
        self.is_greeted = false;
        self.state = state;
        self.message = message;
        self.wake();
    }

    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether another batch may be put on its way, with so many bytes of log waiting.
    pub fn may_send(&self, waiting_bytes: u64, limits: &AppendLimits) -> bool {
        let most = match waiting_bytes >= limits.pipelined_bytes as u64 {
            true => limits.messages_in_flight,
            false => 1,
        };
        self.is_greeted && self.in_flight.len() < most && self.in_flight_bytes < limits.bytes_in_flight
    }

    /// Bytes of messages that are not acknowledged.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    pub fn on_sent(&mut self, end: Lsn, bytes: usize, now: Instant) {
        self.in_flight.push_back(Flight {
            end,
            bytes,
            sent_at: now,
        });
        self.in_flight_bytes += bytes;
        self.messages += 1;
        self.bytes += bytes as u64;
        if end <= self.ever_sent {
            self.retransmitted_bytes += bytes as u64;
        }
        self.ever_sent = self.ever_sent.max(end);
        self.sent = end;
        self.last_sent_at = Some(now);
    }

    pub fn on_told(&mut self, vdl: Lsn, now: Instant) {
        self.told_vdl = vdl;
        self.last_sent_at = Some(now);
        self.is_heartbeat_due = false;
    }

    /// The segment's SCL under our epoch. The first one on a stream says from where to send.
    pub fn on_scl(&mut self, scl: Lsn, now: Instant) {
        self.last_heard_at = Some(now);
        self.scl = scl;
        if !self.is_greeted {
            self.is_greeted = true;
            self.sent = scl;
            self.state = LinkState::Streaming;
            self.message.clear();
        }
        // Peers may have brought it further than we have.
        self.sent = self.sent.max(scl);
        while let Some(flight) = self.in_flight.front()
            && flight.end <= scl
        {
            let latency = now.saturating_duration_since(flight.sent_at);
            self.latency_us.saturating_record(microseconds(latency));
            self.in_flight_bytes -= flight.bytes;
            self.in_flight.pop_front();
        }
        self.wake();
    }

    /// Whether the segment should hear from us although there are no records for it.
    pub fn wants_heartbeat(&self, vdl: Lsn, limits: &AppendLimits, now: Instant) -> bool {
        let silence = self
            .last_sent_at
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        self.is_heartbeat_due
            || silence >= limits.heartbeat
            || (silence >= limits.vdl_news && self.told_vdl < vdl)
            || (silence >= limits.vdl_news && self.state == LinkState::CatchingUp)
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUCH: u64 = AppendLimits::DEFAULT.pipelined_bytes as u64;
    const LIMITS: AppendLimits = AppendLimits {
        messages_in_flight: 2,
        ..AppendLimits::DEFAULT
    };

    #[test]
    fn nothing_is_sent_before_the_segment_says_where_it_stands() {
        let now = Instant::now();
        let mut lane = Lane::new();
        lane.open();
        assert!(!lane.may_send(1, &LIMITS));
        lane.on_scl(Lsn(100), now);
        assert!(lane.may_send(1, &LIMITS));
        assert_eq!(lane.sent, Lsn(100));
    }

    #[test]
    fn a_full_pipe_waits_for_an_acknowledgement() {
        let now = Instant::now();
        let mut lane = Lane::new();
        lane.open();
        lane.on_scl(Lsn(100), now);
        lane.on_sent(Lsn(200), 100, now);
        assert!(
            !lane.may_send(1, &LIMITS),
            "little to send waits and becomes more"
        );
        assert!(lane.may_send(MUCH, &LIMITS));
        lane.on_sent(Lsn(300), 100, now);
        assert!(!lane.may_send(MUCH, &LIMITS));
        lane.on_scl(Lsn(250), now + Duration::from_millis(2));
        assert!(lane.may_send(MUCH, &LIMITS));
        assert_eq!(lane.latency_us.len(), 1);
        assert!(lane.latency_us.max() >= 2000);
    }

    #[test]
    fn a_new_stream_starts_again_from_the_segments_scl() {
        let now = Instant::now();
        let mut lane = Lane::new();
        lane.open();
        lane.on_scl(Lsn(100), now);
        lane.on_sent(Lsn(200), 100, now);
        lane.on_sent(Lsn(300), 100, now);
        lane.close(LinkState::Connecting, "reset".into());
        lane.open();
        lane.on_scl(Lsn(200), now);
        assert_eq!(lane.sent, Lsn(200));
        lane.on_sent(Lsn(300), 100, now);
        assert_eq!(lane.retransmitted_bytes, 100);
    }

    #[test]
    fn what_the_peers_brought_is_not_sent_again() {
        let now = Instant::now();
        let mut lane = Lane::new();
        lane.open();
        lane.on_scl(Lsn(100), now);
        lane.on_scl(Lsn(900), now);
        assert_eq!(lane.sent, Lsn(900));
    }

    #[test]
    fn an_idle_segment_hears_of_the_lease_and_sooner_of_a_new_vdl() {
        let now = Instant::now();
        let mut lane = Lane::new();
        lane.open();
        lane.on_scl(Lsn(100), now);
        lane.on_sent(Lsn(200), 100, now);
        lane.on_told(Lsn(100), now);
        let later = now + LIMITS.vdl_news;
        assert!(!lane.wants_heartbeat(Lsn(100), &LIMITS, later));
        assert!(lane.wants_heartbeat(Lsn(200), &LIMITS, later));
        assert!(lane.wants_heartbeat(Lsn(100), &LIMITS, now + LIMITS.heartbeat));
    }
}
