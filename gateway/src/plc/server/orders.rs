//! Judges the requests of write orders: what each means for the unit and its connection.

use std::time::Instant;

use provisioning::plan::ReadRequest;
use provisioning::plc::Table;

use super::{LossCause, ServerState};
use crate::model::{NotSentReason, PlcOrder, Sentence};
use crate::plc::connection::{Blame, Exchange};
use crate::plc::order_execution::WriteAnswer;
use crate::plc::session::{RequestError, WriteRequest};
use crate::plc::{PlcDiagnosis, ReadOutcome};

/// The PLC accepted the request, and carries it out later (Modbus Application Protocol V1.1b3, 7).
const ACKNOWLEDGE: u8 = 5;
/// A device between the gateway and the unit got no answer from the unit.
const TARGET_FAILED_TO_RESPOND: u8 = 0x0B;

impl ServerState {
    /// Returns the unit with this index in `config::Config::plcs`.
    pub(in crate::plc) fn unit_of(&self, plc: u16) -> Option<usize> {
        self.units.iter().position(|unit| unit.plc() == plc)
    }

    /// Returns why an order cannot be sent to a unit now: that is silent or not connected, or has
    /// another program.
    pub(in crate::plc) fn order_obstacle(
        &self,
        index: usize,
        order: &PlcOrder,
    ) -> Option<NotSentReason> {
        if !self.is_reachable(index) {
            return Some(self.unreachable(index));
        }
        let program = self.unit(index)?.identity_probe.program();
        let signature = program.and_then(|program| program.signature);
        let is_accepted = order.program.is_none_or(|accepted| signature == Some(accepted));
        (!is_accepted).then_some(NotSentReason::ProgramChanged)
    }

    /// Returns why the unit cannot be reached.
    pub(in crate::plc) fn unreachable(&self, index: usize) -> NotSentReason {
        let diagnosis = self.unit(index).map(|unit| {
            let reported = unit.reported_diagnosis().cloned();
            reported.unwrap_or_else(|| PlcDiagnosis::too_many_connects(&unit.config))
        });
        let sentence = diagnosis.as_ref().map(Sentence::new);
        sentence.map_or(NotSentReason::Stopping, NotSentReason::Unreachable)
    }

    /// Judges the answer to a read of an order.
    ///
    /// A device may drop the connection over an address that it does not let be read: when the
    /// session ends over it for the second time, neither the unit nor the server has failed.
    pub(in crate::plc) fn on_order_read(
        &mut self,
        index: usize,
        request: &ReadRequest,
        exchange: Exchange,
        at: (Instant, f64),
    ) -> (ReadOutcome, Option<Blame>) {
        let range = range_of(request);
        let is_lost = exchange.failure().is_some();
        let mut cause = LossCause::Unknown;
        if let Some(unit) = self.unit_mut(index).filter(|_| exchange.answer.is_some()) {
            if !is_lost {
                unit.lost_reads.on_answered(range);
            } else if unit.lost_reads.overlaps(range) {
                cause = LossCause::Request;
            } else if unit.session.has_answered || exchange.is_repeated {
                unit.lost_reads.on_lost(range);
            }
        }
        let (outcome, verdict) = self.on_exchange(index, request, exchange, cause, at);
        (outcome, verdict.blame())
    }

    /// Returns whether the session ended over the last read of one of these registers for an order.
    pub(in crate::plc) fn is_lost_read(&self, index: usize, request: &ReadRequest) -> bool {
        self.unit(index).is_some_and(|unit| unit.lost_reads.overlaps(range_of(request)))
    }

    /// Returns whether the session ended over the last write to one of these registers or coils.
    pub(in crate::plc) fn is_lost_write(&self, index: usize, request: &WriteRequest) -> bool {
        self.unit(index).is_some_and(|unit| unit.lost_writes.overlaps(request.range()))
    }

    /// Judges the answer to a write; `None` when it was not sent.
    ///
    /// A device may drop the connection over a write that it rejects, so that a unit that had
    /// answered is not taken for a silent one.
    pub(in crate::plc) fn on_order_write(
        &mut self,
        index: usize,
        request: &WriteRequest,
        exchange: Exchange<()>,
        at: (Instant, f64),
    ) -> (Option<WriteAnswer>, Option<Blame>) {
        let answer = exchange.answer.as_ref().and_then(to_write_answer);
        let is_lost = answer.is_some() && exchange.failure().is_some();
        let mut cause = LossCause::Unknown;
        if let Some(unit) = self.unit_mut(index).filter(|_| answer.is_some()) {
            let was_lost = unit.lost_writes.overlaps(request.range());
            if was_lost || unit.session.has_answered || exchange.is_repeated {
                cause = LossCause::Request;
            }
            if is_lost {
                unit.lost_writes.on_lost(request.range());
            } else {
                unit.lost_writes.on_answered(request.range());
            }
        }
        let range = request.to_read_request();
        let (_, verdict) = self.on_exchange(index, &range, exchange, cause, at);
        (answer, verdict.blame())
    }
}

fn range_of(request: &ReadRequest) -> (Table, u16, usize) {
    (request.table, request.first, request.count.into())
}

/// Returns what became of a write; `None` when it was not sent.
fn to_write_answer(answer: &Result<(), RequestError>) -> Option<WriteAnswer> {
    match answer {
        Ok(()) => Some(WriteAnswer::Acknowledged),
        Err(RequestError::NotSent(_)) => None,
        Err(RequestError::Refused(ACKNOWLEDGE | TARGET_FAILED_TO_RESPOND)) => {
            Some(WriteAnswer::Missing)
        }
        Err(RequestError::Refused(code)) => Some(WriteAnswer::Refused(*code)),
        Err(
            RequestError::TimedOut(_) | RequestError::Garbled(_) | RequestError::Disconnected(_),
        ) => Some(WriteAnswer::Missing),
    }
}
