//! What is known of a device and of its program, since when, and how to ask. Pure.

use std::time::Instant;

use provisioning::plan::ReadRequest;
use provisioning::plc::Model;

use super::identity::{
    self, Identity, Modicon, Naming, Program, ProgramState, Signature, StopCause,
};
use super::learning::doubt::Doubt;
use super::{Change, Registers};

/// What is known of one unit.
#[derive(Debug)]
pub(super) struct Acquaintance {
    has_plc_r: bool,
    /// How much of PLC_R this session answers; absent when it is not a Modicon, or does not tell.
    reach: Option<Reach>,
    approach: Approach,
    /// Sessions that told who they are broke when they were asked for the status alone.
    status_doubt: Option<Doubt>,
    /// Whether asking for a name is left for good: a device that does not know the function.
    is_nameless: bool,
    /// Of this session.
    identity: Option<Identity>,
    program: Option<Program>,
    /// Since the start of the process.
    memory: Memory,
}

#[derive(Clone, Copy, Debug)]
enum Reach {
    Whole,
    Short,
}

/// When PLC_R is asked for.
#[derive(Clone, Copy, Debug)]
enum Approach {
    /// Before anything else, so that it is known from the first value on whether it stands still.
    First,
    /// When the session has answered something else: the last one broke over the question, or for
    /// another reason.
    Later,
    /// The same, and not before a pause: sessions that had answered broke over it.
    Doubtful(Doubt),
}

/// What was known last, in whatever session.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    modicon: Option<Modicon>,
    state: Option<ProgramState>,
    signature: Option<Signature>,
}

impl Acquaintance {
    pub(super) const fn new(model: Model) -> Self {
        Self {
            has_plc_r: identity::is_told_by(model),
            reach: None,
            approach: Approach::First,
            status_doubt: None,
            is_nameless: false,
            identity: None,
            program: None,
            memory: Memory { modicon: None, state: None, signature: None },
        }
    }

    /// What it is, as far as this session told.
    pub(super) const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// What its program did when it was asked last.
    pub(super) const fn program(&self) -> Option<Program> {
        self.program
    }

    /// Whether its program is known not to run: what it answers stands still.
    pub(super) fn stands_still(&self) -> bool {
        self.program.and_then(|program| program.state.runs()) == Some(false)
    }

    /// A new session: who answers now, and what runs there, is open.
    pub(super) fn forget_session(&mut self) {
        (self.reach, self.identity, self.program) = (None, None, None);
    }

    /// What to ask this session, and what instead when that is refused.
    pub(super) fn questions(&self, has_answered: bool, now: Instant) -> &'static [ReadRequest] {
        static QUESTIONS: [ReadRequest; 2] = [identity::WHOLE, identity::SHORT];
        let is_time = match self.approach {
            Approach::First => true,
            Approach::Later => has_answered,
            Approach::Doubtful(doubt) => has_answered && doubt.is_due(now),
        };
        if self.has_plc_r && is_time { &QUESTIONS } else { &[] }
    }

    /// Whether PLC_R is still to be asked for in this session.
    pub(super) const fn is_stranger(&self) -> bool {
        self.has_plc_r && !matches!(self.approach, Approach::First) && self.reach.is_none()
    }

    /// Whether there is a status to ask for.
    pub(super) const fn tells_status(&self) -> bool {
        self.reach.is_some()
    }

    /// The one request that tells what the program does; nothing for what is no Modicon, and for one
    /// that broke over it not long ago.
    pub(super) fn status_question(&self, now: Instant) -> Option<ReadRequest> {
        let is_time = self.status_doubt.is_none_or(|doubt| doubt.is_due(now));
        self.reach.filter(|_| is_time).map(|reach| match reach {
            Reach::Whole => identity::WHOLE_STATUS,
            Reach::Short => identity::SHORT_STATUS,
        })
    }

    /// Takes the answer to one of [`Acquaintance::questions`].
    pub(super) fn introduced(&mut self, answer: &Registers) -> Vec<Change> {
        self.approach = Approach::First;
        let Some((modicon, program)) = identity::parse(answer) else { return Vec::new() };
        let is_whole = program.signature.is_some();
        self.reach = Some(if is_whole { Reach::Whole } else { Reach::Short });
        self.identity = Some(Identity::Modicon(modicon));
        let before = self.memory.modicon.replace(modicon);
        let mut changes = Vec::new();
        if let Some(before) = before.filter(|before| before.serial != modicon.serial) {
            changes.push(Change::Device { was: before.serial, is: modicon.serial });
        }
        self.runs(program, changes)
    }

    /// Takes the answer to [`Acquaintance::status_question`].
    pub(super) fn status(&mut self, answer: &Registers) -> Vec<Change> {
        self.status_doubt = None;
        match identity::parse_status(answer) {
            Some(program) => self.runs(program, Vec::new()),
            None => Vec::new(),
        }
    }

    /// The session broke when it was asked for the status. Once is chance; what the program does is
    /// not known any more when it happens again.
    pub(super) fn status_broke(&mut self, now: Instant) {
        match &mut self.status_doubt {
            Some(doubt) => {
                doubt.fail(now);
                self.program = None;
            }
            doubt @ None => *doubt = Some(Doubt::new(now)),
        }
    }

    /// The status is refused although it was told before: it is not asked for again in this session.
    pub(super) const fn status_refused(&mut self) {
        self.reach = None;
        self.program = None;
    }

    /// It refuses the question and is none the worse for it: only the next session is asked again.
    pub(super) const fn refused(&mut self) {
        self.approach = Approach::First;
    }

    /// The session broke over the question, and whether it had answered before.
    pub(super) fn broke(&mut self, has_answered: bool, now: Instant) {
        match &mut self.approach {
            Approach::Doubtful(doubt) => doubt.fail(now),
            approach @ (Approach::First | Approach::Later) => {
                *approach = if has_answered {
                    Approach::Doubtful(Doubt::confirmed(now))
                } else {
                    Approach::Later
                };
            }
        }
    }

    /// Whether it is to be asked for its name in this session.
    pub(super) const fn wants_a_name(&self) -> bool {
        !self.has_plc_r && !self.is_nameless && self.identity.is_none()
    }

    /// It called itself so; a device that says nothing is not asked again.
    pub(super) fn named(&mut self, naming: Naming) {
        self.is_nameless = naming == Naming::default();
        self.identity = Some(Identity::Named(naming)).filter(|_| !self.is_nameless);
    }

    /// It has no name to tell.
    pub(super) const fn has_no_name(&mut self) {
        self.is_nameless = true;
    }

    fn runs(&mut self, program: Program, mut changes: Vec<Change>) -> Vec<Change> {
        let Program { state, last_stop, signature } = program;
        // What cannot be looked at again is not known for long.
        let is_doubtful = self.status_doubt.is_some_and(|doubt| doubt.is_confirmed());
        self.program = Some(program).filter(|_| !is_doubtful);
        if let Some(is) = signature {
            let was = self.memory.signature.replace(is);
            changes.extend(was.filter(|was| *was != is).map(|was| Change::Program { was, is }));
        }
        let was = self.memory.state.replace(state).filter(|was| *was != state);
        changes.extend(was.map(|was| Change::State {
            was,
            is: state,
            cause: cause(state, last_stop),
        }));
        changes
    }
}

/// Why a program does not run; of one that runs it is past.
fn cause(state: ProgramState, last_stop: Option<StopCause>) -> Option<StopCause> {
    last_stop.filter(|_| state.runs() == Some(false))
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
        let mut known = Acquaintance::new(Model::M241);
        assert_eq!(known.introduced(&answer(1, 2, 7)), []);
        known.forget_session();
        assert!(!known.stands_still() && known.program().is_none());
        let stopped = Change::State {
            was: ProgramState::Running,
            is: ProgramState::Stopped,
            cause: Some(StopCause::User),
        };
        assert_eq!(known.introduced(&answer(1, 1, 7)), [stopped]);
        assert!(known.stands_still());
        let download =
            Change::Program { was: Signature([7, 0, 0, 0]), is: Signature([8, 0, 0, 0]) };
        assert_eq!(known.introduced(&answer(1, 1, 8)), [download]);
        assert_eq!(known.introduced(&answer(2, 1, 8)), [Change::Device { was: 1, is: 2 }]);
        assert_eq!(known.introduced(&answer(2, 1, 8)), []);
    }

    #[test]
    fn what_costs_connections_is_asked_again_later_and_never_given_up() {
        let mut known = Acquaintance::new(Model::M251);
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let asks =
            |known: &Acquaintance, has_answered, at| !known.questions(has_answered, at).is_empty();
        assert!(asks(&known, false, now) && !known.is_stranger());
        known.broke(false, now);
        assert!(!asks(&known, false, now) && asks(&known, true, now) && known.is_stranger());
        known.refused();
        assert!(!known.is_stranger() && asks(&known, false, now));
        known.broke(true, now);
        assert!(!asks(&known, true, now) && asks(&known, true, later(60)));
        for _ in 0..20 {
            known.broke(true, now);
        }
        assert!(!asks(&known, true, later(3599)) && asks(&known, true, later(3600)));
        known.introduced(&answer(1, 2, 7));
        assert!(asks(&known, false, now) && !known.is_stranger());
        assert!(!asks(&Acquaintance::new(Model::Generic), true, now));
    }

    #[test]
    fn a_status_that_costs_connections_is_asked_for_less_often_and_then_not_known() {
        let mut known = Acquaintance::new(Model::M241);
        let now = Instant::now();
        let asks = |known: &Acquaintance, seconds| {
            known.status_question(now + Duration::from_secs(seconds)).is_some()
        };
        known.introduced(&answer(1, 1, 7));
        known.status_broke(now);
        assert!(asks(&known, 0) && known.stands_still(), "once is chance");
        known.status_broke(now);
        assert!(!asks(&known, 59) && asks(&known, 60) && known.program().is_none());
        known.introduced(&answer(1, 1, 7));
        assert!(known.program().is_none(), "nobody would see it start");
        let status = identity::WHOLE_STATUS.count;
        let mut words = vec![0; status.into()];
        words[0] = 2;
        known.status(&Registers::Words(words));
        assert!(known.program().is_some() && asks(&known, 0));
    }

    #[test]
    fn a_device_without_a_name_is_asked_once() {
        let mut known = Acquaintance::new(Model::Generic);
        assert!(known.wants_a_name());
        known.named(Naming { vendor: "Acme".to_owned(), ..Naming::default() });
        assert!(!known.wants_a_name());
        known.forget_session();
        assert!(known.wants_a_name(), "it may be another one");
        known.named(Naming::default());
        known.forget_session();
        assert!(!known.wants_a_name() && !Acquaintance::new(Model::M241).wants_a_name());
    }
}
