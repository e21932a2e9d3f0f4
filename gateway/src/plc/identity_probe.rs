//! What is known of a device and of its program, since when, and how to ask. Pure.

use std::time::Instant;

use provisioning::plan::ReadRequest;
use provisioning::plc::PlcModel;

use super::plc_r::{self, ModiconIdentity};
use super::{
    PlcChange, PlcIdentity, ProgramSignature, ProgramState, ProgramStatus, Registers, StopCause,
    failed_for_sure, failed_once,
};
use crate::schedule::RetryBackoff;

/// What is known of one unit.
#[derive(Debug)]
pub(super) struct IdentityProbe {
    has_plc_r: bool,
    /// How much of PLC_R this session answers; absent when it is not a Modicon, or does not tell.
    status_layout: Option<StatusLayout>,
    policy: ProbePolicy,
    /// Sessions that told who they are broke when they were asked for the status alone.
    status_backoff: Option<RetryBackoff>,
    /// Whether asking for a name is left for good: a device that does not know the function.
    lacks_device_name: bool,
    /// Of this session.
    identity: Option<PlcIdentity>,
    program: Option<ProgramStatus>,
    /// Since the start of the process.
    last_known: LastKnown,
}

#[derive(Clone, Copy, Debug)]
enum StatusLayout {
    Full,
    Short,
}

/// When PLC_R is asked for.
#[derive(Clone, Copy, Debug)]
enum ProbePolicy {
    /// Before anything else, so that it is known from the first value on whether it stands still.
    Immediate,
    /// When the session has answered something else: the last one broke over the question, or for
    /// another reason.
    AfterAnswer,
    /// The same, and not before a pause: sessions that had answered broke over it.
    AfterPause(RetryBackoff),
}

/// What was known last, in whatever session.
#[derive(Clone, Copy, Debug, Default)]
struct LastKnown {
    modicon: Option<ModiconIdentity>,
    state: Option<ProgramState>,
    signature: Option<ProgramSignature>,
}

impl IdentityProbe {
    pub(super) const fn new(model: PlcModel) -> Self {
        Self {
            has_plc_r: plc_r::has_plc_r(model),
            status_layout: None,
            policy: ProbePolicy::Immediate,
            status_backoff: None,
            lacks_device_name: false,
            identity: None,
            program: None,
            last_known: LastKnown { modicon: None, state: None, signature: None },
        }
    }

    /// What it is, as far as this session told.
    pub(super) const fn identity(&self) -> Option<&PlcIdentity> {
        self.identity.as_ref()
    }

    /// What its program did when it was asked last.
    pub(super) const fn program(&self) -> Option<ProgramStatus> {
        self.program
    }

    /// Whether its program is known not to run: what it answers stands still.
    pub(super) fn is_program_stopped(&self) -> bool {
        self.program.and_then(|program| program.state.is_running()) == Some(false)
    }

    /// A new session: who answers now, and what runs there, is open.
    pub(super) fn on_new_session(&mut self) {
        (self.status_layout, self.identity, self.program) = (None, None, None);
    }

    /// What to ask this session, and what instead when that is refused.
    pub(super) fn identity_requests(
        &self,
        has_answered: bool,
        now: Instant,
    ) -> &'static [ReadRequest] {
        static QUESTIONS: [ReadRequest; 2] = [plc_r::FULL_IDENTITY, plc_r::SHORT_IDENTITY];
        let is_time = match self.policy {
            ProbePolicy::Immediate => true,
            ProbePolicy::AfterAnswer => has_answered,
            ProbePolicy::AfterPause(doubt) => has_answered && doubt.is_due(now),
        };
        if self.has_plc_r && is_time { &QUESTIONS } else { &[] }
    }

    /// Whether PLC_R is still to be asked for in this session.
    pub(super) const fn needs_identity(&self) -> bool {
        self.has_plc_r
            && !matches!(self.policy, ProbePolicy::Immediate)
            && self.status_layout.is_none()
    }

    /// Whether there is a status to ask for.
    pub(super) const fn has_status(&self) -> bool {
        self.status_layout.is_some()
    }

    /// The one request that tells what the program does; nothing for what is no Modicon, and for one
    /// that broke over it not long ago.
    pub(super) fn status_request(&self, now: Instant) -> Option<ReadRequest> {
        let is_time = self.status_backoff.is_none_or(|doubt| doubt.is_due(now));
        self.status_layout.filter(|_| is_time).map(|reach| match reach {
            StatusLayout::Full => plc_r::FULL_STATUS,
            StatusLayout::Short => plc_r::SHORT_STATUS,
        })
    }

    /// Takes the answer to one of [`Acquaintance::questions`].
    pub(super) fn on_identity(&mut self, answer: &Registers) -> Vec<PlcChange> {
        self.policy = ProbePolicy::Immediate;
        let Some((modicon, program)) = plc_r::parse_identity(answer) else { return Vec::new() };
        let is_whole = program.signature.is_some();
        self.status_layout = Some(if is_whole { StatusLayout::Full } else { StatusLayout::Short });
        self.identity = Some(modicon.into());
        let before = self.last_known.modicon.replace(modicon);
        let mut changes = Vec::new();
        if let Some(before) = before.filter(|before| before.serial != modicon.serial) {
            changes.push(PlcChange::Device { was: before.serial, is: modicon.serial });
        }
        self.on_program(program, changes)
    }

    /// Takes the answer to [`Acquaintance::status_question`].
    pub(super) fn on_status(&mut self, answer: &Registers) -> Vec<PlcChange> {
        self.status_backoff = None;
        match plc_r::parse_status(answer) {
            Some(program) => self.on_program(program, Vec::new()),
            None => Vec::new(),
        }
    }

    /// The session broke when it was asked for the status. Once is chance; what the program does is
    /// not known any more when it happens again.
    pub(super) fn on_status_broken(&mut self, now: Instant) {
        match &mut self.status_backoff {
            Some(doubt) => {
                doubt.on_failure(now, 0.0);
                self.program = None;
            }
            doubt @ None => *doubt = Some(failed_once(now)),
        }
    }

    /// The status is refused although it was told before: it is not asked for again in this session.
    pub(super) const fn on_status_refused(&mut self) {
        self.status_layout = None;
        self.program = None;
    }

    /// It refuses the question and is none the worse for it: only the next session is asked again.
    pub(super) const fn on_refused(&mut self) {
        self.policy = ProbePolicy::Immediate;
    }

    /// The session broke over the question, and whether it had answered before.
    pub(super) fn on_broken(&mut self, has_answered: bool, now: Instant) {
        match &mut self.policy {
            ProbePolicy::AfterPause(doubt) => doubt.on_failure(now, 0.0),
            approach @ (ProbePolicy::Immediate | ProbePolicy::AfterAnswer) => {
                *approach = if has_answered {
                    ProbePolicy::AfterPause(failed_for_sure(now))
                } else {
                    ProbePolicy::AfterAnswer
                };
            }
        }
    }

    /// Whether it is to be asked for its name in this session.
    pub(super) const fn needs_device_name(&self) -> bool {
        !self.has_plc_r && !self.lacks_device_name && self.identity.is_none()
    }

    /// It called itself so; a device that says nothing is not asked again.
    pub(super) fn on_device_name(&mut self, naming: PlcIdentity) {
        self.lacks_device_name = naming == PlcIdentity::default();
        self.identity = Some(naming).filter(|_| !self.lacks_device_name);
    }

    /// It has no name to tell.
    pub(super) const fn on_no_device_name(&mut self) {
        self.lacks_device_name = true;
    }

    fn on_program(
        &mut self,
        program: ProgramStatus,
        mut changes: Vec<PlcChange>,
    ) -> Vec<PlcChange> {
        let ProgramStatus { state, last_stop, signature } = program;
        // What cannot be looked at again is not known for long.
        let is_doubtful = self.status_backoff.is_some_and(|doubt| doubt.failures() > 1);
        self.program = Some(program).filter(|_| !is_doubtful);
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

/// Why a program does not run; of one that runs it is past.
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
    fn what_changed_is_told_once_and_across_sessions() {
        let mut known = IdentityProbe::new(PlcModel::M241);
        assert_eq!(known.on_identity(&answer(1, 2, 7)), []);
        known.on_new_session();
        assert!(!known.is_program_stopped() && known.program().is_none());
        let stopped = PlcChange::State {
            was: ProgramState::Running,
            is: ProgramState::Stopped,
            cause: Some(StopCause::User),
        };
        assert_eq!(known.on_identity(&answer(1, 1, 7)), [stopped]);
        assert!(known.is_program_stopped());
        let download = PlcChange::Program {
            was: ProgramSignature([7, 0, 0, 0]),
            is: ProgramSignature([8, 0, 0, 0]),
        };
        assert_eq!(known.on_identity(&answer(1, 1, 8)), [download]);
        assert_eq!(known.on_identity(&answer(2, 1, 8)), [PlcChange::Device { was: 1, is: 2 }]);
        assert_eq!(known.on_identity(&answer(2, 1, 8)), []);
    }

    #[test]
    fn what_costs_connections_is_asked_again_later_and_never_given_up() {
        let mut known = IdentityProbe::new(PlcModel::M251);
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let asks = |known: &IdentityProbe, has_answered, at| {
            !known.identity_requests(has_answered, at).is_empty()
        };
        assert!(asks(&known, false, now) && !known.needs_identity());
        known.on_broken(false, now);
        assert!(!asks(&known, false, now) && asks(&known, true, now) && known.needs_identity());
        known.on_refused();
        assert!(!known.needs_identity() && asks(&known, false, now));
        known.on_broken(true, now);
        assert!(!asks(&known, true, now) && asks(&known, true, later(60)));
        for _ in 0..20 {
            known.on_broken(true, now);
        }
        assert!(!asks(&known, true, later(3599)) && asks(&known, true, later(3600)));
        known.on_identity(&answer(1, 2, 7));
        assert!(asks(&known, false, now) && !known.needs_identity());
        assert!(!asks(&IdentityProbe::new(PlcModel::Generic), true, now));
    }

    #[test]
    fn a_status_that_costs_connections_is_asked_for_less_often_and_then_not_known() {
        let mut known = IdentityProbe::new(PlcModel::M241);
        let now = Instant::now();
        let asks = |known: &IdentityProbe, seconds| {
            known.status_request(now + Duration::from_secs(seconds)).is_some()
        };
        known.on_identity(&answer(1, 1, 7));
        known.on_status_broken(now);
        assert!(asks(&known, 0) && known.is_program_stopped(), "once is chance");
        known.on_status_broken(now);
        assert!(!asks(&known, 59) && asks(&known, 60) && known.program().is_none());
        known.on_identity(&answer(1, 1, 7));
        assert!(known.program().is_none(), "nobody would see it start");
        let status = plc_r::FULL_STATUS.count;
        let mut words = vec![0; status.into()];
        words[0] = 2;
        known.on_status(&Registers::Words(words));
        assert!(known.program().is_some() && asks(&known, 0));
    }

    #[test]
    fn a_device_without_a_name_is_asked_once() {
        let mut known = IdentityProbe::new(PlcModel::Generic);
        assert!(known.needs_device_name());
        known.on_device_name(PlcIdentity { vendor: "Acme".to_owned(), ..PlcIdentity::default() });
        assert!(!known.needs_device_name());
        known.on_new_session();
        assert!(known.needs_device_name(), "it may be another one");
        known.on_device_name(PlcIdentity::default());
        known.on_new_session();
        assert!(
            !known.needs_device_name() && !IdentityProbe::new(PlcModel::M241).needs_device_name()
        );
    }
}
