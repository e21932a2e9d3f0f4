mod mutated;
mod writes;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;

use super::*;

const ADDRESS: UnitAddress = UnitAddress { unit: 255, timeout: Duration::from_secs(1) };
static REAL_AT_10: ReadRequest = request(Table::HoldingRegister, 10, 2);

#[tokio::test(start_paused = true)]
async fn holding_registers_are_read_by_function_3() {
    let (asked, answer) =
        exchange(&REAL_AT_10, &[0, 0, 0, 0, 0, 7, 255, 3, 4, 0xE9, 0x79, 0x42, 0xF6]).await;
    assert_eq!(asked, [0, 0, 0, 0, 0, 6, 255, 3, 0, 10, 0, 2]);
    assert_eq!(answer.unwrap(), Registers::Words(vec![0xE979, 0x42F6]));
}

#[tokio::test(start_paused = true)]
async fn outputs_are_read_by_function_1() {
    let request = request(Table::Coil, 0, 16);
    let (asked, answer) = exchange(&request, &[0, 0, 0, 0, 0, 5, 255, 1, 2, 0x09, 0x01]).await;
    assert_eq!(asked, [0, 0, 0, 0, 0, 6, 255, 1, 0, 0, 0, 16]);
    let mut bits = vec![false; 16];
    for on in [0, 3, 8] {
        bits[on] = true;
    }
    assert_eq!(answer.unwrap(), Registers::Bits(bits));
}

#[tokio::test(start_paused = true)]
async fn inputs_are_read_by_function_2_without_the_padding() {
    let request = request(Table::DiscreteInput, 3, 11);
    let (asked, answer) = exchange(&request, &[0, 0, 0, 0, 0, 5, 255, 2, 2, 0xFF, 0xFF]).await;
    assert_eq!(asked[7..], [2, 0, 3, 0, 11]);
    assert_eq!(answer.unwrap(), Registers::Bits(vec![true; 11]));
}

#[tokio::test(start_paused = true)]
async fn input_registers_are_read_by_function_4() {
    let request = request(Table::InputRegister, 7, 1);
    let (asked, answer) = exchange(&request, &[0, 0, 0, 0, 0, 5, 255, 4, 2, 1, 2]).await;
    assert_eq!(asked[7..], [4, 0, 7, 0, 1]);
    assert_eq!(answer.unwrap(), Registers::Words(vec![0x0102]));
}

#[tokio::test(start_paused = true)]
async fn an_exception_is_a_refusal_with_its_code() {
    for code in [1, 2, 6, 0x0B, 0x77] {
        let (_, answer) = exchange(&REAL_AT_10, &[0, 0, 0, 0, 0, 3, 255, 0x83, code]).await;
        assert!(matches!(answer, Err(RequestError::Refused(c)) if c == code), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exception_with_a_wrong_length_is_one_and_keeps_the_session() {
    for length in [0, 2, 4, 255] {
        let (mut session, mut plc) = session();
        let serve = async {
            for _ in 0..2 {
                let mut asked = [0; 12];
                plc.read_exact(&mut asked).await.unwrap();
                let refusal = [&asked[..2], &[0, 0, 0, length, 255, 0x83, 2]].concat();
                plc.write_all(&refusal).await.unwrap();
            }
        };
        let read = async {
            for _ in 0..2 {
                let answer = session.read(ADDRESS, &REAL_AT_10).await;
                assert!(matches!(answer, Err(RequestError::Refused(2))), "{length}: {answer:?}");
            }
        };
        tokio::join!(read, serve);
    }
}

#[tokio::test(start_paused = true)]
async fn each_mismatch_has_its_cause() {
    // The connection starts with the transaction id 0, and 13851 follows.
    let right = [0, 0, 0, 0, 0, 7, 255, 3, 4, 0, 0, 0, 0];
    let with = |at: usize, byte: u8| {
        let mut bytes = right.to_vec();
        bytes[at] = byte;
        bytes
    };
    let trailing = [&right[..], &[0, 0]].concat();
    let causes = [
        (with(1, 1), AnswerMismatch::OtherTransaction),
        (with(6, 0), AnswerMismatch::OtherUnit { asked: 255, answered: 0 }),
        (trailing, AnswerMismatch::ExtraBytes { bytes: 2 }),
        (
            vec![0, 0, 0, 0, 0, 5, 255, 3, 2, 0, 0],
            AnswerMismatch::Count { received: 1, requested: 2 },
        ),
        (with(3, 1), AnswerMismatch::NotModbus),
    ];
    for (bytes, cause) in causes {
        let (_, answer) = exchange(&REAL_AT_10, &bytes).await;
        assert!(matches!(&answer, Err(RequestError::Garbled(is)) if *is == cause), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_an_earlier_request_is_late() {
    let (mut session, mut plc) = session();
    let answer = [0, 0, 0, 0, 0, 7, 255, 3, 4, 0, 0, 0, 0];
    let serve = async {
        for _ in 0..2 {
            plc.read_exact(&mut [0; 12]).await.unwrap();
            plc.write_all(&answer).await.unwrap();
        }
    };
    let read = async {
        assert!(session.read(ADDRESS, &REAL_AT_10).await.is_ok());
        session.read(ADDRESS, &REAL_AT_10).await
    };
    let (second, ()) = tokio::join!(read, serve);
    assert!(matches!(second, Err(RequestError::Garbled(AnswerMismatch::Late))), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_is_garbled() {
    let hostile: [(&str, &[u8]); 13] = [
        ("another transaction", &[0, 9, 0, 0, 0, 7, 255, 3, 4, 0, 0, 0, 0]),
        ("another unit", &[0, 0, 0, 0, 0, 7, 1, 3, 4, 0, 0, 0, 0]),
        ("another function", &[0, 0, 0, 0, 0, 7, 255, 4, 4, 0, 0, 0, 0]),
        ("another protocol", &[0, 0, 0, 1, 0, 7, 255, 3, 4, 0, 0, 0, 0]),
        ("a register less", &[0, 0, 0, 0, 0, 5, 255, 3, 2, 0, 0]),
        ("a register more", &[0, 0, 0, 0, 0, 9, 255, 3, 6, 0, 0, 0, 0, 0, 0]),
        ("less than it counts", &[0, 0, 0, 0, 0, 5, 255, 3, 4, 0, 0]),
        ("half a register", &[0, 0, 0, 0, 0, 6, 255, 3, 3, 0, 0, 0]),
        ("more than it counts", &[0, 0, 0, 0, 0, 9, 255, 3, 4, 0, 0, 0, 0, 0, 0]),
        ("longer than any", &[0, 0, 0, 0, 1, 0, 255, 3, 4, 0, 0, 0, 0]),
        ("an exception with more behind it", &[0, 0, 0, 0, 0, 4, 255, 0x83, 2, 0]),
        ("two in one", &[0, 0, 0, 0, 0, 7, 255, 3, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 255, 0x83, 2]),
        ("an exception to no function", &[0, 0, 0, 0, 0, 3, 255, 0x80, 1]),
    ];
    for (what, bytes) in hostile {
        let (_, answer) = exchange(&REAL_AT_10, bytes).await;
        assert!(matches!(answer, Err(RequestError::Garbled(_))), "{what}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fewer_or_more_bits_than_asked_are_garbled() {
    for bytes in [&[0, 0, 0, 0, 0, 4, 255, 1, 1, 0][..], &[0, 0, 0, 0, 0, 6, 255, 1, 3, 0, 0, 0]] {
        let (_, answer) = exchange(&request(Table::Coil, 0, 9), bytes).await;
        assert!(matches!(answer, Err(RequestError::Garbled(_))), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_and_half_an_answer_time_out() {
    for bytes in [&[][..], &[0, 0, 0, 0, 0, 7, 255, 3, 4, 0xE9]] {
        let (mut session, mut plc) = session();
        let began = tokio::time::Instant::now();
        let begin = async {
            plc.read_exact(&mut [0; 12]).await.unwrap();
            plc.write_all(bytes).await.unwrap();
        };
        let (answer, ()) = tokio::join!(session.read(ADDRESS, &REAL_AT_10), begin);
        assert!(matches!(answer, Err(RequestError::TimedOut(_))), "{answer:?}");
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_arrive_in_pieces() {
    let whole = [0, 0, 0, 0, 0, 7, 255, 3, 4, 0xE9, 0x79, 0x42, 0xF6];
    for cut in 1..whole.len() {
        let (mut session, mut plc) = session();
        let serve = async {
            plc.read_exact(&mut [0; 12]).await.unwrap();
            for part in [&whole[..cut], &whole[cut..]] {
                plc.write_all(part).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (answer, ()) = tokio::join!(session.read(ADDRESS, &REAL_AT_10), serve);
        assert_eq!(answer.unwrap(), Registers::Words(vec![0xE979, 0x42F6]), "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_without_a_request_end_the_session_before_the_next_request_is_sent() {
    let (mut session, mut plc) = session();
    let answer = [0, 0, 0, 0, 0, 7, 255, 3, 4, 0, 0, 0, 0];
    let serve = async {
        plc.read_exact(&mut [0; 12]).await.unwrap();
        plc.write_all(&answer).await.unwrap();
    };
    let (first, ()) = tokio::join!(session.read(ADDRESS, &REAL_AT_10), serve);
    assert!(first.is_ok(), "{first:?}");
    plc.write_all(&answer).await.unwrap();
    let second = session.read(ADDRESS, &REAL_AT_10).await;
    assert!(matches!(second, Err(RequestError::Garbled(_))), "{second:?}");
    drop(session);
    assert_eq!(plc.read(&mut [0; 12]).await.unwrap(), 0, "no request was sent");
}

#[tokio::test(start_paused = true)]
async fn no_connection_repeats_a_transaction_id_of_the_one_before() {
    let connector = connector("127.0.0.1", 502);
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let (ours, mut plc) = duplex(1024);
        let mut session = connector.new_session(ours, connector.take_slot().unwrap());
        for _ in 0..3 {
            let serve = async {
                let mut asked = [0; 12];
                plc.read_exact(&mut asked).await.unwrap();
                let id = [asked[0], asked[1]];
                plc.write_all(&[&id[..], &[0, 0, 0, 7, 255, 3, 4, 0, 0, 0, 0]].concat())
                    .await
                    .unwrap();
                id
            };
            let (answer, id) = tokio::join!(session.read(ADDRESS, &REAL_AT_10), serve);
            assert!(answer.is_ok(), "{answer:?}");
            ids.insert(id);
        }
    }
    assert_eq!(ids.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_stream_is_a_lost_connection_at_any_byte() {
    for bytes in [&[][..], &[0, 0, 0, 0, 0, 7, 255, 3, 4, 0xE9]] {
        let (mut session, mut plc) = session();
        let close = async move {
            plc.read_exact(&mut [0; 12]).await.unwrap();
            plc.write_all(bytes).await.unwrap();
        };
        let (answer, ()) = tokio::join!(session.read(ADDRESS, &REAL_AT_10), close);
        assert!(matches!(answer, Err(RequestError::Disconnected(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let refused = connector("127.0.0.1", port).connect().await.err();
    assert!(matches!(refused, Some(ConnectError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_host_name_without_an_address_is_an_error_of_its_own() {
    let unknown = connector("no such name", 502).connect().await.err();
    assert!(matches!(unknown, Some(ConnectError::UnknownHost(_))), "{unknown:?}");
}

#[tokio::test]
async fn the_socket_has_no_delay_and_keepalive() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = connector("localhost", listener.local_addr().unwrap().port());
    let stream = connector.open_stream(Duration::from_secs(1)).await.unwrap();
    configure_socket(&stream).unwrap();
    assert!(stream.nodelay().unwrap());
    assert!(SockRef::from(&stream).keepalive().unwrap());
}

#[tokio::test]
async fn closing_ends_the_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut connector = connector("127.0.0.1", listener.local_addr().unwrap().port());
    let (session, accepted) = tokio::join!(connector.connect(), listener.accept());
    let (mut plc, _) = accepted.unwrap();
    session.unwrap().close().await;
    assert_eq!(plc.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_device_identification_is_read_by_function_43() {
    let mut answer = vec![0, 0, 0, 0, 0, 0x32, 255, 0x2B, 0x0E, 1, 1, 0, 0, 3, 0, 0x12];
    answer.extend(b"Schneider Electric");
    answer.extend([1, 9]);
    answer.extend(b"TM251MESE");
    answer.extend([2, 9]);
    answer.extend(b"V5.1.9.44");
    let (asked, naming) = identification_exchange(&answer).await;
    assert_eq!(asked, [0, 0, 0, 0, 0, 5, 255, 0x2B, 0x0E, 1, 0]);
    let naming = naming.unwrap();
    assert_eq!(naming.vendor, "Schneider Electric");
    assert_eq!((&*naming.product, &*naming.revision), ("TM251MESE", "V5.1.9.44"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_identification_has_its_code_and_an_invalid_one_is_garbled() {
    for code in [1, 2, 3] {
        let (_, naming) = identification_exchange(&[0, 0, 0, 0, 0, 3, 255, 0xAB, code]).await;
        assert!(matches!(naming, Err(RequestError::Refused(c)) if c == code), "{naming:?}");
    }
    let hostile: [(&str, &[u8]); 6] = [
        ("more text than there is", &[0, 0, 0, 0, 0, 11, 255, 43, 14, 1, 1, 0, 0, 1, 0, 9, 65]),
        ("more objects than there are", &[0, 0, 0, 0, 0, 8, 255, 43, 14, 1, 1, 0, 0, 200]),
        ("another interface", &[0, 0, 0, 0, 0, 8, 255, 43, 13, 1, 1, 0, 0, 0]),
        ("bytes behind the last object", &[0, 0, 0, 0, 0, 9, 255, 43, 14, 1, 1, 0, 0, 0, 7]),
        ("registers", &[0, 0, 0, 0, 0, 5, 255, 3, 2, 0, 7]),
        ("another unit", &[0, 0, 0, 0, 0, 8, 1, 43, 14, 1, 1, 0, 0, 0]),
    ];
    for (what, bytes) in hostile {
        let (_, naming) = identification_exchange(bytes).await;
        assert!(matches!(naming, Err(RequestError::Garbled(_))), "{what}: {naming:?}");
    }
}

proptest! {
    #[test]
    fn no_identification_panics(data in proptest::collection::vec(any::<u8>(), 1..252)) {
        let length = u8::try_from(data.len() + 2).unwrap();
        let answer = [&[0, 0, 0, 0, 0, length, 255, 43][..], &data].concat();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (_, naming) = runtime.block_on(identification_exchange(&answer));
        prop_assert!(!matches!(naming, Err(RequestError::Disconnected(_))));
    }

    /// Debug builds of tokio-modbus contain assertions about answers; no answer may reach them.
    #[test]
    fn no_answer_panics_and_a_valid_one_has_the_requested_count(
        table in proptest::sample::select(&Table::ALL[..]),
        count in 1_u16..=125,
        function in 0_u8..=255,
        length in proptest::option::of(0_u16..300),
        data in proptest::collection::vec(any::<u8>(), 0..260),
    ) {
        let length = length.unwrap_or_else(|| u16::try_from(data.len() + 2).unwrap());
        let mut bytes = vec![0, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([255, function]);
        bytes.extend(data);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (_, answer) = runtime.block_on(exchange(&request(table, 0, count), &bytes));
        match answer {
            Ok(Registers::Words(words)) => {
                prop_assert_eq!(words.len(), usize::from(count));
                prop_assert!(!table.holds_bits());
            }
            Ok(Registers::Bits(bits)) => {
                prop_assert_eq!(bits.len(), usize::from(count));
                prop_assert!(table.holds_bits());
            }
            Err(_) => {}
        }
    }
}

/// Returns the request that the PLC received, and the outcome of its answer.
async fn exchange(
    request: &ReadRequest,
    answer: &[u8],
) -> (Vec<u8>, Result<Registers, RequestError>) {
    let (mut session, mut plc) = session();
    let serve = async {
        let mut asked = vec![0; 12];
        plc.read_exact(&mut asked).await.unwrap();
        plc.write_all(answer).await.unwrap();
        asked
    };
    let (answer, asked) = tokio::join!(session.read(ADDRESS, request), serve);
    (asked, answer)
}

async fn identification_exchange(answer: &[u8]) -> (Vec<u8>, Result<PlcIdentity, RequestError>) {
    let (mut session, mut plc) = session();
    let serve = async {
        let mut asked = vec![0; 11];
        plc.read_exact(&mut asked).await.unwrap();
        plc.write_all(answer).await.unwrap();
        asked
    };
    let (naming, asked) = tokio::join!(session.read_device_identification(ADDRESS), serve);
    (asked, naming)
}

fn session() -> (ModbusSession, DuplexStream) {
    let (ours, theirs) = duplex(1024);
    let mut connector = connector("127.0.0.1", 502);
    connector.transaction_ids = TransactionIds::starting_at(0);
    (connector.new_session(ours, connector.take_slot().unwrap()), theirs)
}

fn connector(host: &str, port: u16) -> ModbusConnector {
    let address = HostPort { host: host.to_owned(), port };
    ModbusConnector::new(address, ADDRESS.timeout, ConnectionSlots::new(1))
}

const fn request(table: Table, first: u16, count: u16) -> ReadRequest {
    ReadRequest { table, first, count, tags: Vec::new() }
}
