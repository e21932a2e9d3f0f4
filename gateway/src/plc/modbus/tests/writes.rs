//! What is sent for a write, and which answers confirm it.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_register_is_written_by_function_6_and_several_by_function_16() {
    let (sent, answer) = write(&words(100, &[1234]), &[6, 0, 100, 0x04, 0xD2]).await;
    assert_eq!(sent, [6, 0, 100, 0x04, 0xD2]);
    assert!(answer.is_ok(), "{answer:?}");
    // REAL 1.5 at %MW20.
    let (sent, answer) = write(&words(20, &[0, 0x3FC0]), &[16, 0, 20, 0, 2]).await;
    assert_eq!(sent, [16, 0, 20, 0, 2, 4, 0, 0, 0x3F, 0xC0]);
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn coils_are_written_by_function_15() {
    let coils = WriteRequest::Bits { first: 3, bits: vec![true] };
    let (sent, answer) = write(&coils, &[15, 0, 3, 0, 1]).await;
    assert_eq!(sent, [15, 0, 3, 0, 1, 1, 1]);
    assert!(answer.is_ok(), "{answer:?}");
    let coils = WriteRequest::Bits { first: 0, bits: [true, false, true].repeat(3) };
    let (sent, answer) = write(&coils, &[15, 0, 0, 0, 9]).await;
    assert_eq!(sent, [15, 0, 0, 0, 9, 2, 0x6D, 0x01]);
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_names_another_write_confirms_nothing() {
    let one = words(100, &[1234]);
    let two = words(20, &[0, 0x3FC0]);
    let coil = WriteRequest::Bits { first: 3, bits: vec![true, true] };
    let cases: [(&WriteRequest, &[u8]); 9] = [
        (&one, &[6, 0, 101, 0x04, 0xD2]),
        (&one, &[6, 0, 100, 0x04, 0xD3]),
        (&one, &[6, 0, 100, 0xD2, 0x04]),
        (&two, &[16, 0, 21, 0, 2]),
        (&two, &[16, 0, 20, 0, 1]),
        (&two, &[16, 0, 20, 0, 3]),
        (&coil, &[15, 0, 4, 0, 2]),
        (&coil, &[15, 0, 3, 0, 1]),
        (&coil, &[15, 0, 3, 0, 16]),
    ];
    for (request, pdu) in cases {
        let (_, answer) = write(request, pdu).await;
        let is_other = matches!(&answer, Err(RequestError::Garbled(AnswerMismatch::OtherWrite)));
        assert!(is_other, "{pdu:?}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_length_or_function_confirms_nothing() {
    let two = words(20, &[0, 0x3FC0]);
    let cases: [&[u8]; 5] = [
        &[16, 0, 20, 0],
        &[16, 0, 20, 0, 2, 4],
        &[16, 0, 20, 0, 2, 4, 0, 0, 0x3F, 0xC0],
        &[6, 0, 20, 0, 2],
        &[3, 4, 0, 0, 0x3F, 0xC0],
    ];
    for pdu in cases {
        let (_, answer) = write(&two, pdu).await;
        assert!(matches!(&answer, Err(RequestError::Garbled(_))), "{pdu:?}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_without_the_function_gets_the_other_one() {
    let many = WriteRequest::Bits { first: 3, bits: vec![true] };
    let cases: [(WriteRequest, u8, &[u8]); 2] =
        [(words(100, &[1234]), 6, &[16, 0, 100, 0, 1]), (many, 15, &[5, 0, 3, 0xFF, 0])];
    for (request, unknown, confirmation) in cases {
        let (mut session, mut plc) = session();
        let serve = async {
            answer_next(&mut plc, &[unknown | 0x80, 1]).await;
            answer_next(&mut plc, confirmation).await
        };
        let (answer, sent) = tokio::join!(session.write(ADDRESS, &request), serve);
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(sent[..3], confirmation[..3]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exception_is_a_refusal_and_is_not_repeated() {
    for code in [2, 3, 4, 5, 6, 11] {
        let (_, answer) = write(&words(100, &[7]), &[0x86, code]).await;
        assert!(matches!(answer, Err(RequestError::Refused(is)) if is == code), "{answer:?}");
    }
    let (_, answer) = write(&words(100, &[7, 8]), &[0x90, 1]).await;
    assert!(matches!(answer, Err(RequestError::Refused(1))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_on_a_connection_that_was_closed_or_has_unread_bytes_is_not_sent() {
    for unread in [&[][..], &[0, 9, 0, 0, 0, 6, 255, 6, 0, 100, 0, 7]] {
        let (mut session, mut plc) = session();
        plc.write_all(unread).await.unwrap();
        plc.shutdown().await.unwrap();
        let answer = session.write(ADDRESS, &words(100, &[7])).await;
        assert!(matches!(answer, Err(RequestError::NotSent(_))), "{answer:?}");
        drop(session);
        assert_eq!(plc.read(&mut [0; 1]).await.unwrap(), 0, "no byte was sent");
    }
    // After its first byte the PLC may have carried it out.
    let (mut session, mut plc) = session();
    let close = async move { plc.read_exact(&mut [0; 12]).await.unwrap() };
    let request = words(100, &[7]);
    let (answer, _) = tokio::join!(session.write(ADDRESS, &request), close);
    assert!(matches!(answer, Err(RequestError::Disconnected(_))), "{answer:?}");
}

fn words(first: u16, words: &[u16]) -> WriteRequest {
    WriteRequest::Words { first, words: words.to_vec() }
}

/// Returns the PDU that was sent, and the outcome of this answer.
async fn write(request: &WriteRequest, pdu: &[u8]) -> (Vec<u8>, Result<(), RequestError>) {
    let (mut session, mut plc) = session();
    let serve = answer_next(&mut plc, pdu);
    let (answer, sent) = tokio::join!(session.write(ADDRESS, request), serve);
    (sent, answer)
}

/// Receives a frame, answers it with this PDU, and returns the PDU of the frame.
async fn answer_next(plc: &mut DuplexStream, pdu: &[u8]) -> Vec<u8> {
    let mut header = [0; 7];
    plc.read_exact(&mut header).await.unwrap();
    let mut sent = vec![0; usize::from(header[5]) - 1];
    plc.read_exact(&mut sent).await.unwrap();
    let length = u8::try_from(pdu.len() + 1).unwrap();
    let answer = [&header[..2], &[0, 0, 0, length, 255], pdu].concat();
    plc.write_all(&answer).await.unwrap();
    sent
}
