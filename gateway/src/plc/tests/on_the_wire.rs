//! The poll task against a scripted PLC on a real socket.

use provisioning::config::HostPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use provisioning::plan::plan;

use super::*;

#[tokio::test]
async fn a_late_answer_is_never_taken_for_the_next_one() {
    let (endpoint, listener) = link_to_loopback(&[("holding:10", 20)]).await;
    let (events_in, mut events) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let script = async {
        let (mut first, _) = listener.accept().await.unwrap();
        let asked = request(&mut first).await;
        answer(&mut first, &asked, 1).await;
        let late = request(&mut first).await;
        // The gateway closed the old connection before it opens the new one.
        assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0);
        let (mut second, _) = listener.accept().await.unwrap();
        answer(&mut first, &late, 2).await;
        let asked = request(&mut second).await;
        assert_ne!(asked[..2], late[..2], "a new session does not repeat the ids of the old one");
        answer(&mut second, &asked, 3).await;
        // Keeps the connection open until the gateway closes it.
        while second.read(&mut [0; 64]).await.unwrap() > 0 {}
    };
    let reported = async {
        let mut values = Vec::new();
        while values.last() != Some(&Ok(3)) {
            let event = events.recv().await.expect("the task runs");
            if let PlcEvent::Cycle(cycle) = event {
                values.push(cycle.results[0].outcome.clone().map(first_word));
            }
        }
        stop.cancel();
        values
    };
    let polling =
        run(endpoint, ConnectionSlots::new(1), support::without_orders(events_in), stop.clone());
    let (values, (), ()) = tokio::join!(reported, script, polling);
    assert_eq!(values[0], Ok(1));
    assert!(values[1..values.len() - 1].iter().all(|v| *v == Err(ReadFailure::Unreachable)));
}

#[tokio::test]
async fn a_reset_ends_the_session_and_the_next_one_works() {
    let (endpoint, listener) = link_to_loopback(&[("holding:10", 20)]).await;
    let (events_in, mut events) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let script = async {
        let (mut first, _) = listener.accept().await.unwrap();
        request(&mut first).await;
        socket2::SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        let asked = request(&mut second).await;
        answer(&mut second, &asked, 7).await;
        while second.read(&mut [0; 64]).await.unwrap() > 0 {}
    };
    let reported = async {
        let mut states = Vec::new();
        loop {
            match events.recv().await.expect("the task runs") {
                PlcEvent::State { state, .. } => states.push(state),
                PlcEvent::Cycle(cycle) if cycle.results[0].outcome.is_ok() => break,
                PlcEvent::Cycle(_)
                | PlcEvent::Changed { .. }
                | PlcEvent::Throttled { .. }
                | PlcEvent::Learned { .. }
                | PlcEvent::Written(_) => {}
            }
        }
        stop.cancel();
        states
    };
    let polling =
        run(endpoint, ConnectionSlots::new(1), support::without_orders(events_in), stop.clone());
    let (states, (), ()) = tokio::join!(reported, script, polling);
    let [PlcState::Disconnected { diagnosis, .. }, PlcState::Connected { .. }] = &states[..] else {
        panic!("{states:?}");
    };
    assert!(diagnosis.to_string().contains("closed the connection"), "{diagnosis}");
}

/// Returns the next read request; refuses requests for the device identification.
async fn request(plc: &mut TcpStream) -> [u8; 12] {
    loop {
        let mut head = [0; 8];
        plc.read_exact(&mut head).await.unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 2];
        plc.read_exact(&mut rest).await.unwrap();
        if head[7] == 43 {
            let refusal = [head[0], head[1], 0, 0, 0, 3, head[6], 0x80 | 43, 1];
            plc.write_all(&refusal).await.unwrap();
            continue;
        }
        return [&head[..], &rest].concat().try_into().unwrap();
    }
}

/// Answers with one register.
async fn answer(plc: &mut TcpStream, asked: &[u8; 12], word: u8) {
    let bytes = [asked[0], asked[1], 0, 0, 0, 5, asked[6], asked[7], 2, 0, word];
    // The gateway may have closed the connection.
    let _ = plc.write_all(&bytes).await;
}

async fn link_to_loopback(tags: &[(&str, u64)]) -> (Endpoint, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = plc("generic", tags);
    let port = listener.local_addr().unwrap().port();
    config.address = HostPort { host: "127.0.0.1".into(), port };
    config.timeout = Duration::from_millis(300);
    let (_, metrics) = support::metrics(&config);
    let plan = plan(&config);
    let spec = PlcSpec { plc: 0, config, plan, metrics };
    (Endpoint { plcs: vec![spec], phase: 0.0 }, listener)
}
