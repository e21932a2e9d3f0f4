use proptest::prelude::*;

use super::*;

/// Two registers, transaction 7.
const ANSWER: [u8; 13] = [0, 7, 0, 0, 0, 7, 255, 3, 4, 1, 2, 3, 4];

#[test]
fn a_script_is_applied_once_in_its_order() {
    let mut injector = FaultInjector::script([Some(Fault::Silent), None, Some(Fault::Reset)], 0);
    assert_eq!(injector.apply(&ANSWER), []);
    assert_eq!(injector.apply(&ANSWER), [AnswerStep::Send(ANSWER.to_vec())]);
    assert_eq!(injector.apply(&ANSWER).last(), Some(&AnswerStep::Reset));
    for _ in 0..10 {
        assert_eq!(injector.apply(&ANSWER), [AnswerStep::Send(ANSWER.to_vec())]);
    }
    assert_eq!(injector.faulty(), 2);
}

#[test]
fn random_faults_keep_their_rate_and_repeat_for_the_same_seed() {
    let run = |seed| {
        let mut injector = FaultInjector::random(&Fault::ALL, 0.1, seed);
        let steps: Vec<_> = (0..10_000).map(|_| injector.apply(&ANSWER)).collect();
        (steps, injector.faulty())
    };
    let seven = run(7);
    assert!((900..1100).contains(&seven.1), "{}", seven.1);
    assert!(run(7) == seven, "the same again");
    assert!(run(8) != seven, "another seed");
}

#[test]
fn pipelined_answers_get_faults_one_by_one() {
    let mut injector = FaultInjector::script([None, Some(Fault::Silent), Some(Fault::TooShort)], 1);
    let steps = injector.apply(&ANSWER.repeat(4));
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[0], AnswerStep::Send(ANSWER.to_vec()));
    assert_ne!(steps[1], AnswerStep::Send(ANSWER.to_vec()));
    assert_eq!(steps[2], AnswerStep::Send(ANSWER.to_vec()));
}

#[test]
fn a_crossed_answer_is_sent_before_the_next_one() {
    let mut injector = FaultInjector::script([Some(Fault::Crossed)], 0);
    assert_eq!(injector.apply(&ANSWER), []);
    let mut next = ANSWER;
    next[1] = 8;
    let both = [&ANSWER, &next].map(|answer| AnswerStep::Send(answer.to_vec()));
    assert_eq!(injector.apply(&next), both);
}

#[test]
fn each_fault_does_what_its_name_says() {
    let field = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    for (fault, seed) in Fault::ALL.into_iter().flat_map(|t| (0..50).map(move |seed| (t, seed))) {
        let steps = FaultInjector::random(&[fault], 1.0, seed).apply(&ANSWER);
        let sent = sent(&steps);
        let is_as_named = match fault {
            Fault::Late => {
                matches!(steps[..], [AnswerStep::Pause(_), AnswerStep::Send(_)]) && sent == ANSWER
            }
            Fault::Split => steps.len() == 5 && sent == ANSWER,
            Fault::SlowDrip => steps.len() == 2 * ANSWER.len() && sent == ANSWER,
            Fault::Merged => steps.len() == 1 && sent.len() == 26 && sent.starts_with(&ANSWER),
            Fault::Duplicated => sent == ANSWER.repeat(2),
            Fault::Unsolicited => steps.len() == 3 && sent.len() == 26 && sent != ANSWER.repeat(2),
            Fault::Crossed | Fault::Silent => steps.is_empty(),
            Fault::WrongId => field(&sent, 0) != 7 && sent[2..] == ANSWER[2..],
            Fault::WrongProtocol => field(&sent, 2) != 0 && sent[4..] == ANSWER[4..],
            Fault::WrongUnit => sent[6] != 255 && sent[7..] == ANSWER[7..],
            Fault::WrongFunction => sent[7] != 3 && sent[8..] == ANSWER[8..],
            Fault::TooShort => sent.len() == 11 && field(&sent, 4) == 5,
            Fault::TooLong => sent.len() == 15 && field(&sent, 4) == 9,
            Fault::Oversize => {
                let length = field(&sent, 4);
                length > 254 && [13, usize::from(length) + 6].contains(&sent.len())
            }
            Fault::Truncated => {
                steps.ends_with(&[AnswerStep::GoSilent]) && ANSWER[..12].starts_with(&sent)
            }
            Fault::Reset => {
                steps.ends_with(&[AnswerStep::Reset]) && ANSWER[..12].starts_with(&sent)
            }
            Fault::Exception => sent.len() == 9 && sent[7] == 0x83 && (1..=11).contains(&sent[8]),
            Fault::MalformedException => sent[7] == 0x80 || sent.len() != 9 || sent[8] > 11,
        };
        assert!(is_as_named, "{} with seed {seed}: {steps:?}", fault.name());
    }
}

proptest! {
    #[test]
    fn every_fault_can_be_injected_into_any_frame(
        pdu in prop::collection::vec(any::<u8>(), 1..=253),
        seed: u64,
    ) {
        let length = u16::try_from(pdu.len() + 1).unwrap().to_be_bytes();
        let answer = [&[0, 1, 0, 0], &length[..], &[255], &pdu].concat();
        for fault in Fault::ALL {
            let mut injector = FaultInjector::random(&[fault], 1.0, seed);
            let pauses = injector.apply(&answer).into_iter().filter_map(|step| match step {
                AnswerStep::Pause(pause) => Some(pause),
                AnswerStep::Send(_) | AnswerStep::GoSilent | AnswerStep::Reset => None,
            });
            prop_assert!(pauses.max().unwrap_or_default() <= MAX_DELAY);
        }
    }
}

fn sent(steps: &[AnswerStep]) -> Vec<u8> {
    let bytes = steps.iter().filter_map(|step| match step {
        AnswerStep::Send(bytes) => Some(&bytes[..]),
        AnswerStep::Pause(_) | AnswerStep::GoSilent | AnswerStep::Reset => None,
    });
    bytes.collect::<Vec<_>>().concat()
}
