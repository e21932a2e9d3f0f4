//! The execution of an order at its PLC: compare, read what must be kept, write, read back. Pure:
//! it says what to send next, and is told what was answered.

mod registers;
#[cfg(test)]
mod tests;

use std::time::Instant;

use provisioning::config;
use provisioning::plan::ReadRequest;

use super::session::WriteRequest;
use super::{ReadFailure, ReadOutcome};
use crate::codec;
use crate::model::{
    ImageReport, ImageState, NotSentReason, OrderOutcome, OrderReport, OrderTask, PlcOrder,
    TagImage, UnixTime,
};
use registers::{RegisterMap, RegisterSpan, spans, write_requests};

/// An order on its way: which of its requests were sent, and what was answered.
///
/// Each write request is sent at most once. After the first that is not acknowledged no further one
/// is sent.
#[derive(Debug)]
pub(super) struct OrderExecution {
    order: PlcOrder,
    settings: config::Plc,
    phase: ExecutionPhase,
    /// Reads before the first write.
    reads: Vec<RegisterSpan>,
    before: RegisterMap,
    writes: Vec<PlannedWrite>,
    read_backs: Vec<RegisterSpan>,
    after: RegisterMap,
    outcome: Option<OrderOutcome>,
}

/// A write request, and what became of it.
#[derive(Debug)]
struct PlannedWrite {
    request: WriteRequest,
    state: ImageState,
}

/// Each with the index of the next request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ExecutionPhase {
    Reading(usize),
    Writing(usize),
    ReadingBack(usize),
    Finished,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum ExecutionStep {
    Read(ReadRequest),
    Write(WriteRequest),
    /// Nothing is left to be sent.
    Finish,
}

/// What became of a write request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WriteAnswer {
    Acknowledged,
    /// The PLC refused it with this exception code.
    Refused(u8),
    /// It was sent, and no valid answer arrived: the PLC may have carried it out.
    Missing,
}

/// Whether an order reads the registers before it writes, even if it need not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReadFirst {
    /// Only what has to be compared or kept.
    AsNeeded,
    /// The server may have closed the connection while it was idle. That must not cost a write its
    /// answer, so a read goes first.
    Always,
}

impl OrderExecution {
    pub(super) fn new(order: PlcOrder, settings: &config::Plc, read_first: ReadFirst) -> Self {
        let read_backs = spans(&order.write, settings);
        let mut before: Vec<TagImage> = order.expect.clone();
        before.extend(registers::incomplete(&order.write));
        let mut reads = spans(&before, settings);
        if reads.is_empty() && read_first == ReadFirst::Always {
            reads.extend(read_backs.first().copied());
        }
        let (phase, outcome) = match order.task {
            OrderTask::Write | OrderTask::ReadAll => (ExecutionPhase::Reading(0), None),
            OrderTask::ReadBack => (ExecutionPhase::ReadingBack(0), Some(OrderOutcome::Unknown)),
        };
        Self {
            order,
            settings: settings.clone(),
            phase,
            reads,
            before: RegisterMap::default(),
            writes: Vec::new(),
            read_backs,
            after: RegisterMap::default(),
            outcome,
        }
    }

    pub(super) const fn order(&self) -> &PlcOrder {
        &self.order
    }

    /// Returns whether a write request was sent, or may have been by an earlier order.
    pub(super) const fn is_read_back_due(&self) -> bool {
        matches!(self.phase, ExecutionPhase::ReadingBack(_))
    }

    /// Returns the time after which the next write must not be sent. What was begun is completed:
    /// once a part is written, there is no limit.
    pub(super) const fn write_limit(&self) -> Option<Instant> {
        match self.phase {
            ExecutionPhase::Reading(_) | ExecutionPhase::Writing(0) => self.order.not_after,
            ExecutionPhase::Writing(_)
            | ExecutionPhase::ReadingBack(_)
            | ExecutionPhase::Finished => None,
        }
    }

    /// Returns what to send next, and for as long as that is not answered.
    pub(super) fn next_step(&mut self, now: Instant) -> ExecutionStep {
        if let ExecutionPhase::Reading(index) = self.phase {
            if let Some(span) = self.reads.get(index) {
                return ExecutionStep::Read(span.to_request());
            }
            self.begin_writing(now);
        }
        if let ExecutionPhase::Writing(index) = self.phase {
            match self.writes.get(index) {
                Some(write) => return ExecutionStep::Write(write.request.clone()),
                None => self.begin_read_back(OrderOutcome::Done),
            }
        }
        match self.phase {
            ExecutionPhase::ReadingBack(index) => match self.read_backs.get(index) {
                Some(span) => ExecutionStep::Read(span.to_request()),
                None => self.finish(),
            },
            ExecutionPhase::Reading(_) | ExecutionPhase::Writing(_) | ExecutionPhase::Finished => {
                ExecutionStep::Finish
            }
        }
    }

    /// Takes the answer to a read, or why there is none.
    pub(super) fn on_read(&mut self, outcome: ReadOutcome) {
        match self.phase {
            ExecutionPhase::Reading(index) => {
                let Some(span) = self.reads.get(index).copied() else { return };
                match outcome {
                    Ok(registers) => self.before.insert(span, &registers),
                    // A read that is only to test the connection need not succeed.
                    Err(ReadFailure::Refused(_) | ReadFailure::Busy) if !self.is_needed(span) => {}
                    Err(ReadFailure::Refused(code)) => {
                        return self.end(OrderOutcome::Refused(code));
                    }
                    Err(ReadFailure::Busy) => return self.end(OrderOutcome::Refused(SERVER_BUSY)),
                    Err(ReadFailure::Unreachable | ReadFailure::Pending) => return,
                }
                self.phase = ExecutionPhase::Reading(index + 1);
            }
            ExecutionPhase::ReadingBack(index) => {
                let Some(span) = self.read_backs.get(index).copied() else { return };
                match outcome {
                    Ok(registers) => self.after.insert(span, &registers),
                    Err(ReadFailure::Unreachable | ReadFailure::Pending) => return,
                    Err(ReadFailure::Refused(_) | ReadFailure::Busy) => {}
                }
                self.phase = ExecutionPhase::ReadingBack(index + 1);
            }
            ExecutionPhase::Writing(_) | ExecutionPhase::Finished => {}
        }
    }

    /// Takes that the session ended over a read of registers over which one had ended before. What
    /// cannot be read back is left out of the report.
    pub(super) fn on_read_lost(&mut self) {
        match self.phase {
            ExecutionPhase::Reading(_) => {
                self.end(OrderOutcome::NotSent(NotSentReason::LosesConnection));
            }
            ExecutionPhase::ReadingBack(index) if index + 1 < self.read_backs.len() => {
                self.phase = ExecutionPhase::ReadingBack(index + 1);
            }
            ExecutionPhase::ReadingBack(_) => self.phase = ExecutionPhase::Finished,
            ExecutionPhase::Writing(_) | ExecutionPhase::Finished => {}
        }
    }

    /// Leaves out a read that was only to test the connection. Returns whether it was.
    pub(super) fn skip_test_read(&mut self) -> bool {
        let ExecutionPhase::Reading(index) = self.phase else { return false };
        let is_test = self.reads.get(index).is_some_and(|span| !self.is_needed(*span));
        if is_test {
            self.phase = ExecutionPhase::Reading(index + 1);
        }
        is_test
    }

    /// Takes what became of a write that was sent.
    pub(super) fn on_write(&mut self, answer: WriteAnswer) {
        let ExecutionPhase::Writing(index) = self.phase else { return };
        let Some(write) = self.writes.get_mut(index) else { return };
        let (state, outcome) = match answer {
            WriteAnswer::Acknowledged => {
                write.state = ImageState::Written;
                self.phase = ExecutionPhase::Writing(index + 1);
                return;
            }
            WriteAnswer::Refused(code) => (ImageState::Refused(code), OrderOutcome::Refused(code)),
            WriteAnswer::Missing => (ImageState::Unknown, OrderOutcome::Unknown),
        };
        write.state = state;
        self.begin_read_back(outcome);
    }

    /// Ends the execution of an order that reads all tags.
    pub(super) fn on_all_read(&mut self) {
        self.end(OrderOutcome::Done);
    }

    /// Ends an order that cannot go on, for this reason: nothing more is written. What was written
    /// in part is still to be read back, which another call ends.
    pub(super) fn on_abandoned(&mut self, reason: NotSentReason) {
        match self.phase {
            ExecutionPhase::Writing(index) if index > 0 => {
                self.begin_read_back(OrderOutcome::Partial(reason));
            }
            ExecutionPhase::Reading(_) | ExecutionPhase::Writing(_) => {
                self.end(OrderOutcome::NotSent(reason));
            }
            ExecutionPhase::ReadingBack(_) | ExecutionPhase::Finished => {
                self.phase = ExecutionPhase::Finished;
            }
        }
    }

    /// Returns the report, at the time of the last answer.
    pub(super) fn into_report(self, at: UnixTime) -> OrderReport {
        let images = self.order.write.iter().map(|image| ImageReport {
            state: self.state_of(image),
            read: self.after.registers_of(image),
        });
        let images = images.collect();
        let found = self.order.expect.iter().map(|image| self.before.registers_of(image));
        let found = found.collect();
        let outcome = self.outcome.unwrap_or(OrderOutcome::NotSent(NotSentReason::Stopping));
        let PlcOrder { number, plc, .. } = self.order;
        OrderReport { number, plc, outcome, found, images, at }
    }

    /// Compares what was read, and plans the writes.
    fn begin_writing(&mut self, now: Instant) {
        let is_held = |image: &TagImage| self.is_held(image);
        if !self.order.expect.iter().all(is_held) {
            return self.end(OrderOutcome::ExpectationFailed);
        }
        if self.write_limit().is_some_and(|limit| limit < now) {
            return self.end(OrderOutcome::NotSent(NotSentReason::Expired));
        }
        let requests = write_requests(&self.order.write, &self.before, &self.settings);
        let planned = |request| PlannedWrite { request, state: ImageState::NotSent };
        self.writes = requests.into_iter().map(planned).collect();
        self.phase = ExecutionPhase::Writing(0);
    }

    /// Returns whether the PLC held an image that was expected.
    fn is_held(&self, image: &TagImage) -> bool {
        let Some(found) = self.before.registers_of(image) else { return false };
        let tag = image.tag.and_then(|index| self.settings.tags.get(usize::from(index)));
        match tag {
            Some(tag) => codec::holds_image(tag, &found, image),
            None => found == image.to_registers(),
        }
    }

    /// Returns whether a register of the span has to be compared or kept.
    fn is_needed(&self, span: RegisterSpan) -> bool {
        let incomplete = registers::incomplete(&self.order.write);
        self.order.expect.iter().chain(&incomplete).any(|image| span.overlaps(image))
    }

    fn begin_read_back(&mut self, outcome: OrderOutcome) {
        self.outcome = Some(outcome);
        self.phase = ExecutionPhase::ReadingBack(0);
    }

    fn end(&mut self, outcome: OrderOutcome) {
        self.outcome = Some(outcome);
        self.phase = ExecutionPhase::Finished;
    }

    fn finish(&mut self) -> ExecutionStep {
        self.phase = ExecutionPhase::Finished;
        ExecutionStep::Finish
    }

    /// Returns the worst state of the requests with a part of an image. One that was written in
    /// part may be anything.
    fn state_of(&self, image: &TagImage) -> ImageState {
        if self.order.task == OrderTask::ReadBack {
            return ImageState::Unknown;
        }
        let parts =
            self.writes.iter().filter(|write| registers::overlap(write.request.range(), image));
        let states = parts.map(|write| write.state);
        states.reduce(worse).unwrap_or(ImageState::NotSent)
    }
}

/// Exception 6: the server is busy (Modbus Application Protocol V1.1b3, 7).
const SERVER_BUSY: u8 = 6;

/// Returns the state of an image of which one part has this state, and another part that.
fn worse(one: ImageState, other: ImageState) -> ImageState {
    match (one, other) {
        (one, other) if one == other => one,
        _ => ImageState::Unknown,
    }
}
