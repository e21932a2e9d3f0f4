//! Answers of the corpus, and mutations of them: only a right answer is accepted.
//!
//! The same mutations in every run. For more of them: `E2E_MUTATIONS=1000000`.

use super::*;

const CORPUS: &str = include_str!("answers.txt");
const MUTATIONS: u64 = 30_000;
/// Bytes with a meaning in a frame.
const MEANINGFUL: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 0x7F, 0x80, 0x81, 0x83, 0xFE, 0xFF];

#[tokio::test]
async fn the_answers_of_the_corpus_are_accepted_or_rejected_rightly() {
    for (request, answer) in corpus() {
        judge(&request, &answer, 0).await;
    }
}

#[tokio::test]
async fn mutated_answers_are_accepted_or_rejected_rightly() {
    let mutations = test_settings::MUTATIONS.number_or(MUTATIONS);
    let corpus = corpus();
    let mut random = fastrand::Rng::with_seed(7);
    let mut right = 0;
    for _ in 0..mutations {
        let (request, answer) = random.choice(&corpus).unwrap();
        let mut answer = answer.clone();
        for _ in 0..random.u8(1..4) {
            mutate(&mut answer, &mut random, &corpus);
        }
        let cut = random.usize(0..=answer.len());
        right += u64::from(judge(request, &answer, cut).await);
    }
    assert!((1..mutations / 2).contains(&right), "{right} of {mutations} are right");
}

/// Lets the client read an answer, in two pieces, and compares the outcome. Returns whether it is a
/// value.
async fn judge(request: &ReadRequest, answer: &[u8], cut: usize) -> bool {
    let (mut session, mut plc) = session();
    let serve = async {
        plc.read_exact(&mut [0; 12]).await.unwrap();
        for piece in [&answer[..cut], &answer[cut..]] {
            // The client may have closed the connection after the first piece.
            let _ = plc.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        drop(plc);
    };
    let read = async {
        let outcome = session.read(ADDRESS, request).await;
        drop(session);
        outcome
    };
    let (outcome, ()) = tokio::join!(read, serve);
    match (outcome, expected(request, answer)) {
        (Ok(registers), Some((Ok(expected), _))) => assert_eq!(registers, expected, "{answer:?}"),
        (Err(RequestError::Refused(code)), Some((Err(expected), _))) => assert_eq!(code, expected),
        // Bytes after an answer make it invalid, if they arrive together with it.
        (Err(RequestError::Garbled(_)), Some((_, is_all))) => assert!(!is_all, "{answer:?}"),
        (Err(RequestError::Garbled(_) | RequestError::Disconnected(_)), None) => {}
        (outcome, expected) => panic!("{outcome:?}, not {expected:?}: {request:?} {answer:?}"),
    }
    matches!(expected(request, answer), Some((Ok(_), true)))
}

/// Parses an answer by the specification (Modbus Application Protocol V1.1b3, 6.1 to 6.4, 7).
/// Returns also whether nothing follows it; `None` when it does not answer this request.
fn expected(request: &ReadRequest, answer: &[u8]) -> Option<(Result<Registers, u8>, bool)> {
    let function = match request.table {
        Table::Coil => 1,
        Table::DiscreteInput => 2,
        Table::HoldingRegister => 3,
        Table::InputRegister => 4,
    };
    let [0, 0, 0, 0, high, low, 255, got, rest @ ..] = answer else { return None };
    // An exception is taken for one whatever its length field says.
    if let ([code, behind @ ..], true) = (rest, *got == function | 0x80) {
        return Some((Err(*code), behind.is_empty()));
    }
    let content = usize::from(u16::from_be_bytes([*high, *low])).checked_sub(2)?;
    let (content, behind) = rest.split_at_checked(content)?;
    let count = usize::from(request.count);
    let bytes = if request.table.holds_bits() { count.div_ceil(8) } else { 2 * count };
    let (length, data) = content.split_first()?;
    if *got != function || usize::from(*length) != bytes || data.len() != bytes {
        return None;
    }
    let registers = if request.table.holds_bits() {
        let bits = data.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        Registers::Bits(bits.take(count).collect())
    } else {
        let words = data.chunks(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
        Registers::Words(words.collect())
    };
    Some((Ok(registers), behind.is_empty()))
}

fn mutate(answer: &mut Vec<u8>, random: &mut fastrand::Rng, corpus: &[(ReadRequest, Vec<u8>)]) {
    let at = random.usize(0..=answer.len());
    let to = (at + random.usize(1..6)).min(answer.len());
    match random.u8(0..7) {
        0 => answer.truncate(at),
        1 => drop(answer.drain(at..to)),
        2 => answer.insert(at, random.u8(..)),
        3 => answer.extend_from_within(at..),
        4 => {
            let (_, other) = random.choice(corpus).unwrap();
            answer.splice(at.., other.iter().skip(at).copied());
        }
        5 => {
            if let Some(byte) = answer.get_mut(at) {
                *byte ^= 1 << random.u8(0..8);
            }
        }
        _ => {
            if let Some(byte) = answer.get_mut(at) {
                *byte = random.choice(MEANINGFUL).unwrap();
            }
        }
    }
}

fn corpus() -> Vec<(ReadRequest, Vec<u8>)> {
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| entry(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

fn entry(line: &str) -> Option<(ReadRequest, Vec<u8>)> {
    let mut words = line.split_whitespace();
    let table = match words.next()? {
        "coil" => Table::Coil,
        "discrete" => Table::DiscreteInput,
        "input" => Table::InputRegister,
        "holding" => Table::HoldingRegister,
        _ => return None,
    };
    let count = words.next()?.parse().ok()?;
    let digits: String = words.collect();
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    Some((request(table, 0, count), bytes?))
}
