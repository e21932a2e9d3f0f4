//! Judges the requests of a cycle: what each means for the unit, its connection and its values.

use std::time::Instant;

use provisioning::plan::ReadRequest;

use super::{LossCause, ServerState};
use crate::clock::Anchor;
use crate::plc::ReadFailure;
use crate::plc::connection::{Blame, Exchange};
use crate::plc::cycle::{CompleteCycle, CycleValues, ExchangeVerdict, FollowUp};
use crate::plc::request_tuner::{AnswerVerdict, LossVerdict, SplitRequest, TagRange};

impl ServerState {
    /// Starts a cycle of a scan class.
    pub(in crate::plc) fn begin_cycle(
        &mut self,
        index: usize,
        class: u16,
        (start, anchor): (Instant, Anchor),
    ) -> Option<CycleValues> {
        let unit = self.unit_mut(index)?;
        let list = unit.tuner.next_requests(class, start)?;
        let first = if list.starts_with_scout { 0 } else { unit.next_start(class) };
        let period = unit.plan.classes.get(usize::from(class))?.period;
        Some(CycleValues::new(class, list, first, period, (start, anchor)))
    }

    /// Judges the answer to the request of a cycle at this position. Returns whom to blame if the
    /// session ended.
    pub(in crate::plc) fn on_read(
        &mut self,
        index: usize,
        values: &mut CycleValues,
        position: usize,
        exchange: Exchange,
        random: f64,
    ) -> Option<Blame> {
        let list = values.list();
        let (request, range) = (list.requests.get(position)?, list.ranges.get(position)?);
        let class = values.class();
        let sent = (exchange.sent, exchange.took);
        let received = exchange.sent + exchange.took;
        let cause = self.loss_cause(index, (class, range), &exchange, received);
        let (outcome, verdict) =
            self.on_exchange(index, request, exchange, cause, (received, random));
        let tuned = self.unit_mut(index).map(|unit| match verdict {
            ExchangeVerdict::NotSent | ExchangeVerdict::GatewayException => AnswerVerdict::Final,
            ExchangeVerdict::Answered => unit.tuner.on_answer(class, range, &outcome, received),
            ExchangeVerdict::Lost { .. } if values.is_search(position) => AnswerVerdict::Final,
            ExchangeVerdict::Lost { .. } => {
                // The next cycle starts after the request that cost the connection, so that one
                // range over which the PLC fails does not hide those after it.
                unit.start_after(class, position);
                AnswerVerdict::Final
            }
        });
        let is_final = tuned != Some(AnswerVerdict::Split);
        let result = is_final.then(|| values.result(sent, outcome));
        values.on_read(position, result);
        verdict.blame()
    }

    /// Judges the answer to a request that was answered before in the same cycle.
    pub(in crate::plc) fn on_repeated_read(
        &mut self,
        index: usize,
        request: &ReadRequest,
        exchange: Exchange,
        at: (Instant, f64),
    ) -> Option<Blame> {
        let (_, verdict) = self.on_exchange(index, request, exchange, LossCause::Unknown, at);
        verdict.blame()
    }

    /// Returns whether a session that ended did so because of the request.
    fn loss_cause(
        &mut self,
        index: usize,
        (class, range): (u16, &TagRange),
        exchange: &Exchange,
        now: Instant,
    ) -> LossCause {
        let failure = exchange.failure();
        let (Some(failure), Some(unit)) = (failure, self.unit_mut(index)) else {
            return LossCause::Unknown;
        };
        if !unit.session.has_answered && !exchange.is_repeated {
            unit.tuner.on_first_request_lost();
            return LossCause::Unknown;
        }
        match unit.tuner.on_lost(class, range, failure, now) {
            LossVerdict::Suspected => LossCause::Request,
            LossVerdict::Unexplained => LossCause::Unknown,
        }
    }

    /// Records that the request of a cycle at this position could not be repeated on a new
    /// connection: the next cycle starts after it.
    pub(in crate::plc) fn on_not_repeated(&mut self, index: usize, class: u16, position: usize) {
        if let Some(unit) = self.unit_mut(index) {
            unit.start_after(class, position);
        }
    }

    /// Returns the next refused request of a cycle to split in two.
    pub(in crate::plc) fn next_split(
        &mut self,
        index: usize,
        values: &CycleValues,
    ) -> Option<SplitRequest> {
        self.unit_mut(index)?.tuner.next_split(values.class())
    }

    /// Judges both halves of a request that was split; the second may not have been sent.
    pub(in crate::plc) fn on_split(
        &mut self,
        index: usize,
        values: &mut CycleValues,
        split: SplitRequest,
        exchanges: Vec<Exchange>,
        (now, random): (Instant, f64),
    ) -> Option<Blame> {
        let mut exchanges = exchanges.into_iter();
        let mut blame = None;
        let halves = split.halves.each_ref().map(|half| {
            let request = half.request.clone();
            let Some(exchange) = exchanges.next() else {
                return (request, values.failure(ReadFailure::Pending, now));
            };
            let sent = (exchange.sent, exchange.took);
            // The whole was refused, so that the unit answers.
            let at = (now, random);
            let (mut outcome, verdict) =
                self.on_exchange(index, &request, exchange, LossCause::Request, at);
            blame = verdict.blame().or(blame);
            if matches!(verdict, ExchangeVerdict::NotSent | ExchangeVerdict::GatewayException) {
                outcome = Err(ReadFailure::Pending);
            }
            (request, values.result(sent, outcome))
        });
        if let Some(unit) = self.unit_mut(index) {
            let outcomes = halves.each_ref().map(|(_, result)| &result.outcome);
            let verdicts = unit.tuner.on_split_answers(values.class(), split, outcomes, now);
            let halves = halves.into_iter().zip(verdicts);
            let valid = halves.filter(|(_, verdict)| *verdict == AnswerVerdict::Final);
            values.add_parts(valid.map(|(half, _)| half));
        }
        blame
    }

    /// Judges a cycle as a whole: completes its values, and returns what to request before it is
    /// passed on.
    pub(in crate::plc) fn on_cycle(
        &mut self,
        index: usize,
        values: CycleValues,
        now: Instant,
    ) -> Option<(CompleteCycle, FollowUp)> {
        let (is_open, is_reachable) = (self.is_session_open, self.is_reachable(index));
        let unit = self.unit_mut(index)?;
        if is_open {
            unit.backoff.on_complete_cycle();
        }
        if is_reachable && unit.session.has_answered {
            unit.tuner.on_complete_cycle();
        }
        Some(unit.on_cycle(values, is_reachable, now))
    }

    /// Passes a cycle on, and what was learned from it.
    pub(in crate::plc) fn end_cycle(&mut self, index: usize, cycle: CompleteCycle, now: Instant) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let is_stopped = unit.identity_probe.is_program_stopped();
        self.events.push(cycle.into_event(unit.plc(), is_stopped, now));
        unit.report_learned(&mut self.events);
    }
}
