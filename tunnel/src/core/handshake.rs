//! When to begin a handshake. Pure: `now` and randomness are arguments.

use std::time::{Duration, Instant};

/// First pause after an initiation (REKEY_TIMEOUT); each further one is half as long again.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause, with its jitter: a hub that comes back is found within this.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Keeps a fleet apart that lost its hub in the same moment.
const MAX_JITTER: Duration = Duration::from_millis(333);
/// Age of a session at which the next one is made (REKEY_AFTER_TIME).
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// How much longer to wait when the other end began the session: its turn comes first.
const PEER_REKEY_GRACE: Duration = Duration::from_secs(15);
/// The least time between two initiations, whatever happens.
const MIN_RETRY: Duration = Duration::from_secs(1);
/// An answer to data is due after this: the other end sends a keepalive after 10 s, and the way
/// takes its time.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// Nothing came at all for this long, although nothing was asked for. A hub answers no keepalive, so
/// then only a handshake shows that it is there.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);
/// The same beyond the time between two keepalives: whoever wants to send seldom is not to ask often.
const KEEPALIVE_GRACE: Duration = Duration::from_secs(20);
/// Whoever was heard this recently can be reached, whatever becomes of a handshake.
const REACHABLE_WITHIN: Duration = Duration::from_secs(10);

/// The initiations of one peer: at once, again and again with growing pauses, for ever, until there
/// is a session, and then before it gets too old.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandshakeTimer {
    next_initiation_at: Option<Instant>,
    last_initiation: Option<Instant>,
    pause: Duration,
    failed_attempts: u32,
    is_outstanding: bool,
}

impl HandshakeTimer {
    /// Makes the first initiation due now.
    pub(super) const fn new(now: Instant) -> Self {
        let due = Some(now);
        Self {
            next_initiation_at: due,
            last_initiation: None,
            pause: FIRST_PAUSE,
            failed_attempts: 0,
            is_outstanding: false,
        }
    }

    /// Goes on with the pauses of another that had no success.
    pub(super) const fn with_pause_of(now: Instant, other: &Self) -> Self {
        Self { pause: other.pause, ..Self::new(now) }
    }

    pub(super) const fn next_initiation_at(&self) -> Option<Instant> {
        self.next_initiation_at
    }

    /// No initiation goes out before this.
    pub(super) fn earliest_retry_at(&self) -> Option<Instant> {
        self.last_initiation.map(|last| last + MIN_RETRY)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_initiation_at.is_some_and(|due| now >= due)
    }

    /// Whether an initiation waits for its answer.
    pub(super) const fn is_outstanding(&self) -> bool {
        self.is_outstanding
    }

    /// Initiations without an answer since the last session.
    pub(super) const fn failed_attempts(&self) -> u32 {
        self.failed_attempts
    }

    /// The outstanding initiation will not be answered any more.
    pub(super) const fn on_unanswered(&mut self) {
        if self.is_outstanding {
            self.is_outstanding = false;
            self.failed_attempts = self.failed_attempts.saturating_add(1);
        }
    }

    /// The same when the hub was heard meanwhile: an accident, which says nothing about the way. The
    /// next one goes out after the first pause.
    pub(super) const fn ignore_unanswered(&mut self) {
        (self.is_outstanding, self.pause) = (false, FIRST_PAUSE);
    }

    /// An initiation goes out now to one of so many addresses, which take turns: all of them are tried
    /// in the time of one pause. `random` is in `[0, 1)`.
    pub(super) fn on_initiation_sent(&mut self, now: Instant, addresses: u32, random: f64) {
        let is_last = (self.failed_attempts + 1).is_multiple_of(addresses.max(1));
        let pause = if is_last {
            let others = FIRST_PAUSE * addresses.saturating_sub(1);
            let rest = self.pause.saturating_sub(others).max(FIRST_PAUSE);
            self.pause = self.pause.mul_f64(1.5).min(MAX_PAUSE - MAX_JITTER);
            rest
        } else {
            FIRST_PAUSE
        };
        let pause = (pause + MAX_JITTER.mul_f64(random)).min(MAX_PAUSE);
        self.next_initiation_at = Some(now + pause);
        self.last_initiation = Some(now);
        self.is_outstanding = true;
    }

    /// An initiation is due, and nobody knows where to send it to: counts like one that is not
    /// answered.
    pub(super) fn on_no_address(&mut self, now: Instant, random: f64) {
        let last = self.last_initiation;
        self.on_initiation_sent(now, 1, random);
        self.last_initiation = last;
    }

    /// Nothing can go out now; the same again soon.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.next_initiation_at = Some(now + FIRST_PAUSE);
    }

    /// Nobody needs a session now.
    pub(super) const fn set_idle(&mut self) {
        self.next_initiation_at = None;
    }

    /// A session would be good to have; does nothing while an initiation waits for its answer.
    pub(super) fn request_session(&mut self, now: Instant) {
        if !self.is_outstanding {
            self.retry_now(now);
        }
    }

    /// The way may be another than a moment ago: the next initiation goes out at once, and the last
    /// one does not count as failed.
    pub(super) fn retry_now(&mut self, now: Instant) {
        let earliest = self.earliest_retry_at().map_or(now, |earliest| earliest.max(now));
        self.next_initiation_at =
            Some(self.next_initiation_at.map_or(earliest, |due| due.min(earliest)));
        self.is_outstanding = false;
    }

    /// There is a session that we began.
    pub(super) fn on_established(&mut self, now: Instant, random: f64) {
        let due = Some(now + REKEY_AFTER + MAX_JITTER.mul_f64(random));
        *self = Self {
            next_initiation_at: due,
            last_initiation: self.last_initiation,
            ..Self::new(now)
        };
    }

    /// There is a session that the other end began.
    pub(super) fn on_peer_established(&mut self, now: Instant, random: f64) {
        self.on_established(now + PEER_REKEY_GRACE, random);
    }
}

/// What has been heard from the other end, and whether it is time to worry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    last_received: Option<Instant>,
    /// The first data that was sent since.
    awaiting_reply_since: Option<Instant>,
    /// The way is another since: that it could be heard says nothing any more.
    has_route_changed: bool,
}

impl Liveness {
    pub(super) const fn new() -> Self {
        Self { last_received: None, awaiting_reply_since: None, has_route_changed: false }
    }

    /// Something authentic came.
    pub(super) const fn on_received(&mut self, now: Instant) {
        *self = Self { last_received: Some(now), ..Self::new() };
    }

    /// The way out is another than before.
    pub(super) const fn on_route_changed(&mut self) {
        self.has_route_changed = true;
    }

    /// Whether something came only a moment ago, by the way that is used now.
    pub(super) fn is_reachable(&self, now: Instant) -> bool {
        !self.has_route_changed
            && self.silent_for(now).is_some_and(|silence| silence < REACHABLE_WITHIN)
    }

    /// Data went out.
    pub(super) fn on_sent(&mut self, now: Instant) {
        self.awaiting_reply_since.get_or_insert(now);
    }

    /// How long nothing has come; `None` when nothing ever has.
    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.last_received.map(|heard| now.saturating_duration_since(heard))
    }

    /// When silence is no longer normal. Without keepalives a tunnel may be idle for ever.
    pub(super) fn suspect_at(&self, keep_alive: Option<Duration>) -> Option<Instant> {
        let unanswered = self.awaiting_reply_since.map(|asked| asked + REPLY_TIMEOUT);
        let silent = self.last_received.zip(keep_alive);
        let silent =
            silent.map(|(heard, every)| heard + SILENCE_TIMEOUT.max(every + KEEPALIVE_GRACE));
        unanswered.into_iter().chain(silent).min()
    }

    /// Whether data has gone out that should have been answered by now.
    pub(super) fn is_reply_overdue(&self, now: Instant) -> bool {
        self.awaiting_reply_since.is_some_and(|asked| now >= asked + REPLY_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The pauses between the first initiations that nobody answers.
    fn pauses(addresses: u32, random: f64) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut schedule = HandshakeTimer::new(now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(schedule.is_due(now));
            schedule.on_unanswered();
            schedule.on_initiation_sent(now, addresses, random);
            let due = schedule.next_initiation_at().unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert_eq!(schedule.failed_attempts(), 9);
        pauses
    }

    #[test]
    fn pauses_grow_by_half_from_5_s_to_30_s_at_most() {
        let pauses = pauses(1, 0.0);
        assert_eq!(pauses[..3], [5000, 7500, 11_250].map(Duration::from_millis));
        assert_eq!(pauses[9], MAX_PAUSE - MAX_JITTER);
        assert!(self::pauses(1, 0.999).iter().all(|pause| *pause <= MAX_PAUSE));
    }

    #[test]
    fn all_addresses_of_a_hub_have_their_turn_within_one_pause() {
        for addresses in 2..8 {
            let pauses = pauses(addresses, 0.999);
            let turns = usize::try_from(addresses).unwrap();
            for turn in pauses.windows(turns) {
                let each = FIRST_PAUSE * addresses;
                let most = MAX_PAUSE.max(each) + MAX_JITTER * addresses;
                assert!(turn.iter().sum::<Duration>() <= most, "{addresses}: {turn:?}");
            }
        }
        assert_eq!(pauses(2, 0.0)[..2], [FIRST_PAUSE, FIRST_PAUSE]);
    }

    #[test]
    fn a_session_is_renewed_after_120_s_and_a_third_of_a_second_at_most() {
        let now = Instant::now();
        let mut schedule = HandshakeTimer::new(now);
        schedule.on_initiation_sent(now, 1, 0.0);
        schedule.on_established(now, 0.5);
        let due = schedule.next_initiation_at().unwrap() - now;
        assert!(due >= REKEY_AFTER && due <= REKEY_AFTER + MAX_JITTER);
        assert!(!schedule.is_outstanding() && schedule.failed_attempts() == 0);
    }

    #[test]
    fn whoever_wants_a_session_waits_while_an_answer_is_due() {
        let now = Instant::now();
        let mut schedule = HandshakeTimer::new(now);
        schedule.on_initiation_sent(now, 1, 0.0);
        schedule.request_session(now + SECOND);
        assert_eq!(schedule.next_initiation_at(), Some(now + FIRST_PAUSE));
        schedule.retry_now(now + SECOND);
        assert_eq!(schedule.next_initiation_at(), Some(now + SECOND));
        schedule.set_idle();
        schedule.request_session(now + 2 * SECOND);
        assert!(schedule.is_due(now + 2 * SECOND));
    }

    #[test]
    fn silence_is_a_worry_15_s_after_data_or_45_s_and_20_s_beyond_a_keepalive_after_anything() {
        let (short, long) = (Some(SECOND), Some(60 * SECOND));
        let now = Instant::now();
        let mut hearing = Liveness::new();
        assert_eq!(hearing.suspect_at(short), None);
        hearing.on_received(now);
        assert_eq!(hearing.suspect_at(short), Some(now + SILENCE_TIMEOUT));
        assert_eq!(hearing.suspect_at(long), Some(now + 80 * SECOND));
        assert_eq!(hearing.suspect_at(None), None);
        hearing.on_sent(now + SECOND);
        hearing.on_sent(now + 2 * SECOND);
        assert_eq!(hearing.suspect_at(None), Some(now + SECOND + REPLY_TIMEOUT));
        hearing.on_received(now + 3 * SECOND);
        assert_eq!(hearing.suspect_at(None), None);
    }
}
