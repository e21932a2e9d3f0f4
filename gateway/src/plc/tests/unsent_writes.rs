//! A server that closes the connection after each answer, which a write finds out before its first
//! byte.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use provisioning::plan::plan as plan_of;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;

use super::modbus::{ModbusConnector, ModbusSession};
use super::orders::{order, word};
use super::session::Connector;
use super::*;
use crate::model::{ImageState, NotSentReason, OrderOutcome};

/// Answers one request on each connection, and closes it.
struct ClosingServer {
    connector: ModbusConnector,
    /// Value of each register that was written, in the order of the writes.
    writes: Arc<Mutex<Vec<(u16, u16)>>>,
    connects: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Connector for ClosingServer {
    type Session = ModbusSession;

    async fn connect(&mut self) -> Result<ModbusSession, ConnectError> {
        let (near, far) = duplex(1024);
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.tasks.spawn(answer_once(far, Arc::clone(&self.writes)));
        Ok(self.connector.new_session(near, self.connector.take_slot()?))
    }
}

async fn answer_once(mut stream: DuplexStream, writes: Arc<Mutex<Vec<(u16, u16)>>>) {
    let mut head = [0; 8];
    if stream.read_exact(&mut head).await.is_err() {
        return;
    }
    let mut content = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 2];
    stream.read_exact(&mut content).await.unwrap();
    let number = |at: usize| u16::from_be_bytes([content[at], content[at + 1]]);
    let pdu = match head[7] {
        3 => {
            let bytes = usize::from(number(2)) * 2;
            [&[3, u8::try_from(bytes).unwrap()][..], &vec![0; bytes]].concat()
        }
        6 => {
            writes.lock().unwrap().push((number(0), number(2)));
            [&[6][..], &content].concat()
        }
        unknown => vec![unknown | 0x80, 1],
    };
    let length = u8::try_from(pdu.len() + 1).unwrap();
    let answer = [&head[..2], &[0, 0, 0, length, head[6]], &pdu].concat();
    stream.write_all(&answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_finds_the_connection_closed_is_sent_once_on_a_new_one() {
    let config = plc("generic", &[("holding:0", 3_600_000)]);
    let connector = ModbusConnector::new(config.address.clone(), SECOND, ConnectionSlots::new(1));
    let (writes, connects): (Arc<Mutex<Vec<_>>>, Arc<AtomicUsize>) = Default::default();
    let server =
        ClosingServer { connector, writes: writes.clone(), connects, tasks: JoinSet::new() };
    let (events_in, mut events) = mpsc::channel(16);
    let (orders, orders_out) = mpsc::channel(16);
    let (_, metrics) = support::metrics(&config);
    let spec = PlcSpec { plc: 0, plan: plan_of(&config), config, metrics };
    let endpoint = Endpoint { plcs: vec![spec], phase: 0.0 };
    let channels = PollChannels { orders: orders_out, events: events_in };
    let (random, stop) = (fastrand::Rng::with_seed(7), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(Poller::new(endpoint, server, channels, random, stop.clone()).run());
    while !matches!(events.recv().await, Some(PlcEvent::Cycle(_))) {}
    time::sleep(SECOND * 90).await;

    let (mut done, mut not_sent) = (Vec::new(), 0);
    for number in 0..20 {
        // The expectation is read first, so that the server has closed when the write comes.
        let expected = PlcOrder { expect: vec![word(30, 0)], ..order(number.into(), &[]) };
        orders.send(PlcOrder { write: vec![word(20, number)], ..expected }).await.unwrap();
        let report = loop {
            if let PlcEvent::Written(report) = events.recv().await.expect("the task runs") {
                break *report;
            }
        };
        match (report.outcome, report.images[0].state) {
            (OrderOutcome::Done, ImageState::Written) => done.push((20, number)),
            (OrderOutcome::NotSent(NotSentReason::Unreachable(_)), ImageState::NotSent) => {
                not_sent += 1;
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!(done.first(), Some(&(20, 0)), "the first one had all connects of a minute");
    assert!(not_sent > 0, "the others wait for a connect, or have none");
    assert_eq!(*writes.lock().unwrap(), done, "each was sent once, and no other one");
    stop.cancel();
}
