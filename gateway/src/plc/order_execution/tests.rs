use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use provisioning::plc::{IecType, PlcModel, Table};
use serde_json::json;

use super::*;
use crate::model::{ImageContent, MaskedWord, Registers};
use crate::plc::tests::support;

#[test]
fn images_that_adjoin_are_written_in_one_request() {
    let order = order(&[words(20, &[1, 2]), words(22, &[3]), words(30, &[4])]);
    let mut memory = OrderMemory::default();
    let report = memory.execute(order, "M241");
    assert_eq!(memory.log, ["write 20 3", "write 30 1", "read 20 3", "read 30 1"]);
    assert_eq!(report.outcome, OrderOutcome::Done);
    let read: Vec<_> = report.images.into_iter().map(|image| image.read).collect();
    let expected = [vec![1, 2], vec![3], vec![4]].map(|words| Some(Registers::Words(words)));
    assert_eq!(read, expected);
}

#[test]
fn a_part_of_a_word_is_read_changed_and_written() {
    let bit = part(20, 0x0008, 0x0008);
    let mut memory = OrderMemory::default();
    memory.words.insert((Table::HoldingRegister, 20), 0x5A51);
    let report = memory.execute(order(&[bit]), "M241");
    assert_eq!(memory.log, ["read 20 1", "write 20 1", "read 20 1"]);
    assert_eq!(memory.words[&(Table::HoldingRegister, 20)], 0x5A59);
    assert_eq!(report.images[0].read, Some(Registers::Words(vec![0x5A59])));
}

#[test]
fn two_halves_of_a_word_need_no_read() {
    let mut memory = OrderMemory::default();
    memory.words.insert((Table::HoldingRegister, 20), 0x5A5A);
    memory.execute(order(&[part(20, 0x0011, 0x00FF), part(20, 0x2200, 0xFF00)]), "M241");
    assert_eq!(memory.log, ["write 20 1", "read 20 1"]);
    assert_eq!(memory.words[&(Table::HoldingRegister, 20)], 0x2211);
}

#[test]
fn no_request_crosses_an_area_or_is_longer_than_the_protocol_allows() {
    let mut memory = OrderMemory::default();
    memory.execute(order(&[words(62_199, &[1]), words(62_200, &[2])]), "M241");
    assert_eq!(memory.log[..2], ["write 62199 1", "write 62200 1"]);
    let mut memory = OrderMemory::default();
    memory.execute(order(&[words(0, &[7; 125])]), "M241");
    assert_eq!(memory.log, ["write 0 123", "write 123 2", "read 0 125"]);
    let many: Vec<_> = (0..70).map(|at| words(at * 2, &[at, at])).collect();
    let mut memory = OrderMemory::default();
    memory.execute(order(&many), "M241");
    assert_eq!(memory.log, ["write 0 120", "write 120 20", "read 0 120", "read 120 20"]);
}

#[test]
fn nothing_is_written_unless_the_plc_holds_what_is_expected() {
    let expect = |word| PlcOrder { expect: vec![words(40, &[word])], ..order(&[words(20, &[1])]) };
    let mut memory = OrderMemory::default();
    memory.words.insert((Table::HoldingRegister, 40), 7);
    let report = memory.execute(expect(8), "M241");
    assert_eq!(memory.log, ["read 40 1"]);
    assert_eq!(report.outcome, OrderOutcome::ExpectationFailed);
    assert_eq!(report.found, [Some(Registers::Words(vec![7]))]);
    assert_eq!(report.images[0].state, ImageState::NotSent);
    let report = memory.execute(expect(7), "M241");
    assert_eq!(report.outcome, OrderOutcome::Done);
}

#[test]
fn what_is_expected_is_compared_as_it_is_published() {
    let mut plc = support::plc("M241", &[("%MW40", 1000)]);
    let tag = &mut Arc::make_mut(&mut plc.tags)[0];
    tag.data_type = IecType::Real.into();
    tag.location = PlcModel::M241.locate("%MW40", IecType::Real).unwrap();
    tag.decimals = Some(1);
    let image = codec::encode_tag(0, tag, &json!(20.1)).unwrap();
    let bits = 20.13_f32.to_bits().to_le_bytes();
    let mut memory = OrderMemory::default();
    for (at, bytes) in (40..).zip(bits.as_chunks().0) {
        memory.words.insert((Table::HoldingRegister, at), u16::from_le_bytes(*bytes));
    }
    let order = PlcOrder { expect: vec![image], ..order(&[words(20, &[1])]) };
    let report = memory.execute_plc(order, &plc, ReadFirst::AsNeeded);
    assert_eq!(report.outcome, OrderOutcome::Done);
}

#[test]
fn a_read_back_reads_and_writes_nothing() {
    let order = PlcOrder { task: OrderTask::ReadBack, ..order(&[words(20, &[1])]) };
    let mut memory = OrderMemory::default();
    memory.words.insert((Table::HoldingRegister, 20), 9);
    let report = memory.execute(order, "M241");
    assert_eq!(memory.log, ["read 20 1"]);
    assert_eq!(report.outcome, OrderOutcome::Unknown);
    let image = ImageReport { state: ImageState::Unknown, read: Some(Registers::Words(vec![9])) };
    assert_eq!(report.images, [image]);
}

#[test]
fn an_expired_order_is_not_written() {
    let now = Instant::now();
    let order = PlcOrder { not_after: Some(now), ..order(&[words(20, &[1])]) };
    let plc = support::plc("M241", &[("%MW0", 1000)]);
    let mut execution = OrderExecution::new(order, &plc, ReadFirst::AsNeeded);
    let later = now + std::time::Duration::from_millis(1);
    assert!(matches!(execution.next_step(later), ExecutionStep::Finish));
    let report = execution.into_report(UnixTime::default());
    assert_eq!(report.outcome, OrderOutcome::NotSent(NotSentReason::Expired));
}

#[test]
fn what_is_written_in_part_has_no_time_limit_and_is_read_back() {
    let now = Instant::now();
    let order = PlcOrder {
        not_after: Some(now),
        ..order(&[words(20, &[1]), words(30, &[2]), words(40, &[3])])
    };
    let plc = support::plc("M241", &[("%MW0", 1000)]);
    let mut execution = OrderExecution::new(order, &plc, ReadFirst::AsNeeded);
    assert!(matches!(execution.next_step(now), ExecutionStep::Write(_)));
    assert_eq!(execution.write_limit(), Some(now));
    execution.on_write(WriteAnswer::Acknowledged);
    assert_eq!(execution.write_limit(), None);
    let later = now + std::time::Duration::from_secs(60);
    assert!(matches!(execution.next_step(later), ExecutionStep::Write(_)));
    execution.on_abandoned(NotSentReason::Stopping);
    assert!(execution.is_read_back_due());
    for (first, held) in [(20, 1), (30, 7)] {
        let ExecutionStep::Read(request) = execution.next_step(later) else {
            panic!("{execution:?}")
        };
        assert_eq!((request.first, request.count), (first, 1));
        execution.on_read(Ok(Registers::Words(vec![held])));
    }
    // The unit does not answer any more.
    execution.on_abandoned(NotSentReason::Expired);
    assert!(matches!(execution.next_step(later), ExecutionStep::Finish));
    let report = execution.into_report(UnixTime::default());
    assert_eq!(report.outcome, OrderOutcome::Partial(NotSentReason::Stopping));
    let image = |state, read: Option<u16>| ImageReport {
        state,
        read: read.map(|word| Registers::Words(vec![word])),
    };
    let expected = [
        image(ImageState::Written, Some(1)),
        image(ImageState::NotSent, Some(7)),
        image(ImageState::NotSent, None),
    ];
    assert_eq!(report.images, expected);
}

#[test]
fn a_read_that_may_cost_the_session_is_left_out_only_if_nothing_depends_on_it() {
    let now = Instant::now();
    let plc = support::plc("M241", &[("%MW0", 1000)]);
    let mut execution = OrderExecution::new(order(&[words(20, &[1])]), &plc, ReadFirst::Always);
    assert!(matches!(execution.next_step(now), ExecutionStep::Read(_)));
    assert!(execution.skip_test_read());
    assert!(matches!(execution.next_step(now), ExecutionStep::Write(_)));
    assert!(!execution.skip_test_read());
    execution.on_write(WriteAnswer::Acknowledged);
    assert!(matches!(execution.next_step(now), ExecutionStep::Read(_)));
    assert!(!execution.skip_test_read());
    execution.on_read_lost();
    assert!(matches!(execution.next_step(now), ExecutionStep::Finish));
    let report = execution.into_report(UnixTime::default());
    assert_eq!((report.outcome, &report.images[0].read), (OrderOutcome::Done, &None));
}

#[test]
fn a_comparison_that_may_cost_the_session_ends_the_order() {
    let now = Instant::now();
    let plc = support::plc("M241", &[("%MW0", 1000)]);
    let order = PlcOrder { expect: vec![words(30, &[7])], ..order(&[words(20, &[1])]) };
    let mut execution = OrderExecution::new(order, &plc, ReadFirst::Always);
    assert!(!execution.skip_test_read(), "it is compared");
    execution.on_read_lost();
    assert!(matches!(execution.next_step(now), ExecutionStep::Finish));
    let outcome = execution.into_report(UnixTime::default()).outcome;
    assert_eq!(outcome, OrderOutcome::NotSent(NotSentReason::LosesConnection));
}

#[test]
fn the_first_request_that_is_not_acknowledged_ends_the_writes() {
    let images = [words(20, &[1]), words(30, &[2]), words(40, &[3])];
    for (answer, outcome, state) in [
        (WriteAnswer::Refused(2), OrderOutcome::Refused(2), ImageState::Refused(2)),
        (WriteAnswer::Missing, OrderOutcome::Unknown, ImageState::Unknown),
    ] {
        let mut memory = OrderMemory {
            write_answers: vec![WriteAnswer::Acknowledged, answer],
            ..OrderMemory::default()
        };
        let report = memory.execute(order(&images), "M241");
        assert_eq!(report.outcome, outcome);
        let states: Vec<_> = report.images.iter().map(|image| image.state).collect();
        assert_eq!(states, [ImageState::Written, state, ImageState::NotSent]);
        assert_eq!(memory.log[..2], ["write 20 1", "write 30 1"]);
        assert_eq!(memory.log[2..], ["read 20 1", "read 30 1", "read 40 1"]);
    }
}

#[test]
fn an_image_of_which_a_part_was_written_may_be_anything() {
    let answers = vec![WriteAnswer::Acknowledged, WriteAnswer::Refused(2)];
    let mut memory = OrderMemory { write_answers: answers, ..OrderMemory::default() };
    let report = memory.execute(order(&[words(0, &[7; 125])]), "M241");
    assert_eq!(report.outcome, OrderOutcome::Refused(2));
    assert_eq!(report.images[0].state, ImageState::Unknown);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn no_register_outside_of_the_images_changes_and_no_write_is_sent_twice(
        images in images(),
        before in proptest::collection::vec(any::<u16>(), 400),
        answers in proptest::collection::vec(write_answer(), 0..4),
        refuses: Option<u16>,
        always: bool,
        model in proptest::sample::select(vec!["M241", "M221", "generic"]),
    ) {
        let held = (0..400_u16).zip(&before);
        let held: BTreeMap<_, _> = held
            .map(|(at, word)| ((Table::HoldingRegister, at), *word))
            .chain((0..100).map(|at| ((Table::Coil, at), before[usize::from(at)] % 2)))
            .collect();
        let mut memory = OrderMemory {
            words: held.clone(),
            write_answers: answers,
            refused_read: refuses.map(|at| at % 400),
            log: Vec::new(),
        };
        let read_first = if always { ReadFirst::Always } else { ReadFirst::AsNeeded };
        let at = if model == "generic" { "holding:0" } else { "%MW0" };
        let plc = support::plc(model, &[(at, 1000)]);
        let report = memory.execute_plc(order(&images), &plc, read_first);

        prop_assert_eq!(report.images.len(), images.len());
        for (place, after) in &memory.words {
            let mask = images.iter().map(|image| mask_at(image, *place)).fold(0, |a, b| a | b);
            prop_assert_eq!((after ^ held[place]) & !mask, 0, "{:?}", place);
        }
        let writes: Vec<_> = memory.log.iter().filter(|line| line.starts_with("write")).collect();
        let mut unique = writes.clone();
        unique.dedup();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), writes.len());
        if report.outcome == OrderOutcome::Done {
            for (image, told) in images.iter().zip(&report.images) {
                prop_assert_eq!(told.state, ImageState::Written);
                prop_assert!(memory.holds(image));
            }
        }
    }
}

fn write_answer() -> impl Strategy<Value = WriteAnswer> {
    prop_oneof![
        4 => Just(WriteAnswer::Acknowledged),
        1 => Just(WriteAnswer::Missing),
        1 => (1..12_u8).prop_map(WriteAnswer::Refused),
    ]
}

/// Images that share no bit, some of them parts of the same word, and coils.
fn images() -> impl Strategy<Value = Vec<TagImage>> {
    let word =
        (0..300_u16, any::<u16>(), proptest::sample::select(vec![0xFFFF, 0x00FF, 0xFF00, 8]));
    let words = proptest::collection::vec(word, 0..12);
    let coils = proptest::collection::vec((0..100_u16, any::<bool>()), 0..4);
    (words, coils, proptest::option::of(proptest::collection::vec(any::<u16>(), 1..90))).prop_map(
        |(words, coils, long)| {
            let mut taken: BTreeMap<u16, u16> = BTreeMap::new();
            let mut images = Vec::new();
            for (at, value, mask) in words {
                let bits = taken.entry(at).or_default();
                if *bits & mask == 0 {
                    *bits |= mask;
                    images.push(part(at, value & mask, mask));
                }
            }
            images.extend(long.map(|values| self::words(301, &values)));
            let coils: BTreeMap<_, _> = coils.into_iter().collect();
            images.extend(coils.into_iter().map(|(first, bit)| TagImage {
                tag: None,
                table: Table::Coil,
                first,
                content: ImageContent::Bits(vec![bit]),
            }));
            images
        },
    )
}

fn mask_at(image: &TagImage, (table, address): (Table, u16)) -> u16 {
    if image.table != table || address < image.first {
        return 0;
    }
    let index = usize::from(address - image.first);
    match &image.content {
        ImageContent::Words(words) => words.get(index).map_or(0, |word| word.mask),
        ImageContent::Bits(bits) => bits.get(index).map_or(0, |_| u16::MAX),
    }
}

fn words(first: u16, values: &[u16]) -> TagImage {
    let words = values.iter().copied().map(MaskedWord::whole).collect();
    TagImage {
        tag: None,
        table: Table::HoldingRegister,
        first,
        content: ImageContent::Words(words),
    }
}

fn part(first: u16, value: u16, mask: u16) -> TagImage {
    let content = ImageContent::Words(vec![MaskedWord { value, mask }]);
    TagImage { tag: None, table: Table::HoldingRegister, first, content }
}

fn order(write: &[TagImage]) -> PlcOrder {
    PlcOrder {
        number: 1,
        plc: 0,
        expect: Vec::new(),
        write: write.to_vec(),
        task: OrderTask::Write,
        program: None,
        not_after: None,
    }
}

/// A PLC that does what it is told.
#[derive(Default)]
struct OrderMemory {
    words: BTreeMap<(Table, u16), u16>,
    /// Answers to the first writes; the later ones are acknowledged. A missing answer takes effect.
    write_answers: Vec<WriteAnswer>,
    /// A register that cannot be read.
    refused_read: Option<u16>,
    log: Vec<String>,
}

impl OrderMemory {
    fn execute(&mut self, order: PlcOrder, model: &str) -> OrderReport {
        let plc = support::plc(model, &[("%MW0", 1000)]);
        self.execute_plc(order, &plc, ReadFirst::AsNeeded)
    }

    fn execute_plc(
        &mut self,
        order: PlcOrder,
        plc: &config::Plc,
        read_first: ReadFirst,
    ) -> OrderReport {
        let mut execution = OrderExecution::new(order, plc, read_first);
        let mut answers = std::mem::take(&mut self.write_answers).into_iter();
        loop {
            match execution.next_step(Instant::now()) {
                ExecutionStep::Finish => return execution.into_report(UnixTime::default()),
                ExecutionStep::Read(request) => execution.on_read(self.read(&request)),
                ExecutionStep::Write(request) => {
                    let answer = answers.next().unwrap_or(WriteAnswer::Acknowledged);
                    self.write(&request, answer);
                    execution.on_write(answer);
                }
            }
        }
    }

    fn read(&mut self, request: &ReadRequest) -> ReadOutcome {
        let &ReadRequest { table, first, count, .. } = request;
        assert!(count <= if table.holds_bits() { 2000 } else { 125 });
        self.log.push(format!("read {first} {count}"));
        let mut places = (first..).take(count.into());
        if self.refused_read.is_some_and(|refused| places.any(|address| address == refused)) {
            return Err(ReadFailure::Refused(2));
        }
        let places = (first..).take(count.into());
        let held = places.map(|at| self.words.get(&(table, at)).copied().unwrap_or_default());
        Ok(if table.holds_bits() {
            Registers::Bits(held.map(|bit| bit != 0).collect())
        } else {
            Registers::Words(held.collect())
        })
    }

    fn write(&mut self, request: &WriteRequest, answer: WriteAnswer) {
        let (table, first, count) = request.range();
        assert!(count <= if table.holds_bits() { 1968 } else { 123 });
        let what = if table.holds_bits() { "write coils" } else { "write" };
        self.log.push(format!("{what} {first} {count}"));
        if matches!(answer, WriteAnswer::Refused(_)) {
            return;
        }
        let values: Vec<u16> = match request {
            WriteRequest::Words { words, .. } => words.clone(),
            WriteRequest::Bits { bits, .. } => bits.iter().copied().map(u16::from).collect(),
        };
        self.words.extend((first..).map(|at| (table, at)).zip(values));
    }

    fn holds(&self, image: &TagImage) -> bool {
        let places = (image.first..).take(image.count()).map(|at| (image.table, at));
        let values: Vec<u16> = match image.to_registers() {
            Registers::Words(words) => words,
            Registers::Bits(bits) => bits.into_iter().map(u16::from).collect(),
        };
        places.zip(values).all(|(place, value)| {
            let held = self.words.get(&place).copied().unwrap_or_default();
            held & mask_at(image, place) == value & mask_at(image, place)
        })
    }
}
