//! When to begin a handshake. Pure: `now` and randomness are arguments.

use std::time::{Duration, Instant};

/// First pause after an initiation (REKEY_TIMEOUT); each further one is half as long again.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause, with its jitter: a hub that comes back is found within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Keeps a fleet apart that lost its hub in the same moment.
const JITTER: Duration = Duration::from_millis(333);
/// Age of a session at which the next one is made (REKEY_AFTER_TIME).
const REKEY: Duration = Duration::from_secs(120);
/// How much longer to wait when the other end began the session: its turn comes first.
const OTHERS_TURN: Duration = Duration::from_secs(15);
/// The least time between two initiations, whatever happens.
const LEAST: Duration = Duration::from_secs(1);
/// An answer to data is due after this: the other end sends a keepalive after 10 s, and the way
/// takes its time.
const UNANSWERED: Duration = Duration::from_secs(15);
/// Nothing came at all for this long, although nothing was asked for. A hub answers no keepalive, so
/// then only a handshake shows that it is there.
const SILENT: Duration = Duration::from_secs(45);
/// The same beyond the time between two keepalives: whoever wants to send seldom is not to ask often.
const BEYOND: Duration = Duration::from_secs(20);
/// Whoever was heard this recently can be reached, whatever becomes of a handshake.
const RECENT: Duration = Duration::from_secs(10);

/// The initiations of one peer: at once, again and again with growing pauses, for ever, until there
/// is a session, and then before it gets too old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    due: Option<Instant>,
    last: Option<Instant>,
    pause: Duration,
    failed: u32,
    is_outstanding: bool,
}

impl Schedule {
    /// Makes the first initiation due now.
    pub(super) const fn new(now: Instant) -> Self {
        let due = Some(now);
        Self { due, last: None, pause: FIRST_PAUSE, failed: 0, is_outstanding: false }
    }

    /// Goes on with the pauses of another that had no success.
    pub(super) const fn resume(now: Instant, other: &Self) -> Self {
        Self { pause: other.pause, ..Self::new(now) }
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// No initiation goes out before this.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.last.map(|last| last + LEAST)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Whether an initiation waits for its answer.
    pub(super) const fn is_outstanding(&self) -> bool {
        self.is_outstanding
    }

    /// Initiations without an answer since the last session.
    pub(super) const fn failed(&self) -> u32 {
        self.failed
    }

    /// The outstanding initiation will not be answered any more.
    pub(super) const fn give_up(&mut self) {
        if self.is_outstanding {
            self.is_outstanding = false;
            self.failed = self.failed.saturating_add(1);
        }
    }

    /// The same when the hub was heard meanwhile: an accident, which says nothing about the way. The
    /// next one goes out after the first pause.
    pub(super) const fn forgive(&mut self) {
        (self.is_outstanding, self.pause) = (false, FIRST_PAUSE);
    }

    /// An initiation goes out now to one of so many addresses, which take turns: all of them are tried
    /// in the time of one pause. `random` is in `[0, 1)`.
    pub(super) fn attempt(&mut self, now: Instant, addresses: u32, random: f64) {
        let is_last = (self.failed + 1).is_multiple_of(addresses.max(1));
        let pause = if is_last {
            let others = FIRST_PAUSE * addresses.saturating_sub(1);
            let rest = self.pause.saturating_sub(others).max(FIRST_PAUSE);
            self.pause = self.pause.mul_f64(1.5).min(LONGEST_PAUSE - JITTER);
            rest
        } else {
            FIRST_PAUSE
        };
        let pause = (pause + JITTER.mul_f64(random)).min(LONGEST_PAUSE);
        self.due = Some(now + pause);
        self.last = Some(now);
        self.is_outstanding = true;
    }

    /// An initiation is due, and nobody knows where to send it to: counts like one that is not
    /// answered.
    pub(super) fn attempt_blindly(&mut self, now: Instant, random: f64) {
        let last = self.last;
        self.attempt(now, 1, random);
        self.last = last;
    }

    /// Nothing can go out now; the same again soon.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = Some(now + FIRST_PAUSE);
    }

    /// Nobody needs a session now.
    pub(super) const fn rest(&mut self) {
        self.due = None;
    }

    /// A session would be good to have; does nothing while an initiation waits for its answer.
    pub(super) fn want(&mut self, now: Instant) {
        if !self.is_outstanding {
            self.hurry(now);
        }
    }

    /// The way may be another than a moment ago: the next initiation goes out at once, and the last
    /// one does not count as failed.
    pub(super) fn hurry(&mut self, now: Instant) {
        let earliest = self.earliest().map_or(now, |earliest| earliest.max(now));
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
        self.is_outstanding = false;
    }

    /// There is a session that we began.
    pub(super) fn established(&mut self, now: Instant, random: f64) {
        let due = Some(now + REKEY + JITTER.mul_f64(random));
        *self = Self { due, last: self.last, ..Self::new(now) };
    }

    /// There is a session that the other end began.
    pub(super) fn answered(&mut self, now: Instant, random: f64) {
        self.established(now + OTHERS_TURN, random);
    }
}

/// What has been heard from the other end, and whether it is time to worry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearing {
    heard: Option<Instant>,
    /// The first data that was sent since.
    asked: Option<Instant>,
    /// The way is another since: that it could be heard says nothing any more.
    is_elsewhere: bool,
}

impl Hearing {
    pub(super) const fn new() -> Self {
        Self { heard: None, asked: None, is_elsewhere: false }
    }

    /// Something authentic came.
    pub(super) const fn heard(&mut self, now: Instant) {
        *self = Self { heard: Some(now), ..Self::new() };
    }

    /// The way out is another than before.
    pub(super) const fn moved(&mut self) {
        self.is_elsewhere = true;
    }

    /// Whether something came only a moment ago, by the way that is used now.
    pub(super) fn is_recent(&self, now: Instant) -> bool {
        !self.is_elsewhere && self.silence(now).is_some_and(|silence| silence < RECENT)
    }

    /// Data went out.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// How long nothing has come; `None` when nothing ever has.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|heard| now.saturating_duration_since(heard))
    }

    /// When silence is no longer normal. Without keepalives a tunnel may be idle for ever.
    pub(super) fn worry_at(&self, keep_alive: Option<Duration>) -> Option<Instant> {
        let unanswered = self.asked.map(|asked| asked + UNANSWERED);
        let silent = self.heard.zip(keep_alive);
        let silent = silent.map(|(heard, every)| heard + SILENT.max(every + BEYOND));
        unanswered.into_iter().chain(silent).min()
    }

    /// Whether data has gone out that should have been answered by now.
    pub(super) fn is_unanswered(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now >= asked + UNANSWERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The pauses between the first initiations that nobody answers.
    fn pauses(addresses: u32, random: f64) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(schedule.is_due(now));
            schedule.give_up();
            schedule.attempt(now, addresses, random);
            let due = schedule.due().unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert_eq!(schedule.failed(), 9);
        pauses
    }

    #[test]
    fn pauses_grow_by_half_from_5_s_to_30_s_at_most() {
        let pauses = pauses(1, 0.0);
        assert_eq!(pauses[..3], [5000, 7500, 11_250].map(Duration::from_millis));
        assert_eq!(pauses[9], LONGEST_PAUSE - JITTER);
        assert!(self::pauses(1, 0.999).iter().all(|pause| *pause <= LONGEST_PAUSE));
    }

    #[test]
    fn all_addresses_of_a_hub_have_their_turn_within_one_pause() {
        for addresses in 2..8 {
            let pauses = pauses(addresses, 0.999);
            let turns = usize::try_from(addresses).unwrap();
            for turn in pauses.windows(turns) {
                let each = FIRST_PAUSE * addresses;
                let most = LONGEST_PAUSE.max(each) + JITTER * addresses;
                assert!(turn.iter().sum::<Duration>() <= most, "{addresses}: {turn:?}");
            }
        }
        assert_eq!(pauses(2, 0.0)[..2], [FIRST_PAUSE, FIRST_PAUSE]);
    }

    #[test]
    fn a_session_is_renewed_after_120_s_and_a_third_of_a_second_at_most() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.attempt(now, 1, 0.0);
        schedule.established(now, 0.5);
        let due = schedule.due().unwrap() - now;
        assert!(due >= REKEY && due <= REKEY + JITTER);
        assert!(!schedule.is_outstanding() && schedule.failed() == 0);
    }

    #[test]
    fn whoever_wants_a_session_waits_while_an_answer_is_due() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.attempt(now, 1, 0.0);
        schedule.want(now + SECOND);
        assert_eq!(schedule.due(), Some(now + FIRST_PAUSE));
        schedule.hurry(now + SECOND);
        assert_eq!(schedule.due(), Some(now + SECOND));
        schedule.rest();
        schedule.want(now + 2 * SECOND);
        assert!(schedule.is_due(now + 2 * SECOND));
    }

    #[test]
    fn silence_is_a_worry_15_s_after_data_or_45_s_and_20_s_beyond_a_keepalive_after_anything() {
        let (short, long) = (Some(SECOND), Some(60 * SECOND));
        let now = Instant::now();
        let mut hearing = Hearing::new();
        assert_eq!(hearing.worry_at(short), None);
        hearing.heard(now);
        assert_eq!(hearing.worry_at(short), Some(now + SILENT));
        assert_eq!(hearing.worry_at(long), Some(now + 80 * SECOND));
        assert_eq!(hearing.worry_at(None), None);
        hearing.asked(now + SECOND);
        hearing.asked(now + 2 * SECOND);
        assert_eq!(hearing.worry_at(None), Some(now + SECOND + UNANSWERED));
        hearing.heard(now + 3 * SECOND);
        assert_eq!(hearing.worry_at(None), None);
    }
}
