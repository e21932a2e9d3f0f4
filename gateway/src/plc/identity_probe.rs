//! Knows the identity and program state of a Modicon, and when to request them. Pure.

use std::time::Instant;

use provisioning::plan::ReadRequest;
use provisioning::plc::PlcModel;

use super::plc_r::{self, ModiconIdentity};
use super::server::is_gateway_exception;
use super::session::RequestError;
use super::{
    PlcChange, PlcIdentity, ProgramSignature, ProgramState, ProgramStatus, REFUSED_RETRY,
    Registers, StopCause, failed_twice,
};
use crate::schedule::RetryBackoff;

/// Identity and program state of one unit.
#[derive(Debug)]
pub(super) struct IdentityProbe {
    has_plc_r: bool,
    /// The part of PLC_R that the unit answers in this session; absent until it answered one.
    status_layout: Option<StatusLayout>,
    policy: ProbePolicy,
    /// Failures of sessions over the request for the status alone.
    status_backoff: RetryBackoff,
    /// Answer of this session.
    identity: Option<PlcIdentity>,
    /// Last answer of this session.
    program: Option<ProgramStatus>,
    /// Last answers since the start of the process, to find changes.
    last_known: LastKnown,
}

/// The part of PLC_R that a unit answers.
#[derive(Clone, Copy, Debug)]
enum StatusLayout {
    /// All of it.
    Full,
    /// All but the signature of the program.
    Short,
}

/// When PLC_R is requested.
#[derive(Clone, Copy, Debug)]
enum ProbePolicy {
    /// Before anything else, so that it is known from the first value on whether the program runs.
    Immediate,
    /// After the session has answered another request: the last session broke over this one, or for
    /// another reason.
    AfterAnswer,
    /// The same, and not before a pause: sessions that had answered broke over this request.
    AfterPause(RetryBackoff),
}

/// Last answers of any session.
#[derive(Clone, Copy, Debug, Default)]
struct LastKnown {
    modicon: Option<ModiconIdentity>,
    state: Option<ProgramState>,
    signature: Option<ProgramSignature>,
}

/// The requests for the identity of a unit.
pub(super) struct Identification {
    /// To be sent in order, until one is not refused.
    pub(super) requests: &'static [ReadRequest],
    /// Whether the session had answered something before.
    pub(super) has_answered: bool,
}

impl IdentityProbe {
    pub(super) const fn new(model: PlcModel) -> Self {
        Self {
            has_plc_r: plc_r::has_plc_r(model),
            status_layout: None,
            policy: ProbePolicy::Immediate,
            status_backoff: RetryBackoff::new(&REFUSED_RETRY),
            identity: None,
            program: None,
            last_known: LastKnown { modicon: None, state: None, signature: None },
        }
    }

    /// Returns the identity, if this session has answered it.
    pub(super) const fn identity(&self) -> Option<&PlcIdentity> {
        self.identity.as_ref()
    }

    /// Returns the last known state of the program.
    pub(super) const fn program(&self) -> Option<ProgramStatus> {
        self.program
    }

    /// Returns whether the program is known not to run: its values do not change.
    pub(super) fn is_program_stopped(&self) -> bool {
        self.program.and_then(|program| program.state.is_running()) == Some(false)
    }

    /// Forgets what this session answered: another device or program may answer now.
    pub(super) fn on_new_session(&mut self) {
        (self.status_layout, self.identity, self.program) = (None, None, None);
    }

    /// Returns the requests for the identity, to be sent until one is not refused. `has_answered`
    /// tells whether this session has answered any request.
    pub(super) fn identity_requests(
        &self,
        has_answered: bool,
        now: Instant,
    ) -> &'static [ReadRequest] {
        static REQUESTS: [ReadRequest; 2] = [plc_r::FULL_IDENTITY, plc_r::SHORT_IDENTITY];
        let is_due = match self.policy {
            ProbePolicy::Immediate => true,
            ProbePolicy::AfterAnswer => has_answered,
            ProbePolicy::AfterPause(backoff) => has_answered && backoff.is_due(now),
        };
        if self.has_plc_r && is_due { &REQUESTS } else { &[] }
    }

    /// Returns whether PLC_R is still to be requested in this session.
    pub(super) const fn needs_identity(&self) -> bool {
        self.has_plc_r
            && !matches!(self.policy, ProbePolicy::Immediate)
            && self.status_layout.is_none()
    }

    /// Returns whether the state of the program can be requested.
    pub(super) const fn has_status(&self) -> bool {
        self.status_layout.is_some()
    }

    /// Returns the request for the state of the program, unless it cannot be read, or is delayed
    /// since sessions broke over it.
    pub(super) fn status_request(&self, now: Instant) -> Option<ReadRequest> {
        let is_due = self.status_backoff.is_due(now);
        self.status_layout.filter(|_| is_due).map(|layout| match layout {
            StatusLayout::Full => plc_r::FULL_STATUS,
            StatusLayout::Short => plc_r::SHORT_STATUS,
        })
    }

    /// Records the outcome of one of [`IdentityProbe::identity_requests`]. `has_answered` tells
    /// whether the session had answered any request before. Returns what changed.
    pub(super) fn on_identity_answer(
        &mut self,
        answer: &Result<Registers, RequestError>,
        has_answered: bool,
        now: Instant,
    ) -> Vec<PlcChange> {
        match answer {
            Ok(answer) => return self.on_identity(answer),
            Err(RequestError::Refused(code)) if is_gateway_exception(*code) => {}
            Err(RequestError::Refused(_)) => self.on_refused(),
            Err(_) => self.on_broken(has_answered, now),
        }
        Vec::new()
    }

    /// Records the outcome of [`IdentityProbe::status_request`]. `was_idle` tells whether nothing
    /// had been sent on the connection for a while. Returns what changed.
    pub(super) fn on_status_answer(
        &mut self,
        answer: &Result<Registers, RequestError>,
        was_idle: bool,
        now: Instant,
    ) -> Vec<PlcChange> {
        match answer {
            Ok(answer) => return self.on_status(answer),
            Err(RequestError::Refused(code)) if is_gateway_exception(*code) => {}
            Err(RequestError::Refused(_)) => self.on_status_refused(),
            // An idle connection may have been closed for that reason alone.
            Err(RequestError::Disconnected(_)) if was_idle => {}
            Err(_) => self.on_status_broken(now),
        }
        Vec::new()
    }

    /// Records the answer to one of [`IdentityProbe::identity_requests`]. Returns what changed.
    fn on_identity(&mut self, answer: &Registers) -> Vec<PlcChange> {
        self.policy = ProbePolicy::Immediate;
        let Some((modicon, program)) = plc_r::parse_identity(answer) else { return Vec::new() };
        let is_full = program.signature.is_some();
        self.status_layout = Some(if is_full { StatusLayout::Full } else { StatusLayout::Short });
        self.identity = Some(modicon.into());
        let before = self.last_known.modicon.replace(modicon);
        let mut changes = Vec::new();
        if let Some(before) = before.filter(|before| before.serial != modicon.serial) {
            changes.push(PlcChange::Device { was: before.serial, is: modicon.serial });
        }
        self.on_program(program, changes)
    }

    /// Records the answer to [`IdentityProbe::status_request`]. Returns what changed.
    fn on_status(&mut self, answer: &Registers) -> Vec<PlcChange> {
        self.status_backoff.reset();
        match plc_r::parse_status(answer) {
            Some(program) => self.on_program(program, Vec::new()),
            None => Vec::new(),
        }
    }

    /// Records that the session broke over the request for the state. After the second time in a
    /// row the state is no longer known: it could not be seen to change.
    fn on_status_broken(&mut self, now: Instant) {
        self.status_backoff.on_failure(now, 0.0);
        if self.status_backoff.failures() > 1 {
            self.program = None;
        }
    }

    /// Records that the unit refused the request for the state, which is not sent again in this
    /// session.
    const fn on_status_refused(&mut self) {
        self.status_layout = None;
        self.program = None;
    }

    /// Records that the unit refused PLC_R without harm: it is requested in the next session.
    const fn on_refused(&mut self) {
        self.policy = ProbePolicy::Immediate;
    }

    /// Records that the session broke over the request for PLC_R. `has_answered` tells whether it
    /// had answered before.
    fn on_broken(&mut self, has_answered: bool, now: Instant) {
        match &mut self.policy {
            ProbePolicy::AfterPause(backoff) => backoff.on_failure(now, 0.0),
            policy @ (ProbePolicy::Immediate | ProbePolicy::AfterAnswer) => {
                *policy = if has_answered {
                    ProbePolicy::AfterPause(failed_twice(now))
                } else {
                    ProbePolicy::AfterAnswer
                };
            }
        }
    }

    fn on_program(
        &mut self,
        program: ProgramStatus,
        mut changes: Vec<PlcChange>,
    ) -> Vec<PlcChange> {
        let ProgramStatus { state, last_stop, signature } = program;
        // A state that cannot be read again would soon be wrong.
        let can_be_read = self.status_backoff.failures() <= 1;
        self.program = Some(program).filter(|_| can_be_read);
        if let Some(is) = signature {
            let was = self.last_known.signature.replace(is);
            changes.extend(was.filter(|was| *was != is).map(|was| PlcChange::Program { was, is }));
        }
        let was = self.last_known.state.replace(state).filter(|was| *was != state);
        changes.extend(was.map(|was| PlcChange::State {
            was,
            is: state,
            cause: stop_cause(state, last_stop),
        }));
        changes
    }
}

/// Returns why a program does not run; absent for one that runs, whose last stop is past.
fn stop_cause(state: ProgramState, last_stop: Option<StopCause>) -> Option<StopCause> {
    last_stop.filter(|_| state.is_running() == Some(false))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(serial: u16, status: u16, signature: u16) -> Registers {
        let mut words = vec![0; 36];
        (words[0], words[2], words[12], words[14], words[28]) =
            (0x101A, serial, status, 4, signature);
        Registers::Words(words)
    }

    #[test]
    fn a_change_is_reported_once_also_across_sessions() {
        let mut probe = IdentityProbe::new(PlcModel::M241);
        assert_eq!(probe.on_identity(&answer(1, 2, 7)), []);
        probe.on_new_session();
        assert!(!probe.is_program_stopped() && probe.program().is_none());
        let stopped = PlcChange::State {
            was: ProgramState::Running,
            is: ProgramState::Stopped,
            cause: Some(StopCause::User),
        };
        assert_eq!(probe.on_identity(&answer(1, 1, 7)), [stopped]);
        assert!(probe.is_program_stopped());
        let download = PlcChange::Program {
            was: ProgramSignature([7, 0, 0, 0]),
            is: ProgramSignature([8, 0, 0, 0]),
        };
        assert_eq!(probe.on_identity(&answer(1, 1, 8)), [download]);
        assert_eq!(probe.on_identity(&answer(2, 1, 8)), [PlcChange::Device { was: 1, is: 2 }]);
        assert_eq!(probe.on_identity(&answer(2, 1, 8)), []);
    }

    #[test]
    fn an_identity_request_that_breaks_connections_is_retried_later_and_for_ever() {
        let mut probe = IdentityProbe::new(PlcModel::M251);
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let asks = |probe: &IdentityProbe, has_answered, at| {
            !probe.identity_requests(has_answered, at).is_empty()
        };
        assert!(asks(&probe, false, now) && !probe.needs_identity());
        probe.on_broken(false, now);
        assert!(!asks(&probe, false, now) && asks(&probe, true, now) && probe.needs_identity());
        probe.on_refused();
        assert!(!probe.needs_identity() && asks(&probe, false, now));
        probe.on_broken(true, now);
        assert!(!asks(&probe, true, now) && asks(&probe, true, later(60)));
        for _ in 0..20 {
            probe.on_broken(true, now);
        }
        assert!(!asks(&probe, true, later(3599)) && asks(&probe, true, later(3600)));
        probe.on_identity(&answer(1, 2, 7));
        assert!(asks(&probe, false, now) && !probe.needs_identity());
        assert!(!asks(&IdentityProbe::new(PlcModel::Generic), true, now));
    }

    #[test]
    fn a_status_request_that_breaks_connections_is_sent_less_often_and_the_state_unprobe() {
        let mut probe = IdentityProbe::new(PlcModel::M241);
        let now = Instant::now();
        let asks = |probe: &IdentityProbe, seconds| {
            probe.status_request(now + Duration::from_secs(seconds)).is_some()
        };
        probe.on_identity(&answer(1, 1, 7));
        probe.on_status_broken(now);
        assert!(asks(&probe, 0) && probe.is_program_stopped(), "one failure may be noise");
        probe.on_status_broken(now);
        assert!(!asks(&probe, 59) && asks(&probe, 60) && probe.program().is_none());
        probe.on_identity(&answer(1, 1, 7));
        assert!(probe.program().is_none(), "a start would not be seen");
        let status = plc_r::FULL_STATUS.count;
        let mut words = vec![0; status.into()];
        words[0] = 2;
        probe.on_status(&Registers::Words(words));
        assert!(probe.program().is_some() && asks(&probe, 0));
    }
}
