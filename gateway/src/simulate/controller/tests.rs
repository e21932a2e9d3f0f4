//! Answers byte for byte, and the effect of the program on them.

use proptest::prelude::*;
use provisioning::plc::PlcModel;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Function codes of the embedded server (M241 and M251 programming guides).
const EMBEDDED_FUNCTIONS: [u8; 9] = [1, 2, 3, 6, 8, 15, 16, 23, 43];
/// Function codes of a "Modbus TCP Slave Device".
const SLAVE_FUNCTIONS: [u8; 4] = [3, 6, 16, 23];

#[test]
fn answers_are_exact_byte_for_byte() {
    let mut plc = idle_plc(PlcModel::M241);
    plc.image.words.store(10, &123.456_f32.to_le_bytes());
    [0, 3, 8].into_iter().for_each(|output| assert!(plc.image.outputs.set(output, true)));
    [1, 13].into_iter().for_each(|input| assert!(plc.image.inputs.set(input, true)));

    // Holding registers %MW10 as REAL, and a block in the reserved area.
    assert_answer(&mut plc, "0001 0000 0006 ff 03 000a 0002", "0001 0000 0007 ff 03 04 e97942f6");
    assert_answer(&mut plc, "0002 0000 0006 ff 03 fa00 007d", "0002 0000 0003 ff 83 02");
    // Input registers do not exist.
    assert_answer(&mut plc, "0003 0000 0006 ff 04 0000 0001", "0003 0000 0003 ff 84 01");
    // Outputs %Q0.0..=%Q1.7 and inputs %I0.0..=%I1.5.
    assert_answer(&mut plc, "0004 0000 0006 ff 01 0000 0010", "0004 0000 0005 ff 01 02 0901");
    assert_answer(&mut plc, "0005 0000 0006 ff 02 0000 000e", "0005 0000 0005 ff 02 02 0220");
    // Writes: %MW100 := 1234, %MW20 := REAL#1.5, %MW20 := 7 together with a read of %MW10.
    assert_answer(&mut plc, "0006 0000 0006 ff 06 0064 04d2", "0006 0000 0006 ff 06 0064 04d2");
    assert_answer(
        &mut plc,
        "0007 0000 000b ff 10 0014 0002 04 00003fc0",
        "0007 0000 0006 ff 10 0014 0002",
    );
    assert_eq!(plc.image.words.load(20), 1.5_f32.to_le_bytes());
    assert_answer(
        &mut plc,
        "0008 0000 000d ff 17 000a 0002 0014 0001 02 0007",
        "0008 0000 0007 ff 17 04 e97942f6",
    );
    assert_eq!(plc.image.words.word(20), Some(7));
    assert_eq!(plc.image.words.word(100), Some(1234));
    // Diagnostics: the query comes back.
    assert_answer(&mut plc, "000a 0000 0006 ff 08 0000 a537", "000a 0000 0006 ff 08 0000 a537");
}

#[test]
fn a_full_block_of_125_words_is_served() {
    let mut plc = idle_plc(PlcModel::M241);
    plc.image.words.store(124, &[0x34, 0x12]);

    let answer = answer_to(&mut plc, &hex("0002 0000 0006 ff 03 0000 007d"));

    assert_eq!(answer[..9], hex("0002 0000 00fd ff 03 fa"));
    assert_eq!(answer.len(), 259);
    assert_eq!(answer[257..], [0x12, 0x34]);
}

#[test]
fn an_exchange_reads_what_it_has_just_written() {
    let mut plc = idle_plc(PlcModel::M251);

    assert_answer(
        &mut plc,
        "0001 0000 000d ff 17 0014 0001 0014 0001 02 0007",
        "0001 0000 0005 ff 17 02 0007",
    );
}

#[test]
fn an_exchange_whose_read_is_refused_writes_nothing() {
    let mut plc = idle_plc(PlcModel::M251);

    assert_answer(
        &mut plc,
        "0001 0000 000d ff 17 fa00 0001 0014 0001 02 0007",
        "0001 0000 0003 ff 97 02",
    );
    assert_eq!(plc.image.words.word(20), Some(0));
}

#[test]
fn outputs_are_written_bit_by_bit() {
    let mut plc = idle_plc(PlcModel::M241);
    plc.image.outputs.set(19, true);
    plc.image.outputs.set(30, true);

    // Ten outputs from %Q2.3 on; the six spare bits of the last byte are set and must not count.
    assert_answer(
        &mut plc,
        "0001 0000 0009 ff 0f 0013 000a 02 cdff",
        "0001 0000 0006 ff 0f 0013 000a",
    );

    let on: Vec<u16> = (0..40).filter(|output| plc.image.outputs.bit(*output)).collect();
    assert_eq!(on, [19, 21, 22, 25, 26, 27, 28, 30]);
}

#[test]
fn the_device_identification_names_vendor_reference_and_firmware() {
    let mut plc = idle_plc(PlcModel::M251);

    assert_answer(
        &mut plc,
        "0009 0000 0005 ff 2b 0e 01 00",
        "0009 0000 0032 ff 2b 0e 01 81 00 00 03 \
         00 12 5363686e656964657220456c656374726963 \
         01 09 544d3235314d455345 02 09 56352e312e392e3434",
    );
    // One object; an object that is not there; from the second object on; from one that is not
    // there.
    let one = "0001 0000 0013 ff 2b 0e 04 81 00 00 01 01 09 544d3235314d455345";
    assert_answer(&mut plc, "0001 0000 0005 ff 2b 0e 04 01", one);
    assert_answer(&mut plc, "0001 0000 0005 ff 2b 0e 04 07", "0001 0000 0003 ff ab 02");
    assert_eq!(answer_to(&mut plc, &hex("0001 0000 0005 ff 2b 0e 01 01"))[13], 2);
    assert_eq!(answer_to(&mut plc, &hex("0001 0000 0005 ff 2b 0e 03 80"))[13], 3);
    // No such access code; another interface (CANopen); too short.
    assert_answer(&mut plc, "0001 0000 0005 ff 2b 0e 05 00", "0001 0000 0003 ff ab 03");
    assert_answer(&mut plc, "0001 0000 0005 ff 2b 0d 01 00", "0001 0000 0003 ff ab 01");
    assert_answer(&mut plc, "0001 0000 0003 ff 2b 0e", "0001 0000 0003 ff ab 03");

    let m241 = answer_to(&mut idle_plc(PlcModel::M241), &hex("0009 0000 0005 ff 2b 0e 04 01"));
    assert_eq!(&m241[16..], b"TM241CEC24T");
}

#[test]
fn plc_r_holds_vendor_state_and_signature() {
    let mut settings = SimulatorSettings::new(PlcModel::M241).expect("an M241 can be simulated");
    settings.serial_number = 0x0102_0304;
    let mut plc = Controller::new(&settings);

    let answer = answer_to(&mut plc, &hex("000b 0000 0006 ff 03 ea60 000d"));
    assert_eq!(answer[9..11], [0x10, 0x1A]);
    assert_eq!(answer[13..17], [0x03, 0x04, 0x01, 0x02], "serial number, low word first");
    assert_eq!(answer[17..21], [1, 5, 44, 9], "firmware 5.1.9.44, bytes swapped by word");
    assert_eq!(answer[33..35], [0, 2], "running");

    plc.set_state(RunState::Stopped);
    plc.set_signature([1, 2, 3, 0x0405_0607]);
    assert_eq!(plc.image.words.word(60_012), Some(1));
    assert_eq!(plc.image.words.read(60_028, 2), Some(&[1, 0, 0, 0][..]));
    assert_eq!(plc.image.words.read(60_034, 2), Some(&[7, 6, 5, 4][..]));
}

#[test]
fn every_function_code_is_answered_as_the_manual_says() {
    for function in 0..=255 {
        // Fields that fit every function which has four bytes of them.
        let outcome = |unit| {
            let mut plc = idle_plc(PlcModel::M241);
            let answer = answer_to(&mut plc, &[0, 1, 0, 0, 0, 6, unit, function, 0, 0, 0, 1]);
            assert_eq!(answer[7] & 0x7F, function & 0x7F, "function {function}");
            match answer[7] == function && function < 0x80 {
                true => None,
                false => Some(answer[8]),
            }
        };
        // 15, 16 and 23 lack their values, 43 its MEI type: known, but not well-formed.
        let expected = |known: &[u8]| match function {
            43 if known.contains(&43) => Some(1),
            15 | 16 | 23 if known.contains(&function) => Some(3),
            8 if known.contains(&8) => Some(3),
            _ if known.contains(&function) => None,
            _ => Some(1),
        };
        let diagnosis = [0, 1, 0, 0, 0, 6, 255, 8, 0, 0, 0, 1];
        assert_eq!(answer_to(&mut idle_plc(PlcModel::M241), &diagnosis), diagnosis);
        if function != 8 {
            assert_eq!(outcome(255), expected(&EMBEDDED_FUNCTIONS), "function {function}");
        }
        assert_eq!(outcome(1), expected(&SLAVE_FUNCTIONS), "function {function}, slave device");
        assert_eq!(outcome(2), Some(11), "function {function}, unknown unit");
        assert_eq!(outcome(0), Some(11), "function {function}, unknown unit");
    }
}

#[test]
fn reads_take_the_quantities_of_the_specification() {
    for (function, most) in [(1, 2000), (2, 2000), (3, 125)] {
        let read = |count: u16| {
            let [high, low] = count.to_be_bytes();
            exception_code(&[function, 0, 0, high, low])
        };
        let outcomes = [0, 1, most, most + 1, u16::MAX].map(read);
        assert_eq!(outcomes, [Some(3), None, None, Some(3), Some(3)], "function {function}");
    }
}

#[test]
fn writes_take_the_quantities_of_the_specification() {
    let write = |function: u8, count: u16, bytes: usize| {
        let [high, low] = count.to_be_bytes();
        exception_code(&[&[function, 0, 0, high, low, len(bytes)], &vec![0; bytes][..]].concat())
    };
    let outputs = [(0, 0), (1, 1), (1968, 246), (1969, 247), (9, 1)];
    let outputs = outputs.map(|(count, bytes)| write(15, count, bytes));
    assert_eq!(outputs, [Some(3), None, None, Some(3), Some(3)]);
    let registers = [(0, 0), (1, 2), (123, 246), (124, 247), (2, 2)];
    let registers = registers.map(|(count, bytes)| write(16, count, bytes));
    assert_eq!(registers, [Some(3), None, None, Some(3), Some(3)]);
}

#[test]
fn an_exchange_takes_the_quantities_of_the_specification() {
    let exchange = |(count, written): (u8, u8)| {
        let head = [23, 0, 0, 0, count, 0, 0, 0, written, 2 * written];
        exception_code(&[&head[..], &vec![0; 2 * usize::from(written)]].concat())
    };
    let outcomes = [(0, 1), (1, 0), (125, 121), (126, 1)].map(exchange);
    assert_eq!(outcomes, [Some(3), Some(3), None, Some(3)]);
}

#[test]
fn a_request_of_the_wrong_length_is_refused() {
    assert_eq!(exception_code(&[3, 0, 0, 0]), Some(3));
    assert_eq!(exception_code(&[3, 0, 0, 0, 1, 0]), Some(3));
    assert_eq!(exception_code(&[6, 0, 0, 0]), Some(3));
    assert_eq!(exception_code(&[16, 0, 0, 0, 1, 2, 0]), Some(3));
    assert_eq!(exception_code(&[16, 0, 0, 0, 1, 2, 0, 0, 0]), Some(3));
    assert_eq!(exception_code(&[8, 0, 0]), Some(3));
    assert_eq!(exception_code(&[8, 0, 0, 1]), Some(3));
    assert_eq!(exception_code(&[8, 0, 21, 0, 0]), Some(1), "a sub-function that is not simulated");
}

#[test]
fn read_only_registers_refuse_writes() {
    assert_eq!(exception_code(&[6, 0xEA, 0x6C, 0, 0]), Some(2), "PLC_R");
    assert_eq!(exception_code(&[6, 0xEB, 0x28, 0, 0]), Some(2), "the read relocation table");
    assert_eq!(exception_code(&[6, 0xF2, 0xF8, 0, 0]), None, "the write relocation table");
    assert_eq!(
        exception_code(&[16, 0xEA, 0x5F, 0, 2, 4, 0, 0, 0, 0]),
        Some(2),
        "across the border"
    );
    assert_eq!(exception_code(&[3, 0xEA, 0x5F, 0, 2]), Some(2), "across the border");
    assert_eq!(exception_code(&[1, 0xFF, 0xFF, 0, 2]), Some(2), "past the last output");
}

#[test]
fn the_slave_device_has_its_own_memory() {
    let mut plc = idle_plc(PlcModel::M241);
    plc.image.words.store(0, &[9, 9]);

    assert_answer(&mut plc, "0001 0000 0006 01 06 0027 0005", "0001 0000 0006 01 06 0027 0005");
    assert_answer(&mut plc, "0001 0000 0006 01 03 0027 0001", "0001 0000 0005 01 03 02 0005");
    assert_answer(&mut plc, "0001 0000 0006 01 06 0028 0005", "0001 0000 0003 01 86 02");
    assert_answer(&mut plc, "0001 0000 0006 01 03 0050 0001", "0001 0000 0003 01 83 02");
    assert_answer(&mut plc, "0001 0000 0006 ff 03 0027 0001", "0001 0000 0005 ff 03 02 0000");
}

#[test]
fn the_slave_device_copies_the_first_words_of_the_program() {
    let mut plc =
        Controller::new(&SimulatorSettings::new(PlcModel::M241).expect("an M241 can be simulated"));

    plc.advance(SECOND);

    assert_eq!(plc.slave.read(40, 40), plc.image.words.read(0, 40));
    assert_eq!(plc.slave.word(40), Some(100), "100 steps of 10 ms");
}

#[test]
fn a_stop_freezes_the_values_and_the_plc_keeps_answering() {
    let mut plc =
        Controller::new(&SimulatorSettings::new(PlcModel::M241).expect("an M241 can be simulated"));
    let life = "0001 0000 0006 ff 03 0000 0001";
    plc.advance(SECOND);

    plc.set_state(RunState::Stopped);
    plc.advance(60 * SECOND);
    assert_answer(&mut plc, life, "0001 0000 0005 ff 03 02 0064");
    assert_answer(&mut plc, "0001 0000 0006 ff 06 000a 0007", "0001 0000 0006 ff 06 000a 0007");
    assert_eq!(plc.image.words.word(10), Some(7), "the stopped program does not overwrite it");

    plc.set_state(RunState::Running);
    plc.advance(61 * SECOND);
    assert_answer(&mut plc, life, "0001 0000 0005 ff 03 02 00c8");
}

#[test]
fn frequent_calls_do_not_speed_up_the_program() {
    let mut plc =
        Controller::new(&SimulatorSettings::new(PlcModel::M241).expect("an M241 can be simulated"));

    for micros in (0..=1_000_000).step_by(1_234) {
        plc.advance(Duration::from_micros(micros));
    }

    assert_eq!(plc.image.words.word(0), Some(99), "the last whole step before 1 s");
}

#[test]
fn an_idle_program_does_not_change_memory() {
    let mut plc = idle_plc(PlcModel::M241);
    plc.image.words.store(0, &[1, 2, 3, 4]);

    plc.advance(60 * SECOND);

    assert_eq!(plc.image.words.read(0, 3), Some(&[1, 2, 3, 4, 0, 0][..]));
    assert_eq!(plc.image.words.word(60_012), Some(2));
}

proptest! {
    #[test]
    fn any_pdu_gets_one_valid_answer(unit: u8, pdu in requests()) {
        let mut plc = idle_plc(PlcModel::M241);
        let len = u16::try_from(pdu.len() + 1).unwrap().to_be_bytes();
        let request = [&[0xAB, 0xCD, 0, 0], &len[..], &[unit], &pdu].concat();

        let mut answer = Vec::new();
        plc.answer(&request, &mut answer);

        let (frame, rest) = frame::split_first(&answer).unwrap().expect("a complete frame");
        prop_assert!(rest.is_empty());
        prop_assert_eq!((frame.transaction, frame.unit), ([0xAB, 0xCD], unit));
        prop_assert!(frame.pdu.len() <= frame::MAX_PDU_LEN, "{} bytes", frame.pdu.len());
        prop_assert_eq!(frame.pdu[0] & 0x7F, pdu[0] & 0x7F);
        prop_assert_eq!(plc.requests(), 1);
    }

    #[test]
    fn any_bytes_are_accepted_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        idle_plc(PlcModel::M251).answer(&bytes, &mut Vec::new());
    }

    #[test]
    fn written_registers_are_read_back(first in 0..60_000_u16, values in prop::collection::vec(any::<u16>(), 1..=123)) {
        prop_assume!(usize::from(first) + values.len() <= 60_000);
        let mut plc = idle_plc(PlcModel::M241);
        let count = u16::try_from(values.len()).unwrap();
        let head = [first.to_be_bytes(), count.to_be_bytes()].concat();
        let wire: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        let write = [&[16], &head[..], &[len(wire.len())], &wire].concat();

        prop_assert_eq!(answer_pdu(&mut plc, &write), [&[16], &head[..]].concat());
        let read = [&[3, len(wire.len())], &wire[..]].concat();
        prop_assert_eq!(answer_pdu(&mut plc, &[&[3], &head[..]].concat()), read);
        let memory: Vec<u16> = (first..first + count).filter_map(|at| plc.image.words.word(at)).collect();
        prop_assert_eq!(memory, values);
    }

    #[test]
    fn written_outputs_are_read_back(first in 0..63_000_u16, bits in prop::collection::vec(any::<bool>(), 1..=1968)) {
        let mut plc = idle_plc(PlcModel::M241);
        let head = [first.to_be_bytes(), u16::try_from(bits.len()).unwrap().to_be_bytes()].concat();
        let packed: Vec<u8> = bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect();
        let write = [&[15], &head[..], &[len(packed.len())], &packed].concat();

        prop_assert_eq!(answer_pdu(&mut plc, &write), [&[15], &head[..]].concat());
        let read = [&[1, len(packed.len())], &packed[..]].concat();
        prop_assert_eq!(answer_pdu(&mut plc, &[&[1], &head[..]].concat()), read);
    }
}

/// Returns random bytes that often start like a valid request.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let function = prop_oneof![any::<u8>(), prop::sample::select(&EMBEDDED_FUNCTIONS[..])];
    let fields = prop::collection::vec(prop_oneof![any::<u8>(), 0..3_u8], 0..252);
    (function, fields).prop_map(|(function, fields)| [vec![function], fields].concat())
}

fn idle_plc(model: PlcModel) -> Controller {
    let settings = SimulatorSettings::new(model).expect("a Modicon can be simulated");
    Controller::new(&SimulatorSettings { program: SimulatedProgram::Idle, ..settings })
}

/// Returns the exception code with which a new M241 answers this PDU under unit id 255.
fn exception_code(request: &[u8]) -> Option<u8> {
    let answer = answer_pdu(&mut idle_plc(PlcModel::M241), request);
    (answer[0] & 0x80 != 0).then(|| answer[1])
}

fn answer_pdu(plc: &mut Controller, request: &[u8]) -> Vec<u8> {
    let len = u16::try_from(request.len() + 1).expect("a PDU is short").to_be_bytes();
    answer_to(plc, &[&[0, 1, 0, 0], &len[..], &[255], request].concat()).split_off(7)
}

fn assert_answer(plc: &mut Controller, request: &str, answer: &str) {
    assert_eq!(answer_to(plc, &hex(request)), hex(answer), "to {request}");
}

fn answer_to(plc: &mut Controller, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    plc.answer(request, &mut answer);
    answer
}

fn len(bytes: usize) -> u8 {
    u8::try_from(bytes).expect("a PDU is short")
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("hexadecimal digits")).collect()
}
