//! Limits the load on a Modbus server: pauses, requests per second, share of its time. Pure.

mod duty_cycle;

use std::time::{Duration, Instant};

use provisioning::config::Pacing;

use crate::model::RateLimit;
use crate::schedule::RateBudget;
pub(super) use duty_cycle::AnswerReceived;
use duty_cycle::DutyCycle;

/// Limits the requests of one connection.
#[derive(Debug)]
pub(super) struct RateLimiter {
    pacing: Pacing,
    /// End of the pause after a connect or an answer.
    paused_until: Option<Instant>,
    request_budget: RateBudget,
    /// Absent where the whole time may be used (`max_share = 100`).
    duty_cycle: Option<DutyCycle>,
    /// Total time spent waiting for answers.
    busy_time: Duration,
}

impl RateLimiter {
    /// Starts with an unused budget and without a pause.
    pub(super) fn new(pacing: Pacing, now: Instant) -> Self {
        Self {
            pacing,
            paused_until: None,
            request_budget: RateBudget::per_second(pacing.max_requests.into()),
            duty_cycle: (pacing.max_share < 100).then(|| DutyCycle::new(pacing.max_share, now)),
            busy_time: Duration::ZERO,
        }
    }

    /// Records a new connection.
    pub(super) fn on_connected(&mut self, now: Instant) {
        self.pause_for(now, self.pacing.connect_pause);
    }

    /// Records a request that was sent at `sent`, and was answered or timed out at `now`.
    pub(super) fn on_request_done(
        &mut self,
        sent: Instant,
        now: Instant,
        answered: AnswerReceived,
    ) {
        self.pause_for(now, self.pacing.request_pause);
        self.busy_time += now.saturating_duration_since(sent);
        if let Some(share) = &mut self.duty_cycle {
            share.record(sent, now, answered);
        }
    }

    fn pause_for(&mut self, now: Instant, pause: Duration) {
        self.paused_until = (!pause.is_zero()).then(|| now + pause);
    }

    /// Returns the total time spent waiting for answers.
    pub(super) const fn busy_time(&self) -> Duration {
        self.busy_time
    }

    /// Returns the limit that blocks a job expected to wait for answers for `expected`, and when it
    /// lifts.
    pub(super) fn throttled_until(
        &mut self,
        expected: Duration,
        now: Instant,
    ) -> Option<(RateLimit, Instant)> {
        let Pacing { max_share, max_requests, .. } = self.pacing;
        let share = self.duty_cycle.as_mut().and_then(|share| share.next_free(expected, now));
        let requests = self.request_budget.next_free(now);
        let share = share.map(|until| (RateLimit::Share(max_share), until));
        let requests = requests.map(|until| (RateLimit::Requests(max_requests), until));
        share.into_iter().chain(requests).max_by_key(|(_, until)| *until)
    }

    /// Takes the right to send the next request. This spreads the requests of a job that takes
    /// longer than expected.
    ///
    /// # Errors
    /// Returns when to ask again, if no request may be sent now.
    pub(super) fn take_slot(&mut self, now: Instant) -> Result<(), Instant> {
        let paused_until = self.paused_until.filter(|until| now < *until);
        let share = self.duty_cycle.as_mut().and_then(|share| share.next_free_for_answer(now));
        match paused_until.max(share) {
            Some(until) => Err(until),
            None => self.request_budget.take(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn pacing() -> Pacing {
        Pacing::default()
    }

    #[test]
    fn a_pause_follows_each_connect_and_each_answer() {
        let (start, at) = (Instant::now(), |millis| MILLI * millis);
        let pauses = Pacing { connect_pause: MILLI * 200, request_pause: MILLI * 5, ..pacing() };
        let mut limiter = RateLimiter::new(pauses, start);
        assert_eq!(limiter.take_slot(start), Ok(()), "no connect and no answer yet");
        limiter.on_connected(start);
        assert_eq!(limiter.take_slot(start), Err(start + at(200)));
        assert_eq!(limiter.take_slot(start + at(200)), Ok(()));
        limiter.on_request_done(start + at(200), start + at(203), AnswerReceived::Yes);
        assert_eq!(limiter.take_slot(start + at(203)), Err(start + at(208)));
        assert_eq!(limiter.take_slot(start + at(208)), Ok(()));
    }

    #[test]
    fn requests_beyond_the_limit_of_a_second_wait_for_the_next() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Pacing { max_requests: 2, ..pacing() }, start);
        assert_eq!(limiter.throttled_until(MILLI, start), None);
        assert_eq!([limiter.take_slot(start), limiter.take_slot(start)], [Ok(()), Ok(())]);
        let free = start + MILLI * 1000;
        assert_eq!(limiter.throttled_until(MILLI, start), Some((RateLimit::Requests(2), free)));
        assert_eq!(limiter.take_slot(start), Err(free));
        assert_eq!(limiter.take_slot(free), Ok(()));
    }

    #[test]
    fn a_job_and_each_of_its_requests_wait_until_the_share_allows_them() {
        let start = Instant::now();
        let (second, at) = (MILLI * 1000, |seconds| start + MILLI * 1000 * seconds);
        let mut limiter = RateLimiter::new(pacing(), start);
        assert_eq!(limiter.throttled_until(second * 4, start), None);
        limiter.on_request_done(start, at(4), AnswerReceived::Yes);
        assert_eq!(limiter.busy_time(), second * 4);
        // Five seconds in ten: one more second, or four when three of the first have left the
        // window.
        assert_eq!(limiter.throttled_until(second, at(4)), None);
        assert_eq!(limiter.throttled_until(second * 4, at(4)), Some((RateLimit::Share(50), at(9))));
        assert_eq!(limiter.take_slot(at(4)), Err(at(9)), "as long as the one before");
        assert_eq!(limiter.take_slot(at(9)), Ok(()));
    }

    #[test]
    fn a_share_of_100_percent_limits_nothing() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Pacing { max_share: 100, ..pacing() }, start);
        limiter.on_request_done(start, start + MILLI * 20_000, AnswerReceived::No);
        assert_eq!(limiter.throttled_until(MILLI, start + MILLI * 20_000), None);
    }
}
