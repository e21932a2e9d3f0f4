//! One client's connection: splits the bytes into requests and writes the answers in their order.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::command::{RequestBatch, SimulatorCommand};
use super::faults::AnswerStep;
use super::frame::{self, NotModbus};

/// Most requests of one connection that the PLC answers in one cycle: the upper end of what Modbus
/// Messaging on TCP/IP suggests for NumberMaxOfServerTransaction. Further requests wait.
const MAX_TRANSACTIONS: usize = 16;
const BUFFER_CAPACITY: usize = MAX_TRANSACTIONS * frame::MAX_LEN;

/// The stream to a client.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Disables Nagle's algorithm, so that answers leave at once.
    fn disable_nagle(&self) -> io::Result<()>;

    /// Makes the stream end with a reset when it is dropped.
    fn abort_on_close(&self) -> io::Result<()>;
}

impl ClientStream for TcpStream {
    fn disable_nagle(&self) -> io::Result<()> {
        self.set_nodelay(true)
    }

    fn abort_on_close(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }
}

impl ClientStream for DuplexStream {
    fn disable_nagle(&self) -> io::Result<()> {
        Ok(())
    }

    fn abort_on_close(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves one client until it disconnects or breaks the framing, or the PLC is stopped.
pub(super) async fn run(
    stream: impl ClientStream,
    client: u64,
    plc: mpsc::Sender<SimulatorCommand>,
) {
    if let Err(error) = serve(stream, client, plc).await {
        tracing::debug!(client, %error, "the connection to a client failed");
    }
}

async fn serve(
    mut stream: impl ClientStream,
    client: u64,
    plc: mpsc::Sender<SimulatorCommand>,
) -> io::Result<()> {
    stream.disable_nagle()?;
    let mut incoming = Vec::with_capacity(BUFFER_CAPACITY);
    let (requests, answers, steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut batch = RequestBatch { client, requests, answers, steps };
    while split_whole_frames(&mut incoming, &mut batch.requests).is_ok() {
        if batch.requests.is_empty() {
            if stream.read_buf(&mut incoming).await? == 0 {
                return Ok(());
            }
            continue;
        }
        let (reply, answered) = oneshot::channel();
        if plc.send(SimulatorCommand::Exchange(batch, reply)).await.is_err() {
            return Ok(());
        }
        let Ok(back) = answered.await else { return Ok(()) };
        batch = back;
        write_answers(&mut stream, &batch.answers).await?;
        for step in batch.steps.drain(..) {
            perform_step(&mut stream, step).await?;
        }
        batch.requests.clear();
        batch.answers.clear();
    }
    tracing::debug!(client, "closed: not Modbus");
    Ok(())
}

/// Moves whole frames from the front of `incoming` to `requests`.
///
/// Fails only when nothing could be moved: the requests before a broken header are answered.
fn split_whole_frames(incoming: &mut Vec<u8>, requests: &mut Vec<u8>) -> Result<(), NotModbus> {
    let mut rest = incoming.as_slice();
    for taken in 0..MAX_TRANSACTIONS {
        match frame::split_first(rest) {
            Ok(Some((_, behind))) => rest = behind,
            Err(NotModbus) if taken == 0 => return Err(NotModbus),
            Ok(None) | Err(NotModbus) => break,
        }
    }
    let whole = incoming.len() - rest.len();
    requests.extend(incoming.drain(..whole));
    Ok(())
}

/// Writes answers without faults; no others are written here.
async fn write_answers(stream: &mut impl ClientStream, answers: &[u8]) -> io::Result<()> {
    stream.write_all(answers).await
}

/// Performs one step of a faulty answer. Fails when the connection is to end.
async fn perform_step(stream: &mut impl ClientStream, step: AnswerStep) -> io::Result<()> {
    match step {
        AnswerStep::Send(bytes) => stream.write_all(&bytes).await,
        AnswerStep::Pause(pause) => {
            tokio::time::sleep(pause).await;
            Ok(())
        }
        AnswerStep::GoSilent => {
            tokio::io::copy(stream, &mut tokio::io::sink()).await?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        AnswerStep::Reset => {
            stream.abort_on_close()?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_come_out_whole_from_any_fragments(
            pdus in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=253), 0..20),
            cuts in prop::collection::vec(1..700_usize, 1..10),
        ) {
            let frames: Vec<Vec<u8>> = pdus.iter().map(|pdu| frame_of(pdu)).collect();
            let stream = frames.concat();
            let (mut incoming, mut requests) = (Vec::new(), Vec::new());
            let mut rest = stream.as_slice();
            let mut cuts = cuts.iter().cycle();
            while let (false, Some(cut)) = (rest.is_empty(), cuts.next()) {
                let (piece, behind) = rest.split_at(rest.len().min(*cut));
                rest = behind;
                incoming.extend(piece);
                split_until_unchanged(&mut incoming, &mut requests);
                prop_assert!(incoming.len() < frame::MAX_LEN, "less than a frame remains");
            }
            prop_assert_eq!(requests, stream);
        }

        #[test]
        fn any_stream_is_split_in_order_and_to_its_end(
            stream in prop::collection::vec(prop_oneof![Just(0_u8), 0..9_u8, any::<u8>()], 0..600),
        ) {
            let (mut incoming, mut requests) = (stream.clone(), Vec::new());

            split_until_unchanged(&mut incoming, &mut requests);

            prop_assert_eq!([&requests[..], &incoming].concat(), stream);
            prop_assert!(!matches!(frame::split_first(&incoming), Ok(Some(_))), "a whole frame remains");
        }
    }

    #[test]
    fn at_most_the_requests_of_one_cycle_are_split_off() {
        let mut incoming = frame_of(&[3, 0, 0, 0, 1]).repeat(MAX_TRANSACTIONS + 3);
        let mut requests = Vec::new();

        split_whole_frames(&mut incoming, &mut requests).expect("every header is right");

        assert_eq!((requests.len(), incoming.len()), (MAX_TRANSACTIONS * 12, 3 * 12));
    }

    /// Splits frames off until none is left.
    fn split_until_unchanged(incoming: &mut Vec<u8>, requests: &mut Vec<u8>) {
        let mut before = usize::MAX;
        while before != requests.len() {
            before = requests.len();
            if split_whole_frames(incoming, requests).is_err() {
                return;
            }
        }
    }

    fn frame_of(pdu: &[u8]) -> Vec<u8> {
        let len = u8::try_from(pdu.len() + 1).expect("a PDU is short");
        [&[0, 1, 0, 0, 0, len, 255], pdu].concat()
    }
}
