//! A TCP relay in front of the broker with delay and jitter, which can be closed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Listens on a port and forwards connections with a delay.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    gate: Arc<Mutex<Gate>>,
}

/// Open connections, and whether new ones are refused.
#[derive(Debug, Default)]
struct Gate {
    is_shut: bool,
    streams: Vec<TcpStream>,
}

impl Relay {
    /// Starts a relay to a port of loopback. `delay` is that of each direction, `jitter` the mean of a
    /// random addition.
    pub(crate) fn start(to: u16, delay: Duration, jitter: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports are free");
        let port = listener.local_addr().expect("it is bound").port();
        let gate = Arc::new(Mutex::new(Gate::default()));
        let here = Arc::clone(&gate);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let mut gate = here.lock().expect("no thread panics with the lock");
                if gate.is_shut {
                    continue;
                }
                let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).expect("the broker runs");
                near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).expect("a socket");
                gate.streams.extend([copy(&near), copy(&far)]);
                pass(copy(&near), copy(&far), delay, jitter);
                pass(far, near, delay, jitter);
            }
        });
        Self { port, gate }
    }

    /// Closes every connection, and new ones until [`Self::open`].
    pub(crate) fn shut(&self) {
        let mut gate = self.gate.lock().expect("no thread panics with the lock");
        gate.is_shut = true;
        for stream in gate.streams.drain(..) {
            // The connection may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Accepts connections again.
    pub(crate) fn open(&self) {
        self.gate.lock().expect("no thread panics with the lock").is_shut = false;
    }
}

fn copy(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a handle can be copied")
}

/// Forwards bytes in order, each piece after its delay. Ends when either connection ends.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration, jitter: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(1);
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            let delay = delay + jitter.mul_f64(-(1.0 - random.f64()).ln());
            if sender.send((Instant::now() + delay, chunk[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
