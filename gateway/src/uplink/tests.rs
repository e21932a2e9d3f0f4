use std::io;
use std::net::Ipv4Addr;

use provisioning::config::HostPort;
use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpSocket, UnixStream};

use super::*;
use crate::model::Sentence;

mod openssl_dial;
mod tls_dial;
mod tunnel_dial;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_listening_broker_is_reached_by_name() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();

    assert!(uplink().dial(&broker("localhost", address.port()), DIAL_TIMEOUT).await.is_ok());
    let stream = route::connect_tcp(address, None).await.unwrap();
    assert!(stream.nodelay().unwrap());
    assert!(SockRef::from(&stream).keepalive().unwrap());
}

#[tokio::test]
async fn a_closed_port_is_reported_as_refused() {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };

    let error = uplink().dial(&broker("127.0.0.1", port), DIAL_TIMEOUT).await.unwrap_err();

    assert!(matches!(error, DialError::Refused { .. }), "{error:?}");
    let sentence = Sentence::new(&error);
    assert!(sentence.text.contains(&format!("no broker listens on port {port}")), "{sentence}");
    assert_eq!(
        serde_json::to_value(&sentence.detail).unwrap(),
        json!({
            "code": "refused",
            "arguments": {"broker": format!("127.0.0.1:{port}"), "port": port},
        })
    );
}

#[tokio::test]
async fn an_unknown_name_is_reported_as_unresolved() {
    let error = uplink().dial(&broker("nowhere.invalid", 1883), DIAL_TIMEOUT).await.unwrap_err();

    assert!(matches!(error, DialError::Unresolved { .. }), "{error:?}");
    assert!(error.to_string().starts_with("The broker's name nowhere.invalid cannot be resolved"));
}

#[tokio::test]
async fn a_broker_that_does_not_answer_times_out() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut waiting = Vec::new();

    // Nothing accepts: once the backlog is full, the kernel leaves a connect request unanswered.
    let error = loop {
        match uplink().dial(&broker("127.0.0.1", port), Duration::from_millis(200)).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
    };

    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
    assert!(!waiting.is_empty());
}

#[tokio::test]
async fn bytes_and_ends_cross_the_bridge_both_ways() {
    let bridge = UnixBridge::open().unwrap();
    let path = bridge.path().to_owned();
    let (far, mut broker) = duplex(64);
    let client = async {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let broker = async {
        let mut received = Vec::new();
        broker.read_to_end(&mut received).await.unwrap();
        broker.write_all(b"welcome").await.unwrap();
        broker.shutdown().await.unwrap();
        received
    };

    let (copied, answer, received) = tokio::join!(bridge.copy(far), client, broker);

    assert!(copied.is_ok());
    assert_eq!((answer.as_slice(), received.as_slice()), (&b"welcome"[..], &b"hello"[..]));
}

/// As rumqttc ends: DISCONNECT is written, and the socket closed with an answer in it that was not
/// read. The broker still sends.
#[tokio::test]
async fn what_a_client_wrote_before_it_closed_reaches_a_broker_that_sends() {
    for _ in 0..100 {
        let bridge = UnixBridge::open().unwrap();
        let path = bridge.path().to_owned();
        let (far, broker) = duplex(64);
        let client = async {
            let mut client = UnixStream::connect(&path).await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
            client.write_all(b"disconnect").await.unwrap();
        };
        let (mut from_client, mut to_client) = tokio::io::split(broker);
        let sending = async { while to_client.write_all(&[0; 16]).await.is_ok() {} };
        let receiving = async {
            let mut received = [0; 10];
            from_client.read_exact(&mut received).await.map(|_| received)
        };

        let received = tokio::select! {
            (received, ()) = async { tokio::join!(receiving, client) } => received,
            () = sending => panic!("the connection ended"),
            copied = bridge.copy(far) => panic!("{copied:?}: the broker is still there"),
        };

        assert_eq!(received.unwrap(), *b"disconnect");
    }
}

#[tokio::test]
async fn a_reset_by_the_broker_ends_the_client_too() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let far = uplink().dial(&broker("127.0.0.1", port), DIAL_TIMEOUT).await.unwrap();
    let (broker, _) = listener.accept().await.unwrap();
    SockRef::from(&broker).set_linger(Some(Duration::ZERO)).unwrap();
    let bridge = UnixBridge::open().unwrap();
    let path = bridge.path().to_owned();
    let client = async {
        let mut client = UnixStream::connect(&path).await.unwrap();
        drop(broker);
        client.read(&mut [0; 8]).await
    };

    let (copied, read) = tokio::join!(bridge.copy(far), client);

    assert_eq!(copied.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(read.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_second_connection_is_refused() {
    let bridge = UnixBridge::open().unwrap();
    let path = bridge.path().to_owned();
    let (far, _broker) = duplex(64);
    let client = async {
        let first = UnixStream::connect(&path).await.unwrap();
        first.writable().await.unwrap();
        while UnixStream::connect(&path).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };

    tokio::select! {
        _ = bridge.copy(far) => panic!("both ends are still open"),
        () = client => {}
    }
}

#[tokio::test]
async fn another_process_is_rejected() {
    let bridge = UnixBridge::open().unwrap();
    let path = bridge.path().to_owned();
    let (far, mut broker) = duplex(64);
    let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); \
                  s.connect('\\0' + sys.argv[1]); sys.exit(len(s.recv(1)))";
    let client = async {
        let mut python = std::process::Command::new("python3");
        python.args(["-c", script, path.trim_start_matches('\0')]);
        let foreign = tokio::task::spawn_blocking(move || python.status());
        assert!(foreign.await.unwrap().unwrap().success(), "the connection must be closed");
        let mut own = UnixStream::connect(&path).await.unwrap();
        own.write_all(b"x").await.unwrap();
        broker.read_u8().await.unwrap()
    };

    tokio::select! {
        _ = bridge.copy(far) => panic!("the bridge must wait for its own process"),
        byte = client => assert_eq!(byte, b'x'),
    }
}

fn uplink() -> Uplink {
    Uplink::direct(Tls::default())
}

fn broker(host: &str, port: u16) -> Broker {
    Broker { scheme: Scheme::Mqtt, address: HostPort { host: host.into(), port } }
}
