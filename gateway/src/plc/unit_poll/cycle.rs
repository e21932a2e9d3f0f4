//! One cycle of one scan class: its requests, and what has to be taken apart.

use std::sync::Arc;
use std::time::Instant;

use provisioning::plan::ReadRequest;

use super::{UnitPoll, now};
use crate::plc::request_tuner::{AnswerVerdict, RequestList, TagRange};
use crate::plc::session::Connector;
use crate::plc::{Cycle, PlcDiagnosis, ReadFailure, ReadResult};

/// Most refused requests that are taken apart in one cycle. Each costs two requests; the search is
/// over after a few cycles, and none of them takes much longer than others.
const MAX_SPLITS_PER_CYCLE: u8 = 16;

impl<C: Connector> UnitPoll<'_, C> {
    /// Reads one class; nothing when `stop` fires before it is whole.
    pub(in crate::plc) async fn read_cycle(&mut self, class: u16) -> Option<Cycle> {
        let start = now();
        let at = self.started.wall_time_at(start);
        if !self.unit.backoff.is_silent() {
            self.connect().await;
            self.identify_new_session().await;
            self.report_throttled().await;
        }
        let agenda = self.unit.tuner.next_requests(class, now())?;
        let mut taken = CycleValues::new(&agenda);
        let first = self.unit.next_start.get(usize::from(class))? % agenda.requests.len().max(1);
        for index in (first..agenda.requests.len()).chain(0..first) {
            if self.stop.is_cancelled() {
                return None;
            }
            let (Some(request), Some(part)) =
                (agenda.requests.get(index), agenda.ranges.get(index))
            else {
                continue;
            };
            let (read, verdict) =
                self.read_request(class, index, request, part, index == first).await;
            taken.store(index, read, verdict);
        }
        let half_period = self.unit.plan.classes.get(usize::from(class))?.period / 2;
        self.split_refused(class, start + half_period, &mut taken).await;
        if self.connection.is_connected() {
            self.unit.backoff.on_complete_cycle();
        }
        self.identify_if_unknown().await;
        let (requests, reads) = taken.finish(&agenda);
        self.check_after_unchanged(class, &reads).await;
        let is_stopped = self.unit.identity_probe.is_program_stopped();
        let (plc, took) = (self.unit.plc(), now() - start);
        Some(Cycle { plc, class, at, took, is_stopped, requests, results: reads })
    }

    /// Another unit has used up the connects of this minute.
    async fn report_throttled(&mut self) {
        if !self.connection.is_connected() && self.unit.is_reported_connected() {
            let diagnosis = PlcDiagnosis::too_many_connects(&self.unit.config);
            self.unit.report_disconnected(diagnosis, None, self.events).await;
        }
    }

    async fn read_request(
        &mut self,
        class: u16,
        index: usize,
        request: &ReadRequest,
        part: &TagRange,
        is_first: bool,
    ) -> (ReadResult, AnswerVerdict) {
        let was_asked = self.connection.is_connected() && !self.unit.backoff.is_silent();
        let read = if is_first {
            self.read_first_request(request).await
        } else {
            self.read(request).await
        };
        if was_asked && !self.connection.is_connected() {
            // The next cycle begins behind the request that cost the session, so that one stretch
            // on which the PLC chokes does not hide those after it.
            self.unit.start_after(class, index);
        }
        let is_behind = self.unit.backoff.is_silent() && self.connection.is_connected();
        let verdict = if was_asked && !is_behind {
            self.tune(class, part, &read)
        } else {
            AnswerVerdict::Final
        };
        (read, verdict)
    }

    /// Sends the first request of a cycle.
    ///
    /// A server may have closed the connection while it was idle, and only use brings that out.
    /// So when a session that has answered before breaks here, the request goes out once more on a
    /// new one; a slow scan class would lose every other cycle otherwise.
    async fn read_first_request(&mut self, request: &ReadRequest) -> ReadResult {
        if self.unit.backoff.is_silent() || !self.connection.may_be_stale() {
            return self.read(request).await;
        }
        let exchange = self.exchange(request).await;
        if exchange.is_broken() {
            self.connection.on_closed_by_server();
            if self.connect().await {
                self.identify_new_session().await;
                return self.read(request).await;
            }
        }
        self.on_exchange(exchange).await
    }

    fn tune(&mut self, class: u16, part: &TagRange, read: &ReadResult) -> AnswerVerdict {
        if !self.connection.is_connected() && self.connection.was_closed_by_peer() {
            self.unit.tuner.on_peer_close(class, part, now());
        }
        self.unit.tuner.on_answer(class, part, &read.outcome, now())
    }

    /// Takes refused requests apart: one at least, and more until `limit`. Tags that are still
    /// under suspicion then say nothing in this cycle.
    async fn split_refused(&mut self, class: u16, limit: Instant, taken: &mut CycleValues) {
        for splits in 0..MAX_SPLITS_PER_CYCLE {
            let is_over = splits > 0 && now() > limit;
            if is_over || self.stop.is_cancelled() || !self.is_reachable() {
                break;
            }
            let Some(split) = self.unit.tuner.next_split(class) else { break };
            let [left, right] = &split.halves;
            let left = (left.request.clone(), self.read(&left.request).await);
            let right = (right.request.clone(), self.read(&right.request).await);
            let outcomes = [&left.1.outcome, &right.1.outcome];
            let verdicts = self.unit.tuner.on_split_answers(class, split, outcomes, now());
            for ((request, read), verdict) in [left, right].into_iter().zip(verdicts) {
                if verdict == AnswerVerdict::Final {
                    taken.extra.push((request, read));
                }
            }
        }
        let at = self.started.wall_time_at(now());
        let failure =
            if self.is_reachable() { ReadFailure::Pending } else { ReadFailure::Unreachable };
        for request in self.unit.tuner.unresolved_requests(class) {
            taken.extra.push((request, ReadResult { at, outcome: Err(failure) }));
        }
    }

    fn is_reachable(&self) -> bool {
        self.connection.is_connected() && !self.unit.backoff.is_silent()
    }
}

/// What a cycle has brought so far.
struct CycleValues {
    /// One for each request of the agenda.
    reads: Vec<Option<ReadResult>>,
    /// Of requests that were taken apart.
    extra: Vec<(ReadRequest, ReadResult)>,
}

impl CycleValues {
    fn new(agenda: &RequestList) -> Self {
        Self { reads: vec![None; agenda.requests.len()], extra: Vec::new() }
    }

    fn store(&mut self, index: usize, read: ReadResult, verdict: AnswerVerdict) {
        if let Some(place) = self.reads.get_mut(index) {
            *place = Some(read).filter(|_| verdict == AnswerVerdict::Final);
        }
    }

    /// The requests of the agenda as they are when all of them count, else those that do.
    fn finish(self, agenda: &RequestList) -> (Arc<[ReadRequest]>, Vec<ReadResult>) {
        if self.extra.is_empty() && self.reads.iter().all(Option::is_some) {
            return (Arc::clone(&agenda.requests), self.reads.into_iter().flatten().collect());
        }
        let asked = agenda.requests.iter().zip(self.reads);
        let asked = asked.filter_map(|(request, read)| Some((request.clone(), read?)));
        let (requests, reads): (Vec<_>, _) = asked.chain(self.extra).unzip();
        (requests.into(), reads)
    }
}
