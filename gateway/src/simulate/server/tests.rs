//! The PLC on a port of loopback.

use provisioning::plc::PlcModel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::simulate::{Fault, Handle, HandleError, RunState, SimulatedProgram, SimulatorSettings};

/// Reads %MW0, transaction 7.
const READ: [u8; 12] = [0, 7, 0, 0, 0, 6, 255, 3, 0, 0, 0, 1];

#[tokio::test]
async fn a_client_reads_the_memory_of_the_plc() {
    let plc = ServedPlc::start(|_| {}).await;
    plc.handle.set_registers(0, &[0x1234]).await.unwrap();
    let mut client = plc.connect().await;

    assert_eq!(client.ask(&READ).await, [0, 7, 0, 0, 0, 5, 255, 3, 2, 0x12, 0x34]);
    assert_eq!(plc.handle.registers(0, 2).await.unwrap(), [0x1234, 0]);
}

#[tokio::test]
async fn fragmented_and_pipelined_requests_are_answered_in_order() {
    let plc = ServedPlc::start(|_| {}).await;
    let mut client = plc.connect().await;
    let many: Vec<u8> = (0..100).flat_map(|id| [&[0, id], &READ[2..]].concat()).collect();

    let (first, rest) = many.split_at(3);
    client.send(first).await;
    plc.handle.counts().await.unwrap();
    client.send(rest).await;

    for id in 0..100 {
        assert_eq!(client.answer().await[..2], [0, id]);
    }
    assert_eq!(plc.handle.counts().await.unwrap().requests, 100);
}

#[tokio::test]
async fn requests_before_a_broken_header_are_answered_then_the_connection_is_closed() {
    let plc = ServedPlc::start(|_| {}).await;
    for broken in [[0, 7, 0, 1, 0, 6], [0, 7, 0, 0, 0, 1], [0, 7, 0, 0, 1, 0]] {
        let mut client = plc.connect().await;

        client.send(&[&READ[..], &broken].concat()).await;

        assert_eq!(client.answer().await.len(), 11);
        assert!(client.is_closed().await, "{broken:?}");
    }
}

#[tokio::test]
async fn the_ninth_client_evicts_the_oldest() {
    let plc = ServedPlc::start(|_| {}).await;
    let mut clients = plc.connect_and_ask(8).await;

    clients.extend(plc.connect_and_ask(1).await);

    assert!(clients.remove(0).is_closed().await);
    for client in &mut clients {
        assert_eq!(client.ask(&READ).await.len(), 11);
    }
    let counts = plc.handle.counts().await.unwrap();
    assert_eq!((counts.connects, counts.evicted, counts.refused, counts.open), (9, 1, 0, 8));
}

#[tokio::test]
async fn a_client_that_disconnects_frees_its_connection() {
    let plc = ServedPlc::start(|_| {}).await;
    let mut clients = plc.connect_and_ask(8).await;

    let mut leaving = clients.remove(3);
    leaving.stream.shutdown().await.unwrap();
    assert!(leaving.is_closed().await);
    plc.wait_until(|counts| counts.open == 7).await;
    clients.extend(plc.connect_and_ask(1).await);

    assert_eq!(plc.handle.counts().await.unwrap().evicted, 0);
    for client in &mut clients {
        assert_eq!(client.ask(&READ).await.len(), 11);
    }
}

#[tokio::test]
async fn the_ninth_client_is_rejected_while_all_others_have_requests_in_progress() {
    // The cycle does not end during the test, so requests stay in progress.
    let plc = ServedPlc::start(|settings| settings.mast = Duration::from_secs(3600)).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(plc.connect().await);
        clients.last_mut().unwrap().send(&READ).await;
    }
    plc.wait_until(|counts| counts.waiting == 8).await;

    assert!(plc.connect().await.is_closed().await);

    let counts = plc.handle.counts().await.unwrap();
    assert_eq!((counts.refused, counts.evicted, counts.open), (1, 0, 8));
}

#[tokio::test]
async fn an_answer_leaves_at_the_end_of_a_mast_cycle() {
    const CYCLE: Duration = Duration::from_millis(20);
    let plc = ServedPlc::start(|settings| settings.mast = CYCLE).await;
    let mut client = plc.connect().await;
    client.ask(&READ).await;

    let start = std::time::Instant::now();
    for _ in 0..5 {
        client.ask(&READ).await;
    }
    assert!(start.elapsed() > 4 * CYCLE, "five cycles took {:?}", start.elapsed());
}

#[test]
fn a_cycle_ends_at_the_next_multiple_of_its_period() {
    let ms = Duration::from_millis;
    assert_eq!(cycle_end(ms(0), ms(10)), ms(10));
    assert_eq!(cycle_end(Duration::from_micros(9_999), ms(10)), ms(10));
    assert_eq!(cycle_end(ms(10), ms(10)), ms(20));
    assert_eq!(cycle_end(ms(3_600_004), ms(10)), ms(3_600_010));
}

#[tokio::test]
async fn the_server_is_switched_off_and_on_at_the_same_port() {
    let plc = ServedPlc::start(|_| {}).await;
    plc.handle.set_registers(0, &[5]).await.unwrap();
    let mut client = plc.connect().await;
    client.ask(&READ).await;

    plc.handle.switch_off().await.unwrap();
    assert!(client.is_closed().await);
    let refused = TcpStream::connect(plc.address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(plc.handle.counts().await.unwrap().open, 0);

    plc.handle.switch_on().await.unwrap();
    assert_eq!(plc.connect().await.ask(&READ).await[10], 5, "memory is kept");
}

#[tokio::test]
async fn faults_are_injected_as_scripted_and_end_with_the_script() {
    let script = [Some(Fault::TooShort), None, Some(Fault::Silent)];
    let plc =
        ServedPlc::start(|settings| settings.faults = Some(FaultInjector::script(script, 0))).await;
    let mut client = plc.connect().await;

    assert_ne!(client.ask(&READ).await.len(), 11);
    assert_eq!(client.ask(&READ).await.len(), 11);
    client.send(&READ).await;
    plc.wait_until(|counts| counts.requests == 3).await;
    assert_eq!(plc.handle.counts().await.unwrap().faulty, 2);
    let always = FaultInjector::random(&[Fault::Exception], 1.0, 0);
    plc.handle.set_faults(Some(always)).await.unwrap();
    assert_eq!(client.ask(&READ).await.len(), 9);
    plc.handle.set_faults(None).await.unwrap();
    assert_eq!(client.ask(&READ).await.len(), 11);
}

#[tokio::test]
async fn a_reset_fault_resets_the_connection() {
    let reset = FaultInjector::script([Some(Fault::Reset)], 0);
    let plc = ServedPlc::start(|settings| settings.faults = Some(reset)).await;
    let mut client = plc.connect().await;
    client.send(&READ).await;
    let mut rest = Vec::new();
    let end = within_timeout(client.stream.read_to_end(&mut rest)).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_in_memory_connection_counts_as_one_of_eight_and_ends_with_the_server() {
    let plc = ServedPlc::start(|_| {}).await;
    let mut clients = plc.connect_and_ask(8).await;
    let mut stream = plc.handle.connect().await.unwrap();
    stream.write_all(&READ).await.unwrap();
    let mut answer = [0; 11];
    within_timeout(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [0, 7, 0, 0, 0, 5, 255, 3, 2, 0, 0]);
    assert!(clients.remove(0).is_closed().await);
    plc.handle.switch_off().await.unwrap();
    assert_eq!(within_timeout(stream.read(&mut [0])).await.unwrap(), 0);
    let mut stream = plc.handle.connect().await.unwrap();
    assert_eq!(within_timeout(stream.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_freezes_the_values_and_a_run_resumes_them() {
    let plc = ServedPlc::start(|settings| settings.program = SimulatedProgram::PumpStation).await;
    let values = async || plc.handle.registers(0, 30).await.unwrap();
    let minute = Duration::from_secs(60);
    assert_eq!(values().await[0], 0, "just switched on");
    tokio::time::advance(minute).await;

    plc.handle.set_state(RunState::Stopped).await.unwrap();
    let stopped = values().await;
    tokio::time::advance(minute).await;
    assert_eq!(values().await, stopped);
    assert_eq!(stopped[0], 6_000);
    assert_eq!(plc.handle.registers(60_012, 1).await.unwrap(), [1]);

    plc.handle.set_state(RunState::Running).await.unwrap();
    tokio::time::advance(minute).await;
    assert_eq!(values().await[0], 12_000);
}

#[tokio::test]
async fn the_handle_sets_bits_and_rejects_unknown_addresses() {
    let plc = ServedPlc::start(|_| {}).await;

    plc.handle.set_output(9, true).await.unwrap();
    plc.handle.set_input(13, true).await.unwrap();

    assert!(plc.handle.output(9).await.unwrap());
    assert!(!plc.handle.output(8).await.unwrap());
    assert!(plc.handle.input(13).await.unwrap());
    let beyond = plc.handle.set_registers(63_999, &[1, 2]).await;
    assert!(matches!(beyond, Err(HandleError::NoSuchAddress)), "{beyond:?}");
    let beyond = plc.handle.registers(65_535, 2).await;
    assert!(matches!(beyond, Err(HandleError::NoSuchAddress)), "{beyond:?}");
}

#[tokio::test]
async fn stopping_closes_everything() {
    let mut plc = ServedPlc::start(|_| {}).await;
    let mut client = plc.connect().await;
    client.ask(&READ).await;

    plc.stop.cancel();
    plc.task.join_next().await.unwrap().unwrap();

    assert!(client.is_closed().await);
    assert!(matches!(plc.handle.counts().await, Err(HandleError::ServerStopped)));
}

/// A served PLC; dropping it stops the server.
struct ServedPlc {
    address: SocketAddr,
    handle: Handle,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl ServedPlc {
    /// Starts an idle M241 that answers at once, unless `change` sets otherwise.
    async fn start(change: impl FnOnce(&mut SimulatorSettings)) -> Self {
        let mut settings = SimulatorSettings::new(PlcModel::M241).unwrap();
        settings.program = SimulatedProgram::Idle;
        settings.mast = Duration::ZERO;
        change(&mut settings);
        let plc = SimulatedPlc::new(settings);
        let handle = plc.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(serve(plc, listener, stop.clone()));
        Self { address, handle, stop, task }
    }

    async fn connect(&self) -> RawClient {
        RawClient { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    async fn connect_and_ask(&self, clients: usize) -> Vec<RawClient> {
        let mut connected = Vec::new();
        for _ in 0..clients {
            let mut client = self.connect().await;
            client.ask(&READ).await;
            connected.push(client);
        }
        connected
    }

    async fn wait_until(&self, reached: impl Fn(&SimulatorCounts) -> bool) {
        within_timeout(async {
            while !reached(&self.handle.counts().await.unwrap()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    async fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.send(request).await;
        self.answer().await
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn answer(&mut self) -> Vec<u8> {
        let mut answer = vec![0; 6];
        within_timeout(self.stream.read_exact(&mut answer)).await.unwrap();
        let len = usize::from(u16::from_be_bytes([answer[4], answer[5]]));
        answer.resize(6 + len, 0);
        within_timeout(self.stream.read_exact(&mut answer[6..])).await.unwrap();
        answer
    }

    /// Waits until the server closes or resets the connection.
    async fn is_closed(&mut self) -> bool {
        matches!(within_timeout(self.stream.read(&mut [0])).await, Ok(0) | Err(_))
    }
}

/// Fails the test if the future does not complete within 10 s.
async fn within_timeout<T>(happens: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), happens).await.expect("it completes in time")
}
