//! PLCs of the load test: registers are a function of time, so that a reader can tell how old a
//! value is. Every DINT is the time of the answer in 100 µs.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// PLCs that live as long as the process.
#[derive(Debug, Default)]
pub(crate) struct Plcs {
    pub(crate) ports: Vec<u16>,
    requests: Arc<AtomicU64>,
}

/// Starts `count` PLCs that take `delay` for every answer.
pub(crate) fn start(count: usize, delay: Duration) -> io::Result<Plcs> {
    let mut plcs = Plcs::default();
    for _ in 0..count {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        plcs.ports.push(listener.local_addr()?.port());
        let requests = Arc::clone(&plcs.requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let requests = Arc::clone(&requests);
                // An error only means that the client has disconnected.
                thread::spawn(move || serve(stream, delay, &requests));
            }
        });
    }
    Ok(plcs)
}

impl Plcs {
    /// Returns the number of requests to all PLCs so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: TcpStream, delay: Duration, requests: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 12];
    loop {
        stream.read_exact(&mut request)?;
        requests.fetch_add(1, Ordering::Relaxed);
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        let [_, _, _, _, _, _, unit, function, first_high, first_low, count_high, count_low] =
            request;
        let first = u16::from_be_bytes([first_high, first_low]);
        let count = u16::from_be_bytes([count_high, count_low]);
        if function != 3 || !(1..=125).contains(&count) {
            let header = [request[0], request[1], 0, 0, 0, 3, unit, function | 0x80, 1];
            stream.write_all(&header)?;
            continue;
        }
        let bytes = count * 2;
        let mut answer = Vec::with_capacity(9 + usize::from(bytes));
        answer.extend(&request[..4]);
        answer.extend((bytes + 3).to_be_bytes());
        answer.extend([unit, 3, bytes.to_be_bytes()[1]]);
        let now = super::clock::now_micros();
        for register in first..first + count {
            answer.extend(word(register, now).to_be_bytes());
        }
        stream.write_all(&answer)?;
    }
}

/// Returns the registers: INT, UINT, DINT, REAL repeated, low word first as in a Modicon.
fn word(register: u16, micros: u64) -> u16 {
    let tick = micros / 100_000;
    let [low, high] = match register % 6 {
        0 => [low_word(tick & 0x7fff), 0],
        1 => [low_word(tick), 0],
        2 | 3 => words(super::clock::stamp(micros)),
        _ => words(((tick & 0x7f_ffff) as f32).to_bits()),
    };
    if matches!(register % 6, 3 | 5) { high } else { low }
}

fn low_word(value: u64) -> u16 {
    (value & 0xffff) as u16
}

fn words(value: u32) -> [u16; 2] {
    [low_word(value.into()), low_word((value >> 16).into())]
}
