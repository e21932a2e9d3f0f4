//! One cycle of a scan class, from what was read to the event that passes it on. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;

use super::connection::Blame;
use super::request_tuner::{RequestList, RequestTuner};
use super::{Cycle, PlcEvent, ReadFailure, ReadOutcome, ReadResult, TagLocation};
use crate::clock::Anchor;
use crate::model::UnixTime;

/// The values of a cycle, while its requests are sent and refused ones are split.
pub(super) struct CycleValues {
    class: u16,
    list: RequestList,
    /// Index of the request that is sent first; the other regular ones follow, around the end.
    first: usize,
    /// Number of requests that were sent.
    sent: usize,
    period: Duration,
    /// One for each request of the list; absent until it was sent, and where it was split.
    results: Vec<Option<ReadResult>>,
    /// Parts of requests that were split.
    extra: Vec<(ReadRequest, ReadResult)>,
    start: Instant,
    anchor: Anchor,
}

/// A cycle that is complete but for whether the program was stopped.
pub(super) struct CompleteCycle {
    pub(super) class: u16,
    requests: Arc<[ReadRequest]>,
    locations: Arc<[Result<TagLocation, ReadFailure>]>,
    pub(super) results: Vec<ReadResult>,
    start: Instant,
    anchor: Anchor,
}

/// What is requested after the values of a cycle, before the cycle is passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FollowUp {
    Nothing,
    /// The identity of the unit, which was put off until the session had answered.
    Identify,
    /// The state of the program: the values may stand still because it stopped.
    ReadProgramState,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ExchangeVerdict {
    /// There was no connection, or the task is to stop.
    NotSent,
    /// The unit answered or refused it.
    Answered,
    /// A device between the gateway and the unit refused it.
    GatewayException,
    /// It cost the connection.
    Lost { blame: Blame },
}

impl CycleValues {
    /// Starts a cycle that sends the requests of a list, the one at `first` before the others.
    pub(super) fn new(
        class: u16,
        list: RequestList,
        first: usize,
        period: Duration,
        (start, anchor): (Instant, Anchor),
    ) -> Self {
        let first = first % list.regular.max(1);
        let results = vec![None; list.requests.len()];
        Self { class, list, first, sent: 0, period, results, extra: Vec::new(), start, anchor }
    }

    /// Returns the requests of the cycle.
    pub(super) fn list(&self) -> RequestList {
        self.list.clone()
    }

    /// Returns the index of the request to send next: the regular ones from `first` on and around
    /// their end, then those that search.
    pub(super) const fn next_position(&self) -> Option<usize> {
        let regular = self.list.regular;
        if self.sent < regular {
            Some((self.first + self.sent) % regular)
        } else if self.sent < self.results.len() {
            Some(self.sent)
        } else {
            None
        }
    }

    /// Returns a request of this cycle that was answered with values.
    pub(super) fn answered_request(&self) -> Option<&ReadRequest> {
        let is_good = |result: &Option<ReadResult>| {
            result.as_ref().is_some_and(|result| result.outcome.is_ok())
        };
        self.list.requests.get(self.results.iter().position(is_good)?)
    }

    /// Returns whether the session may end over the request at this index.
    pub(super) const fn is_search(&self, position: usize) -> bool {
        position >= self.list.regular
    }

    /// Records the result of the request at this index; absent when it will be split.
    pub(super) fn on_read(&mut self, position: usize, result: Option<ReadResult>) {
        self.sent += 1;
        if let Some(slot) = self.results.get_mut(position) {
            *slot = result;
        }
    }

    /// Records that the other requests were not sent.
    pub(super) fn skip_rest(&mut self, now: Instant) {
        while let Some(position) = self.next_position() {
            self.on_read(position, Some(self.failure(ReadFailure::Unreachable, now)));
        }
    }

    /// Returns the time between two cycles.
    pub(super) const fn period(&self) -> Duration {
        self.period
    }

    /// Returns the index of the scan class.
    pub(super) const fn class(&self) -> u16 {
        self.class
    }

    /// Returns when the cycle started.
    pub(super) const fn start(&self) -> Instant {
        self.start
    }

    /// Returns the result of a request that was sent, with the middle of its round trip as its
    /// time.
    pub(super) fn result(&self, sent: (Instant, Duration), outcome: ReadOutcome) -> ReadResult {
        ReadResult { at: middle_of(&self.anchor, sent), outcome }
    }

    /// Returns the result of a request that was not sent, at `now`.
    pub(super) fn failure(&self, failure: ReadFailure, now: Instant) -> ReadResult {
        ReadResult { at: self.anchor.wall_time_at(now), outcome: Err(failure) }
    }

    /// Adds results of parts of requests that were split.
    pub(super) fn add_parts(&mut self, parts: impl IntoIterator<Item = (ReadRequest, ReadResult)>) {
        self.extra.extend(parts);
    }

    /// Puts the parts of requests that were split in place of these requests.
    pub(super) fn complete(self, tuner: &RequestTuner) -> CompleteCycle {
        let Self { class, list, results, extra, start, anchor, .. } = self;
        if extra.is_empty() && results.iter().all(Option::is_some) {
            let RequestList { requests, locations, .. } = list;
            let results = results.into_iter().flatten().collect();
            return CompleteCycle { class, requests, locations, results, start, anchor };
        }
        let sent = list.requests.iter().zip(results);
        let sent = sent.filter_map(|(request, result)| Some((request.clone(), result?)));
        let (requests, results): (Vec<_>, _) = sent.chain(extra).unzip();
        let locations = tuner.locations(class, &requests);
        CompleteCycle { class, requests: requests.into(), locations, results, start, anchor }
    }
}

impl CompleteCycle {
    /// Returns the event that passes the cycle on; `is_stopped` when the program did not run.
    pub(super) fn into_event(self, plc: u16, is_stopped: bool, now: Instant) -> PlcEvent {
        let Self { class, requests, locations, results, start, anchor } = self;
        let (at, took) = (anchor.wall_time_at(start), now - start);
        PlcEvent::Cycle(Cycle {
            plc,
            class,
            at,
            booted_at: anchor.booted_at(),
            took,
            is_stopped,
            requests,
            locations,
            results,
        })
    }
}

impl ExchangeVerdict {
    /// Returns who is to blame for the connection, if it was lost.
    pub(super) const fn blame(self) -> Option<Blame> {
        match self {
            Self::Lost { blame } => Some(blame),
            Self::NotSent | Self::Answered | Self::GatewayException => None,
        }
    }
}

/// Returns the wall time of the middle of a round trip that started at `sent` and took `took`.
pub(super) fn middle_of(anchor: &Anchor, (sent, took): (Instant, Duration)) -> UnixTime {
    anchor.wall_time_at(sent + took / 2)
}
