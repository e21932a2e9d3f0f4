//! Many sessions of one program lose Mosquitto at the same instant, and return to it with the
//! pauses of the gateway. `cargo xtask long` begins 5,000.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::Mosquitto;
use gateway::mqtt::RECONNECT;
use gateway::schedule::RetryBackoff;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Longest wait for a connection and the answer to CONNECT, as in the gateway.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Time after which no session may be missing: the longest pause, and twice the time for a
/// connection.
const RETURN_LIMIT: Duration = Duration::from_secs(90);
/// How long the broker is away. The pauses are at most 8 s by then.
const OUTAGE: Duration = Duration::from_secs(3);

/// Opens a clean session of MQTT 3.1.1 without an end of its keepalive.
async fn open(broker: SocketAddr, number: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(broker).await?;
    let id = format!("{number:08}");
    let mut connect = vec![0x10, 20, 0, 4];
    connect.extend(b"MQTT\x04\x02\x00\x00\x00\x08");
    connect.extend(id.as_bytes());
    stream.write_all(&connect).await?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await?;
    if connack == [0x20, 2, 0, 0] { Ok(stream) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Keeps a session, whose state is counted in `open_sessions`. Never returns.
async fn keep_session(broker: SocketAddr, number: u64, open_sessions: Arc<AtomicUsize>) {
    let mut backoff = RetryBackoff::new(&RECONNECT);
    loop {
        if let Ok(Ok(mut stream)) = timeout(CONNECT_TIMEOUT, open(broker, number)).await {
            backoff.reset();
            open_sessions.fetch_add(1, Ordering::Relaxed);
            // The broker sends nothing, so this returns when the connection ends.
            let _ = stream.read(&mut [0]).await;
            open_sessions.fetch_sub(1, Ordering::Relaxed);
        }
        sleep(backoff.next_pause(fastrand::f64())).await;
    }
}

/// Waits until this number of sessions is open. Returns how long that took, and the largest number
/// that came in one second.
async fn await_sessions(open_sessions: &AtomicUsize, sessions: usize) -> (Duration, usize) {
    let (start, mut counts) = (Instant::now(), vec![open_sessions.load(Ordering::Relaxed)]);
    loop {
        sleep(Duration::from_millis(100)).await;
        let count = open_sessions.load(Ordering::Relaxed);
        counts.push(count);
        if count == sessions {
            let later = counts.iter().skip(10);
            let rates = counts.iter().zip(later).map(|(before, now)| now.saturating_sub(*before));
            return (start.elapsed(), rates.max().unwrap_or(count));
        }
        assert!(start.elapsed() < RETURN_LIMIT, "{count} of {sessions} sessions are open");
    }
}

#[tokio::test]
async fn every_session_returns_within_the_longest_pause() {
    let sessions = test_settings::SESSIONS.number();
    let all = usize::try_from(sessions).unwrap();
    let mut broker = Mosquitto::builder().line("max_connections -1").start();
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port()));
    let open_sessions = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let idle = broker.peak_memory();
    for number in 0..sessions {
        tasks.spawn(keep_session(address, number, Arc::clone(&open_sessions)));
    }
    // All at once: nothing limits the program but the broker.
    let (took, most) = await_sessions(&open_sessions, all).await;
    let memory = broker.peak_memory();
    println!("first: {all} sessions in {took:?}, at most {most} in a second");
    println!("broker: {memory} bytes, {} a session", (memory - idle) / sessions);
    for outage in [Duration::ZERO, OUTAGE] {
        broker.kill();
        while open_sessions.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(outage).await;
        broker.start_again();
        let (took, most) = await_sessions(&open_sessions, all).await;
        println!("away for {outage:?}: all back in {took:?}, at most {most} in a second");
        println!("broker: {} bytes", broker.peak_memory());
    }
}
