//! Handshake timer and liveness of a peer. Pure: `now` and randomness are arguments.

use std::time::{Duration, Instant};

/// Pause after the first initiation (REKEY_TIMEOUT); each further pause is 1.5 times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause with its jitter: a hub that is up again is found within this time.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Largest random delay of a short pause and of a renewal.
const MAX_JITTER: Duration = Duration::from_millis(333);
/// Pause from which on half of it is random. The shorter ones decide when a dead hub is left for
/// the next one.
const SPREAD_FROM: Duration = Duration::from_secs(10);
/// Age of a session at which it is renewed (REKEY_AFTER_TIME).
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// Additional age if the other end began the session: it renews the session first.
const PEER_REKEY_GRACE: Duration = Duration::from_secs(15);
/// Minimum time between two initiations.
const MIN_RETRY: Duration = Duration::from_secs(1);
/// Time until a reply to data is overdue: the other end sends a keepalive after 10 s
/// (KEEPALIVE_TIMEOUT), and the network adds its delay.
const REPLY_TIMEOUT: Duration = Duration::from_secs(12);
/// The same until the hub counts as silent: the handshake that begins at [`REPLY_TIMEOUT`] was not
/// answered either.
const SILENT_AFTER: Duration = Duration::from_secs(14);
/// Time without any datagram, although no reply is awaited, until the hub is suspected to be down.
/// A hub answers no keepalive, so only a handshake shows that it is up.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);
/// Added to the keepalive interval for the same purpose, so that a long interval does not cause
/// frequent handshakes.
const KEEPALIVE_GRACE: Duration = Duration::from_secs(20);
/// A peer that sent something within this time is reachable, even if a handshake fails.
const REACHABLE_WITHIN: Duration = Duration::from_secs(10);

/// When to send initiations to one peer: at once, then with growing pauses until there is a
/// session, and again before the session is too old.
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
        Self {
            next_initiation_at: Some(now),
            last_initiation: None,
            pause: FIRST_PAUSE,
            failed_attempts: 0,
            is_outstanding: false,
        }
    }

    /// Starts with the pause of another timer that had no success.
    pub(super) const fn with_pause_of(now: Instant, other: &Self) -> Self {
        Self { pause: other.pause, ..Self::new(now) }
    }

    pub(super) const fn next_initiation_at(&self) -> Option<Instant> {
        self.next_initiation_at
    }

    /// Returns the time before which no initiation may be sent.
    pub(super) fn earliest_retry_at(&self) -> Option<Instant> {
        self.last_initiation.map(|last| last + MIN_RETRY)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_initiation_at.is_some_and(|due| now >= due)
    }

    /// Returns whether an initiation awaits its response.
    pub(super) const fn is_outstanding(&self) -> bool {
        self.is_outstanding
    }

    /// Returns the number of initiations without a response since the last session.
    pub(super) const fn failed_attempts(&self) -> u32 {
        self.failed_attempts
    }

    /// Counts the outstanding initiation as failed.
    pub(super) const fn on_unanswered(&mut self) {
        if self.is_outstanding {
            self.is_outstanding = false;
            self.failed_attempts = self.failed_attempts.saturating_add(1);
        }
    }

    /// Drops the outstanding initiation without counting it, because the hub is reachable. The next
    /// one follows after the first pause.
    pub(super) const fn ignore_unanswered(&mut self) {
        (self.is_outstanding, self.pause) = (false, FIRST_PAUSE);
    }

    /// Records an initiation to one of `addresses`, which take turns. `random` is in `[0, 1)`.
    pub(super) fn on_initiation_sent(&mut self, now: Instant, addresses: u32, random: f64) {
        // All addresses are tried within one pause, so only the last one waits for the rest of it.
        let is_last = (self.failed_attempts + 1).is_multiple_of(addresses.max(1));
        let pause = if is_last {
            let others = FIRST_PAUSE * addresses.saturating_sub(1);
            let rest = self.pause.saturating_sub(others).max(FIRST_PAUSE);
            self.pause = self.pause.mul_f64(1.5).min(MAX_PAUSE);
            rest
        } else {
            FIRST_PAUSE
        };
        self.next_initiation_at = Some(now + with_jitter(pause, random));
        self.last_initiation = Some(now);
        self.is_outstanding = true;
    }

    /// Records that an initiation was due without an address to send it to; it counts as
    /// unanswered.
    pub(super) fn on_no_address(&mut self, now: Instant, random: f64) {
        // Nothing was sent, so the minimum interval between initiations does not start.
        let last = self.last_initiation;
        self.on_initiation_sent(now, 1, random);
        self.last_initiation = last;
    }

    /// Retries after the first pause, without counting an attempt.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.next_initiation_at = Some(now + FIRST_PAUSE);
    }

    /// Stops the timer until a session is requested.
    pub(super) const fn set_idle(&mut self) {
        self.next_initiation_at = None;
    }

    /// Makes an initiation due as soon as allowed, unless one awaits its response.
    pub(super) fn request_session(&mut self, now: Instant) {
        if !self.is_outstanding {
            self.retry_now(now);
        }
    }

    /// Makes an initiation due as soon as allowed, because the route to the hub may have changed.
    /// The outstanding one does not count as failed.
    pub(super) fn retry_now(&mut self, now: Instant) {
        let earliest = self.earliest_retry_at().map_or(now, |earliest| earliest.max(now));
        self.next_initiation_at =
            Some(self.next_initiation_at.map_or(earliest, |due| due.min(earliest)));
        // A late response is still accepted: boringtun keeps the state of the last two initiations.
        self.is_outstanding = false;
    }

    /// Records a session that this end began.
    pub(super) fn on_established(&mut self, now: Instant, random: f64) {
        let last_initiation = self.last_initiation;
        *self = Self { last_initiation, ..Self::new(now) };
        self.next_initiation_at = Some(now + REKEY_AFTER + MAX_JITTER.mul_f64(random));
    }

    /// Records a session that the other end began.
    pub(super) fn on_peer_established(&mut self, now: Instant, random: f64) {
        self.on_established(now + PEER_REKEY_GRACE, random);
    }
}

/// Returns a pause between half and all of `pause`; those below [`SPREAD_FROM`] stay as they are.
///
/// Without jitter a fleet would retry in step, and overload its hub when it returns. A third of a
/// second does not change that within an hour: sites that lost their hub together need pauses that
/// differ by about half of their length.
fn with_jitter(pause: Duration, random: f64) -> Duration {
    let shortest = if pause < SPREAD_FROM { pause } else { pause / 2 };
    let longest = (pause + MAX_JITTER).min(MAX_PAUSE);
    shortest + longest.saturating_sub(shortest).mul_f64(random)
}

/// What was received from the other end, and when its silence is suspicious.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    last_received: Option<Instant>,
    /// When data was first sent after that.
    awaiting_reply_since: Option<Instant>,
    /// The route has changed since: earlier datagrams do not prove that the hub is reachable.
    has_route_changed: bool,
}

impl Liveness {
    pub(super) const fn new() -> Self {
        Self { last_received: None, awaiting_reply_since: None, has_route_changed: false }
    }

    /// Records an authentic datagram.
    pub(super) const fn on_received(&mut self, now: Instant) {
        *self = Self { last_received: Some(now), ..Self::new() };
    }

    /// Records that this host has another route to the hub.
    pub(super) const fn on_route_changed(&mut self) {
        self.has_route_changed = true;
    }

    /// Returns whether a datagram arrived within the last 10 s on the current route.
    pub(super) fn is_reachable(&self, now: Instant) -> bool {
        !self.has_route_changed
            && self.silent_for(now).is_some_and(|silence| silence < REACHABLE_WITHIN)
    }

    /// Records that data was sent.
    pub(super) fn on_sent(&mut self, now: Instant) {
        self.awaiting_reply_since.get_or_insert(now);
    }

    /// Returns the time since the last datagram; `None` if there was none.
    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.last_received.map(|received| now.saturating_duration_since(received))
    }

    /// Returns when silence becomes suspicious. Without keepalives an idle tunnel may be silent.
    pub(super) fn suspect_at(&self, keep_alive: Option<Duration>) -> Option<Instant> {
        let unanswered = self.awaiting_reply_since.map(|asked| asked + REPLY_TIMEOUT);
        let silent = self.last_received.zip(keep_alive);
        let silent =
            silent.map(|(received, every)| received + SILENCE_TIMEOUT.max(every + KEEPALIVE_GRACE));
        unanswered.into_iter().chain(silent).min()
    }

    /// Returns since when data was sent without anything coming back.
    pub(super) const fn unanswered_since(&self) -> Option<Instant> {
        self.awaiting_reply_since
    }

    /// Returns whether nothing has come back for so long that the hub is silent.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.awaiting_reply_since.is_some_and(|asked| now >= asked + SILENT_AFTER)
    }

    /// Returns whether a reply to data is overdue.
    pub(super) fn is_reply_overdue(&self, now: Instant) -> bool {
        self.awaiting_reply_since.is_some_and(|asked| now >= asked + REPLY_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the pauses between the first unanswered initiations.
    fn pauses(addresses: u32, random: f64) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut timer = HandshakeTimer::new(now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(timer.is_due(now));
            timer.on_unanswered();
            timer.on_initiation_sent(now, addresses, random);
            let due = timer.next_initiation_at().unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert_eq!(timer.failed_attempts(), 9);
        pauses
    }

    #[test]
    fn pauses_grow_by_half_from_5_s_to_30_s_and_half_of_each_is_random() {
        let (shortest, longest) = (pauses(1, 0.0), pauses(1, 1.0));
        assert_eq!(shortest[..3], [5000, 7500, 5625].map(Duration::from_millis));
        assert_eq!(longest[..3], [5333, 7833, 11_583].map(Duration::from_millis));
        assert_eq!((shortest[9], longest[9]), (MAX_PAUSE / 2, MAX_PAUSE));
    }

    /// Returns the initiations in each second of an outage of an hour. All sites notice it within
    /// the same second.
    fn initiations_in_an_hour(sites: u32, seed: u64) -> Vec<f64> {
        let (start, mut random) = (Instant::now(), fastrand::Rng::with_seed(seed));
        let second = |at: Instant| usize::try_from((at - start).as_secs()).unwrap();
        let mut counts = vec![0.0; 3600];
        for _ in 0..sites {
            let mut now = start + SECOND.mul_f64(random.f64());
            let mut timer = HandshakeTimer::new(now);
            while let Some(count) = counts.get_mut(second(now)) {
                *count += 1.0;
                timer.on_unanswered();
                timer.on_initiation_sent(now, 1, random.f64());
                now = timer.next_initiation_at().unwrap();
            }
        }
        counts
    }

    /// Returns the correlation of these counts with themselves `lag` seconds later.
    fn autocorrelation(counts: &[f64], lag: usize) -> f64 {
        let mean = counts.iter().sum::<f64>() / f64::from(u32::try_from(counts.len()).unwrap());
        let covariance = |lag: usize| -> f64 {
            counts.iter().zip(&counts[lag..]).map(|(a, b)| (a - mean) * (b - mean)).sum()
        };
        covariance(lag) / covariance(0)
    }

    #[test]
    fn a_fleet_that_lost_its_hub_together_is_out_of_step_after_five_minutes() {
        for (sites, seed) in [(2_000, 1), (2_000, 2), (20_000, 3)] {
            let counts = initiations_in_an_hour(sites, seed);
            for lag in 1..=60 {
                let found = autocorrelation(&counts[300..], lag);
                assert!(found < 0.1, "{sites} sites, lag of {lag} s: {found}");
            }
            let most = counts[300..].iter().copied().fold(0.0, f64::max);
            assert!(most < f64::from(sites) / 10.0, "{most} of {sites} in one second");
        }
    }

    #[test]
    fn all_addresses_of_a_hub_are_tried_within_one_pause() {
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
    fn a_session_is_renewed_after_120_s_with_a_jitter_of_a_third_of_a_second() {
        let now = Instant::now();
        let mut timer = HandshakeTimer::new(now);
        timer.on_initiation_sent(now, 1, 0.0);
        timer.on_established(now, 0.5);
        let due = timer.next_initiation_at().unwrap() - now;
        assert!(due >= REKEY_AFTER && due <= REKEY_AFTER + MAX_JITTER);
        assert!(!timer.is_outstanding() && timer.failed_attempts() == 0);
    }

    #[test]
    fn a_request_for_a_session_waits_while_a_response_is_outstanding() {
        let now = Instant::now();
        let mut timer = HandshakeTimer::new(now);
        timer.on_initiation_sent(now, 1, 0.0);
        timer.request_session(now + SECOND);
        assert_eq!(timer.next_initiation_at(), Some(now + FIRST_PAUSE));
        timer.retry_now(now + SECOND);
        assert_eq!(timer.next_initiation_at(), Some(now + SECOND));
        timer.set_idle();
        timer.request_session(now + 2 * SECOND);
        assert!(timer.is_due(now + 2 * SECOND));
    }

    #[test]
    fn silence_is_suspicious_12_s_after_data_and_45_s_after_a_datagram_or_20_s_after_a_keepalive() {
        let (short, long) = (Some(SECOND), Some(60 * SECOND));
        let now = Instant::now();
        let mut liveness = Liveness::new();
        assert_eq!(liveness.suspect_at(short), None);
        liveness.on_received(now);
        assert_eq!(liveness.suspect_at(short), Some(now + SILENCE_TIMEOUT));
        assert_eq!(liveness.suspect_at(long), Some(now + 80 * SECOND));
        assert_eq!(liveness.suspect_at(None), None);
        liveness.on_sent(now + SECOND);
        liveness.on_sent(now + 2 * SECOND);
        assert_eq!(liveness.suspect_at(None), Some(now + SECOND + REPLY_TIMEOUT));
        liveness.on_received(now + 3 * SECOND);
        assert_eq!(liveness.suspect_at(None), None);
    }
}
