//! One cycle of a scan class, from what was read to the event that passes it on. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;

use super::connection::{Blame, Exchange};
use super::request_tuner::{RequestList, RequestTuner};
use super::{Cycle, PlcEvent, ReadFailure, ReadOutcome, ReadResult, TagLocation};
use crate::clock::Anchor;
use crate::model::UnixTime;

/// What a cycle read of one scan class, not yet judged.
pub(super) struct CycleReads {
    pub(super) class: u16,
    /// The requests of the cycle.
    pub(super) list: RequestList,
    /// Index of the request that was sent first; the others follow in order, around the end.
    pub(super) first: usize,
    /// What was sent. The request after the last of these was not.
    pub(super) exchanges: Vec<Exchange>,
    /// Whether a connection broke over the first request and could not be replaced.
    pub(super) is_first_lost: bool,
    /// Start of the cycle.
    pub(super) start: Instant,
    pub(super) anchor: Anchor,
}

/// The values of a cycle, while refused requests are split.
pub(super) struct CycleValues {
    class: u16,
    list: RequestList,
    /// One for each request of the list; absent where the request was split.
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
    locations: Arc<[Option<TagLocation>]>,
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
    /// It cost the connection; `is_closed` when the server closed it in place of an answer.
    Lost { blame: Blame, is_closed: bool },
}

impl CycleReads {
    /// Returns the position of each request in the list, in the order of sending.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        (self.first..self.list.requests.len()).chain(0..self.first)
    }
}

impl CycleValues {
    /// Starts with the results of the requests of a list, each absent where it will be split.
    pub(super) const fn new(
        class: u16,
        list: RequestList,
        results: Vec<Option<ReadResult>>,
        start: Instant,
        anchor: Anchor,
    ) -> Self {
        Self { class, list, results, extra: Vec::new(), start, anchor }
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
        let Self { class, list, results, extra, start, anchor } = self;
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
            Self::Lost { blame, .. } => Some(blame),
            Self::NotSent | Self::Answered | Self::GatewayException => None,
        }
    }
}

/// Returns the wall time of the middle of a round trip that started at `sent` and took `took`.
pub(super) fn middle_of(anchor: &Anchor, (sent, took): (Instant, Duration)) -> UnixTime {
    anchor.wall_time_at(sent + took / 2)
}
